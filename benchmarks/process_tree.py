"""What one command costs with all the processes it starts: seconds, processor seconds, and memory at the peak."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.2
QUOTED = 4000
"""Characters of a failed command's complaints."""

KINDS = ("java", "python")


@dataclass
class Cost:
    """Memory in MB (10^6 bytes) resident, sampled: of the tree's processes of KINDS, and of those of each kind.

    Others are not counted: a process that Java is starting has a thread's name and, for a moment, all Java's memory.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    kind_mb: dict[str, float] = field(default_factory=dict)
    output: str = ""


def measured(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Cost:
    """Run a command to its end; its standard output is part of the answer.

    `folder` is where its output is kept meanwhile, since a pipe nobody reads would stop it.

    Raises:
        RuntimeError: it ended with another status than 0; beginning and end of what it said are quoted.
    """
    cost, cpu = Cost(), {}
    said, complaints = folder / "stdout", folder / "stderr"
    begun = time.perf_counter()
    with open(said, "w") as out, open(complaints, "w") as err:
        running = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        try:
            while running.poll() is None:
                _sample(running.pid, cost, cpu)
                time.sleep(SAMPLE_SECONDS)
        finally:
            stop(running)
    cost.seconds, cost.cpu_seconds, cost.output = time.perf_counter() - begun, sum(cpu.values()), said.read_text()
    if running.returncode:
        text = complaints.read_text()
        # What went wrong stands first where Java said it, last where Python did.
        quoted = text if len(text) <= QUOTED else f"{text[: QUOTED // 2]}\n...\n{text[-QUOTED // 2 :]}"
        raise RuntimeError(f"{' '.join(command)} ended with status {running.returncode}:\n{quoted}")
    return cost


def stop(running: subprocess.Popen) -> None:
    """End a process that still runs and all it has started; nothing where it has ended."""
    if running.poll() is not None:
        return
    tree = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    for process in tree:
        if process.is_running():
            process.kill()
    running.wait()


def _sample(root: int, cost: Cost, cpu: dict[int, float]) -> None:
    memory: dict[str, float] = {}
    try:
        tree = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        try:
            with process.oneshot():
                times, name, resident = process.cpu_times(), process.name(), process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        cpu[process.pid] = times.user + times.system
        for kind in (kind for kind in KINDS if kind in name):
            memory[kind] = memory.get(kind, 0.0) + resident / 1e6
    cost.peak_mb = max(cost.peak_mb, sum(memory.values()))
    for kind, resident in memory.items():
        cost.kind_mb[kind] = max(cost.kind_mb.get(kind, 0.0), resident)
