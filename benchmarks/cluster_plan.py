"""Machines, memory and hours for more traffic than one machine takes: `python -m benchmarks.cluster_plan [--write]`.

Every number of docs/capacity.md between its two marks is computed here, from the rows that benchmarks/features_scale.py
and benchmarks/scale_out.py left in benchmarks/results and from the assumptions below; `--write` puts them there. Costs
of Spark are processor seconds, which other work on the machine does not change, unlike seconds.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import reward_step
from benchmarks.features_scale import FULL, NIGHT, WINDOW
from benchmarks.gpu_step import GOAL, PEAK_BF16
from benchmarks.report import Row
from goalrank.encoders import ModelSizes
from goalrank.presets import preset
from goalrank.schema import LIST_LENGTH

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).parents[1] / "docs" / "capacity.md"
BEGIN, END = "<!-- begin: python -m benchmarks.cluster_plan --write -->", "<!-- end -->"

IMPRESSIONS = 1_000_000_000
"""A day."""

HOURS = 1.0
"""For extraction."""

EXECUTOR_CORES, EXECUTOR_GB, HEADROOM = 4, 16, 2.0
"""An executor as asked for: 4 GB a core, Spark's usual ratio; HEADROOM times the cores computed, for a retried stage
and a machine that is gone."""

GPU, MEASURED_USE = "H100", 0.160
"""The GPU, and the share of its bf16 peak that a step at preset large got (benchmarks/results/gpu_step.json)."""

SINGLE_USE = 0.0326
"""The same in float32, not compiled, as the reward models are trained: the ranker's step stands for theirs."""

SAMPLING = 2.0
"""A step's arithmetic, lists drawn and rewarded included, as a factor of the counted forward and backward pass."""

REWARD_MODELS = 1.5
"""Of the preset's reward_steps: the guide takes all, the judge half (components/train_reward)."""

ADAM_BYTES = 16
"""A parameter's weight, gradient and two moments, float32."""


