"""Where a Spark job's seconds went, from Spark's own event log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spent:
    """Seconds of one application, and MB (10^6 bytes) shuffled.

    Attributes:
        tasks: how many were run.
        task_s: run time of all tasks together, deserialising included; `task_cpu_s` the processor's part of it.
        busy_s: time in which at least one task ran; the rest of the job belongs to the driver.
        gc_s: of the tasks' run time.
        shuffle_mb, remote_mb: written for another stage; read from another executor.
    """

    tasks: int
    task_s: float
    task_cpu_s: float
    busy_s: float
    gc_s: float
    shuffle_mb: float
    remote_mb: float


def configured(folder: Path) -> str:
    """A SPARK_CONF_DIR that has the event log written under `folder`/events."""
    events = folder / "events"
    events.mkdir()
    settings = {"enabled": "true", "dir": f"file://{events}", "rolling.enabled": "false", "compress": "false"}
    lines = [f"spark.eventLog.{name} {value}" for name, value in settings.items()]
    (folder / "spark-defaults.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def spent(folder: Path) -> Spent:
    """What the one application logged under `folder`/events did."""
    (log,) = (folder / "events").iterdir()
    ended = []
    with open(log, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith('{"Event":"SparkListenerTaskEnd"'):
                ended.append(json.loads(line))
    metrics = [task["Task Metrics"] for task in ended if task.get("Task Metrics")]
    reads = [one["Shuffle Read Metrics"] for one in metrics]
    times = [(task["Task Info"]["Launch Time"], task["Task Info"]["Finish Time"]) for task in ended]
    return Spent(
        tasks=len(ended),
        task_s=sum(one["Executor Run Time"] + one["Executor Deserialize Time"] for one in metrics) / 1e3,
        task_cpu_s=sum(one["Executor CPU Time"] + one["Executor Deserialize CPU Time"] for one in metrics) / 1e9,
        busy_s=covered(times) / 1e3,
        gc_s=sum(one["JVM GC Time"] for one in metrics) / 1e3,
        shuffle_mb=sum(one["Shuffle Write Metrics"]["Shuffle Bytes Written"] for one in metrics) / 1e6,
        remote_mb=sum(one["Remote Bytes Read"] for one in reads) / 1e6,
    )


def covered(times: Iterable[tuple[int, int]]) -> int:
    """Length of the union of intervals."""
    total, until = 0, 0
    for begin, end in sorted(times):
        total += max(0, end - max(begin, until))
        until = max(until, end)
    return total
