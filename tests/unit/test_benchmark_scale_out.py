"""benchmarks/scale_out.py in small: two processes by torchrun, the event log's arithmetic, the form of the claims."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import scale_out
from benchmarks.process_tree import measured
from benchmarks.scale_out import SPARK_SPEEDUP, TRAINING_SPEEDUP
from benchmarks.spark_events import configured, covered, spent
from goalrank.checkpoint import load_model
from goalrank.presets import preset
from goalrank.processes import TOLERANCE_AFTER_A_TIE
from goalrank.reward import RewardModel
from goalrank.train import new_ranker


def test_training_by_one_and_by_two_processes(tmp_path: Path) -> None:
    rows, off = scale_out.training_rows(scale_out.Plan(0, 0, "tiny", 8), tmp_path)
    assert [row["processes"] for row in rows] == [1, 2]
    assert off < TOLERANCE_AFTER_A_TIE
    assert rows[0]["talk_ms"] < rows[1]["talk_ms"] < rows[1]["step_ms"]  # alone there is nobody to talk to
    assert rows[0]["speedup"] == 1.0
    assert rows[0]["alone_ms"] == rows[1]["alone_ms"]
    reward = load_model(tmp_path / "inputs" / "reward")
    assert isinstance(reward, RewardModel)
    parameters = sum(weight.numel() for weight in new_ranker(preset("tiny"), reward).parameters())
    assert rows[1]["size"] == parameters and rows[1]["gradient_mb"] == 4 * parameters / 1e6


def task(launch: int, finish: int, run: int, remote: int) -> str:
    metrics = {
        "Executor Run Time": run,
        "Executor Deserialize Time": 100,
        "Executor CPU Time": run * 500_000,
        "Executor Deserialize CPU Time": 0,
        "JVM GC Time": 10,
        "Shuffle Write Metrics": {"Shuffle Bytes Written": 2_000_000},
        "Shuffle Read Metrics": {"Remote Bytes Read": remote},
    }
    times = {"Launch Time": launch, "Finish Time": finish}
    return json.dumps(
        {"Event": "SparkListenerTaskEnd", "Task Info": times, "Task Metrics": metrics}, separators=(",", ":")
    )


def test_the_event_log_is_summed(tmp_path: Path) -> None:
    assert Path(configured(tmp_path)) == tmp_path
    assert f"spark.eventLog.dir file://{tmp_path}/events\n" in (tmp_path / "spark-defaults.conf").read_text()
    lines = [
        '{"Event":"SparkListenerLogStart"}',
        task(0, 3000, 2900, 0),
        task(1000, 4000, 2900, 10**6),
        task(9000, 9500, 400, 0),
    ]
    (tmp_path / "events" / "local-1").write_text("\n".join(lines))
    found = spent(tmp_path)
    assert (found.tasks, found.busy_s, found.task_s, found.task_cpu_s) == (3, 4.5, 6.5, 3.1)
    assert (found.gc_s, found.shuffle_mb, found.remote_mb) == (0.03, 6.0, 1.0)


def test_intervals_that_overlap_count_once() -> None:
    assert covered([(5, 9), (0, 2), (1, 3), (6, 7)]) == 3 + 4
    assert covered([]) == 0


def test_claims() -> None:
    rows = [
        {"what": what, "processes": count, "speedup": speedup}
        for what, speedup in (("Spark", SPARK_SPEEDUP + 0.1), ("training", TRAINING_SPEEDUP - 0.1))
        for count, speedup in ((1, 1.0), (2, speedup))
    ]
    made = scale_out.claims_of(rows, 0, 2 * TOLERANCE_AFTER_A_TIE)
    assert [one["holds"] for one in made] == [True, False, True, False]
    assert all(set(one) == {"name", "value", "target", "holds"} for one in made)


def test_a_tree_is_measured_and_a_failure_told(tmp_path: Path) -> None:
    child = "held = b'x' * 10**8\nfor i in range(10**7): pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('said')"
    cost = measured([sys.executable, "-c", parent], os.environ, tmp_path)
    assert cost.output == "said\n"
    assert cost.seconds >= 0.2 and cost.cpu_seconds > 0.05
    assert cost.kind_mb["python"] == cost.peak_mb > 100.0
    with pytest.raises(RuntimeError, match="ended with status 3:\nwhy"):
        measured([sys.executable, "-c", "import sys; sys.stderr.write('why'); sys.exit(3)"], os.environ, tmp_path)
