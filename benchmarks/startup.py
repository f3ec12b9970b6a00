"""Time until a command has answered: `python -m benchmarks.startup [--quick] [--json FILE]`.

Each way is a process of its own as a shell starts it, files in the page cache; the ways take turns, so that a busy
machine is busy for all. Wall time is what a person waits; CPU time (user and system, children included) what it costs.

    help            goalrank --help, history --help: what is imported before anything is done
    completion      what a shell asks whenever Tab is pressed
    look            history and doctor on a folder that holds no workspace: settings, and what a look needs
    rivals          mlflow --help, feast --help of the same environment; python -c pass, below which nobody can get
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Claim, Row, claim, progress, run

ROOT = Path(__file__).resolve().parents[1]
GOALRANK = (sys.executable, "-c", "from goalrank_platform import main; main()")
"""What the installed script does, of this checkout."""
HELP, LOOK = "goalrank --help", "goalrank history"
BARE = "python -c pass"
RIVALS = ("mlflow", "feast")
HELP_SECONDS = 0.5
FASTER = 10.0
RUNS, QUICK_RUNS = 12, 4


@dataclass(frozen=True)
class Way:
    """A command that is started again and again."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Spent:
    """Of one start, in seconds."""

    wall: float
    cpu: float


def ways(folder: Path) -> dict[str, Way]:
    """Ours, and those of the rivals that are installed beside this interpreter."""
    place = {"GOALRANK_WORKSPACE": str(folder / "none")}
    asked = {"_GOALRANK_COMPLETE": "complete_bash", "COMP_WORDS": "goalrank nightly --preset ", "COMP_CWORD": "3"}
    found = {
        HELP: Way((*GOALRANK, "--help"), {}),
        "goalrank history --help": Way((*GOALRANK, "history", "--help"), {}),
        "goalrank, a completion": Way(GOALRANK, asked),
        LOOK: Way((*GOALRANK, "history"), place),
        "goalrank doctor": Way((*GOALRANK, "doctor"), place),
        BARE: Way((sys.executable, "-c", "pass"), {}),
    }
    for rival in RIVALS:
        beside = Path(sys.executable).with_name(rival)
        command = str(beside) if beside.exists() else shutil.which(rival)
        if command:
            found[f"{rival} --help"] = Way((command, "--help"), {})
        else:
            progress(f"{rival} is not installed: not compared")
    return found


def start(way: Way, folder: Path) -> Spent:
    """Start it, wait for it, and say what it took.

    Raises:
        RuntimeError: it did not end well (2 is doctor's word for a problem on this machine, and well enough).
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder), "COLUMNS": "80"} | dict(way.environment)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(way.words, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2) or not (done.stdout or way.words[-1] == "pass"):
        raise RuntimeError(f"{' '.join(way.words)} ended with {done.returncode}: {done.stderr[-300:]}")
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(runs: int) -> dict[str, list[Spent]]:
    """Every way `runs` times, in turns; a start of each before that does not count: it fills the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        compared = ways(Path(folder))
        spent: dict[str, list[Spent]] = {name: [] for name in compared}
        for turn in range(runs + 1):
            for name, way in compared.items():
                took = start(way, Path(folder))
                if turn:
                    spent[name].append(took)
            progress(f"turn {turn} of {runs}")
    return spent


def judged(spent: Mapping[str, Sequence[Spent]]) -> tuple[list[Row], list[Claim]]:
    """The table and its claims."""
    middle = {name: statistics.median(one.wall for one in times) for name, times in spent.items()}
    cpu = {name: statistics.median(one.cpu for one in times) for name, times in spent.items()}
    rows: list[Row] = [
        {
            "command": name,
            "wall_p50_s": middle[name],
            "wall_min_s": min(one.wall for one in times),
            "wall_max_s": max(one.wall for one in times),
            "cpu_p50_s": cpu[name],
            "wall_of_ours": middle[name] / middle[HELP],
            "cpu_of_ours": cpu[name] / cpu[HELP],
        }
        for name, times in spent.items()
    ]
    claims = [claim(f"{HELP}, seconds, median", middle[HELP], "at most", HELP_SECONDS)]
    claims += [
        claim(
            f"CPU time of {rival} --help, times that of {HELP}", cpu[f"{rival} --help"] / cpu[HELP], "at least", FASTER
        )
        for rival in RIVALS
        if f"{rival} --help" in spent
    ]
    return rows, claims


def rows_of(quick: bool) -> tuple[list[Row], list[Claim]]:
    """Measure and judge."""
    return judged(measure(QUICK_RUNS if quick else RUNS))


if __name__ == "__main__":
    run("startup", rows_of, __doc__ or "")