def figures(features: Sequence[Row], scale: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The measured constants and the plan, as rows of a name, a value, and where it comes from."""
    most, slope, _ = _costs(features, FULL)
    night, night_slope, night_fixed = _costs(features, NIGHT)
    at, at_night = f"{most['read'] / 1e6:.2g} M impressions", f"{night['read'] / 1e6:.2g} M impressions"
    by = {(row["what"], row["processes"]): row for row in scale}
    trained, model = by["training", 1], by["100 M model", 0]
    efficiency = by["Spark", 2]["speedup"] / 2
    logs_b, made_b = most["logs_mb"] * 1e6 / most["read"], most["made_mb"] * 1e6 / most["read"]
    achieved = trained["gflop_request"] * trained["requests_s"]
    measured = [
        _row("a full rebuild, processor seconds for each million impressions more", slope * 1e6, "s", f"up to {at}"),
        _row("a night, the same", night_slope * 1e6, "s", f"up to {at_night}"),
        _row("a night, processor seconds whatever the size", night_fixed, "s", f"up to {at_night}"),
        _row("a night's Java and Python, resident at most", night["peak_mb"] / 1e3, "GB", f"night, {at_night}"),
        _row(
            "two executors over one, halved: efficiency",
            efficiency,
            "",
            f"{by['Spark', 2]['size'] / 1e6:.2g} M, 2 cores",
        ),
        _row("logs, bytes an impression", logs_b, "B", at),
        _row("features, examples and state, bytes an impression", made_b, "B", at),
        _row("training, preset small or tiny: counted arithmetic a second", achieved, "GFLOP/s", "one CPU process"),
        _row("two training processes over one", by["training", 2]["speedup"], "", f"{trained['size']:,} parameters"),
        _row("ranker of 0.1 B: parameters", model["size"] / 1e6, "M", "counted"),
        _row("ranker of 0.1 B: arithmetic of a request's step", model["gflop_request"], "GFLOP", "counted"),
    ]

    cpu_s = night_slope * IMPRESSIONS + night_fixed
    cores = math.ceil(HEADROOM * cpu_s / (3600 * HOURS * efficiency))
    executors = math.ceil(cores / EXECUTOR_CORES)
    requests = IMPRESSIONS / LIST_LENGTH
    chosen = preset("large")
    lesson = chosen.ranker_steps * chosen.batch_requests
    flops, peak = SAMPLING * model["gflop_request"] * 1e9, PEAK_BF16[GPU]
    hours = {use: flops / (peak * use) / 3600 for use in (MEASURED_USE, GOAL)}
    gradient_gb = model["gradient_mb"] / 1e3
    reward_gflop = reward_step.gflop_request(ModelSizes.from_preset(chosen))
    reward_lesson = math.floor(REWARD_MODELS * chosen.reward_steps) * chosen.batch_requests
    reward_hours = reward_lesson * reward_gflop * 1e9 / (peak * SINGLE_USE) / 3600
    ranker_hours = lesson * hours[MEASURED_USE]
    in_all = (executors + 1) * HOURS + ranker_hours + reward_hours
    plan = [
        _row("extraction, core hours a night", cpu_s / 3600, "h", "constants above"),
        _row(f"extraction in {HOURS:g} h: cores", cores, "", f"over the efficiency, times {HEADROOM:g} for failures"),
        _row(f"... executors of {EXECUTOR_CORES} cores and {EXECUTOR_GB} GB", executors, "", "cores above"),
        _row("... their memory", executors * EXECUTOR_GB, "GB", "executors above"),
        _row("logs a day", logs_b * IMPRESSIONS / 1e9, "GB", "constants above"),
        _row(
            f"logs, features and examples of {WINDOW} days",
            (logs_b + made_b) * IMPRESSIONS * WINDOW / 1e12,
            "TB",
            "constants above",
        ),
        _row("requests a day", requests / 1e6, "M", f"lists of {LIST_LENGTH}"),
        _row(
            "weights, gradients and Adam's moments",
            ADAM_BYTES * model["size"] / 1e9,
            "GB",
            f"{ADAM_BYTES} B a parameter",
        ),
        _row(
            "requests a night's training sees, preset large",
            lesson / 1e6,
            "M",
            f"{chosen.ranker_steps} steps of {chosen.batch_requests}",
        ),
        _row("... share of a day's requests", 100 * lesson / requests, "%", ""),
    ]
    for use, each in hours.items():
        known = "measured at preset large" if use == MEASURED_USE else "the goal, not reached"
        how = f"{GPU} at {use:.0%} of its bf16 peak ({known}), {SAMPLING:g} times the counted arithmetic (assumed)"
        plan.append(_row("... GPU hours", lesson * each, "h", how))
        plan.append(_row("one pass over a whole day's requests, GPU hours", requests * each, "h", how))
    alone = f"{GPU} at {SINGLE_USE:.2%} of its bf16 peak (the ranker's step in float32, measured at preset large)"
    plan += [
        _row("gradients each GPU sums every step", gradient_gb, "GB", "float32, the embedding's included"),
        _row("reward model of preset large: arithmetic of a request's step", reward_gflop, "GFLOP", "counted"),
        _row(
            "requests that guide and judge see in a night",
            reward_lesson / 1e6,
            "M",
            f"{REWARD_MODELS:g} times {chosen.reward_steps} steps of {chosen.batch_requests}",
        ),
        _row("... hours of one GPU", reward_hours, "h", alone),
        _row("a night, machine hours: executors and their driver", (executors + 1) * HOURS, "h", f"{HOURS:g} h each"),
        _row("... one GPU, guide, judge and ranker", reward_hours + ranker_hours, "h", "as measured, above"),
        _row("... in all", in_all, "h", "extraction, reward models and ranker; the rest is not in it (below)"),
    ]
    return measured, plan


def _costs(features: Sequence[Row], job: str) -> tuple[Row, float, float]:
    """The largest row of a job, and its processor seconds for each impression more and for none at all.

    Where one size was measured all its seconds are laid on the impressions, which is too much.
    """
    rows = sorted((row for row in features if row["job"] == job), key=lambda row: row["read"])
    most = rows[-1]
    least = rows[0] if len(rows) > 1 else {"read": 0, "cpu_s": 0.0}
    slope = (most["cpu_s"] - least["cpu_s"]) / (most["read"] - least["read"])
    return most, slope, max(0.0, most["cpu_s"] - slope * most["read"])


def _row(name: str, value: float, unit: str, source: str) -> Row:
    return {"what": name, "value": f"{_rounded(value)} {unit}".strip(), "from": source}


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text(features: dict[str, Any], scale: dict[str, Any]) -> str:
    """Both tables in Markdown; says so where the results are of --quick."""
    measured, plan = figures(features["rows"], scale["rows"])
    quick = [document["benchmark"] for document in (features, scale) if document["quick"]]
    note = f"Provisional: {' and '.join(quick)} ran with --quick.\n\n" if quick else ""
    return f"{note}Measured or counted:\n\n{_table(measured)}\n\nWhat follows from it:\n\n{_table(plan)}\n"


def _table(rows: list[Row]) -> str:
    lines = ["| what | value | from |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row['what']} | {row['value']} | {row['from']} |" for row in rows)])


def with_block(document: str, block: str) -> str:
    """The document with what stands between the marks replaced.

    Raises:
        ValueError: it does not have each mark once.
    """
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise ValueError(f"expected the lines {BEGIN} and {END} once each in {DOCUMENT.name}; put them back")
    before, rest = document.split(BEGIN)
    return f"{before}{BEGIN}\n{block}{END}{rest.split(END)[1]}"


def computed(results: Path = RESULTS) -> str:
    """The tables of the results in the repository, or which of them are not there yet."""
    files = [results / f"{name}.json" for name in ("features_scale", "scale_out")]
    if missing := [file.stem for file in files if not file.exists()]:
        flags = " and ".join(f"`python -m benchmarks.{name} --json benchmarks/results/{name}.json`" for name in missing)
        return f"Not measured yet; run {flags}.\n"
    return text(*(json.loads(file.read_text(encoding="utf-8")) for file in files))


if __name__ == "__main__":
    block = computed()
    print(block, end="")
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(with_block(DOCUMENT.read_text(encoding="utf-8"), block), encoding="utf-8")
