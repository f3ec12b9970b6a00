"""From one process to two: `python -m benchmarks.scale_out [--quick]`. Spark's executors, and training by torchrun.

Spark: the full job of components/extract_features on `local-cluster[n,1,1024]`, a master, a driver and n executors of
one core, each a process. Its event log splits the job's seconds into three that add up:

    job_s = driver_s + task_s / n + idle_s

`driver_s` when no task ran (planning, listing, committing), `task_s` run time of all tasks, `idle_s` what executors
waited for one another: a stage ends with its slowest task. `ideal_s` has one executor's tasks shared evenly and nothing
else changed; what two take beyond that is in the columns: more task seconds (two JVMs warm up, and the driver has no
core of its own on a machine of two), shuffles read over a socket (`remote_mb`), idle executors.

Training: goalrank/train.py's steps by n processes of one thread, the same batch, so each has 1/n of its requests.
`talk_ms` is what the first process spent summing gradients (`gradient_mb` of them), the wait for the slower one in it;
`alone_ms`, computed from both rows, is what every process does itself, its optimiser step and the batch's own cost.

"100 M model" is not run: its parameters and the arithmetic of a request's step are counted, for docs/capacity.md.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.feature_logs import LogSize, days, write_logs
from benchmarks.features_scale import extracted, job_seconds
from benchmarks.gpu_step import model_flops
from benchmarks.process_tree import measured
from benchmarks.ranker_steps import Work
from benchmarks.report import Claim, Row, claim, progress, run
from benchmarks.scale_out_training import SEED
from benchmarks.spark_events import configured, spent
from components.extract_features.snapshots import TABLES, Snapshot
from goalrank.checkpoint import save_model
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.groups import build_groups, write_groups
from goalrank.presets import preset
from goalrank.processes import TOLERANCE_AFTER_A_TIE
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from tests.synthetic import make_training_set

COUNTS = (1, 2)
SPARK_SPEEDUP, TRAINING_SPEEDUP = 1.3, 1.5
"""Of two over one, on two cores: what a second machine is worth buying for."""


@dataclass(frozen=True)
class Plan:
    """What is run."""

    impressions: int
    days: int
    preset: str
    steps: int


HUNDRED_MILLION = replace(ModelSizes.from_preset(preset("large")), item_buckets=1 << 17)
"""Preset large with an embedding of 131,072 rows: 0.1 B parameters, the largest ranker of the paper."""

FULL = Plan(6_000_000, 10, "small", 60)
QUICK = Plan(60_000, 3, "tiny", 30)


def spark_rows(plan: Plan, folder: Path) -> tuple[list[Row], int]:
    """A row for each number of executors, and how many of their tables differ."""
    logs, last = folder / "logs", days(plan.days)[-1]
    for _ in write_logs(logs, LogSize(plan.impressions // plan.days), plan.days):
        pass
    rows, made = [], []
    for executors in COUNTS:
        events = folder / f"events-{executors}"
        events.mkdir()
        master = f"local-cluster[{executors},1,1024]"
        name = f"snapshots-{executors}"
        cost, outcome = extracted(folder, logs, name, last, plan.days, master, SPARK_CONF_DIR=configured(events))
        job, found = job_seconds(outcome), spent(events)
        read = outcome["figures"]["log_rows"]["impressions"]
        rows.append(
            {
                "what": "Spark",
                "processes": executors,
                "size": read,
                "start_s": cost.seconds - job,
                "job_s": job,
                "rows_s": read / job,
                "cpu_s": cost.cpu_seconds,
                "driver_s": job - found.busy_s,
                "idle_s": found.busy_s - found.task_s / executors,
                **{name: value for name, value in asdict(found).items() if name != "busy_s"},
            }
        )
        made.append(Snapshot.read(folder / name, last))
    for row in rows:
        row["ideal_s"] = rows[0]["driver_s"] + rows[0]["idle_s"] + rows[0]["task_s"] / row["processes"]
        row["speedup"] = rows[0]["job_s"] / row["job_s"]
    return rows, _tables_that_differ(*made)


def _tables_that_differ(one: Snapshot, two: Snapshot) -> int:
    differ = 0
    for day in one.days:
        for table in TABLES:
            pair = [
                made.read_examples([day]) if table == "examples" else made.read_view(table, [day])
                for made in (one, two)
            ]
            differ += not pair[0].equals(pair[1])
    return differ


def training_rows(plan: Plan, folder: Path) -> tuple[list[Row], float]:
    """A row for each number of processes, and by how much their weights differ at most."""
    inputs = _training_inputs(plan, folder / "inputs")
    rows, weights = [], []
    for count in COUNTS:
        progress(f"training: {count} processes, {plan.steps} steps of preset {plan.preset}")
        out = folder / f"out-{count}"
        out.mkdir()
        module = ["-m", "benchmarks.scale_out_training", str(inputs), plan.preset, str(plan.steps), str(out)]
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "--rdzv-backend", "c10d"]
        launcher += ["--rdzv-endpoint", "127.0.0.1:0"]
        command = [sys.executable, *(launcher if count > 1 else []), *module]
        cost = measured(command, os.environ | {"OMP_NUM_THREADS": "1"}, out)
        rows.append(_training_row(plan, count, cost.seconds, cost.cpu_seconds, out))
        weights.append(load_file(out / "ranker.safetensors"))
    one, two = rows
    for row in rows:
        row["speedup"] = one["step_ms"] / row["step_ms"]
        row["alone_ms"] = 2 * (two["step_ms"] - two["talk_ms"]) - one["step_ms"]
    return rows, max(float((weights[1][name] - weight).abs().max()) for name, weight in weights[0].items())


def _training_inputs(plan: Plan, folder: Path) -> Path:
    chosen = preset(plan.preset)
    torch.manual_seed(SEED)
    reward = RewardModel(ModelSizes.from_preset(chosen)).eval()
    make_training_set(folder / "training_set", requests=600, candidates=50)
    data = TrainingSet.load(folder / "training_set")
    save_model(folder / "reward", reward, "reward", reward.sizes.to_dict(), {}, {})
    write_groups(folder / "groups", build_groups(data, data.guide_indices(), reward, chosen.helper_lists, seed=SEED))
    return folder


def _training_row(plan: Plan, count: int, seconds: float, cpu_seconds: float, out: Path) -> Row:
    found: dict[str, Any] = json.loads((out / "steps.json").read_text(encoding="utf-8"))
    chosen, step = preset(plan.preset), statistics.median(found["step_s"])
    return {
        "what": "training",
        "processes": count,
        "size": found["parameters"],
        "start_s": seconds - sum(found["step_s"]),
        "cpu_s": cpu_seconds,
        "step_ms": 1e3 * step,
        "requests_s": chosen.batch_requests / step,
        "talk_ms": 1e3 * statistics.median(found["talk_s"]),
        "gradient_mb": 4 * found["parameters"] / 1e6,
        "gflop_request": _gflop_request(ModelSizes.from_preset(chosen), chosen.group_size),
    }


def model_row() -> Row:
    """What is known of the ranker of 0.1 B parameters without training it."""
    parameters = sum(weight.numel() for weight in Ranker(HUNDRED_MILLION).parameters())
    return {
        "what": "100 M model",
        "processes": 0,
        "size": parameters,
        "gradient_mb": 4 * parameters / 1e6,
        "gflop_request": _gflop_request(HUNDRED_MILLION, preset("large").group_size),
    }


def _gflop_request(sizes: ModelSizes, lists: int) -> float:
    """10^9 operations of one request's forward and backward pass (benchmarks/gpu_step.py says which are counted)."""
    return model_flops(Ranker(sizes).eval(), Work.drawn(1, lists)) / 1e9


def rows_for(plan: Plan) -> tuple[list[Row], list[Claim]]:
    """The table of a plan and its claims."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        rows, off = training_rows(plan, folder)
        rows.append(model_row())
        extractions, differ = spark_rows(plan, folder)
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(folder)
    rows += extractions
    return rows, claims_of(rows, differ, off)


def claims_of(rows: list[Row], differ: int, off: float) -> list[Claim]:
    """What is claimed of the table."""
    speedup = {row["what"]: row["speedup"] for row in rows if row["processes"] == COUNTS[-1]}
    return [
        claim("Spark: tables that differ, one executor from two", differ, "at most", 0),
        claim("training: largest difference of a weight", off, "at most", TOLERANCE_AFTER_A_TIE),
        claim("Spark: two executors over one", speedup["Spark"], "at least", SPARK_SPEEDUP),
        claim("training: two processes over one", speedup["training"], "at least", TRAINING_SPEEDUP),
    ]


if __name__ == "__main__":
    run("scale_out", lambda quick: rows_for(QUICK if quick else FULL), __doc__ or "")
