"""A step fails, of each kind a night can show early: refused data, a bug, a process that is killed."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from goalrank.errors import EXIT_BUG, EXIT_DATA_REFUSED, EXIT_TRY_AGAIN
from tests.faults.conftest import Seen
from tests.faults.nights import COMMAND, NIGHT_SECONDS, Nights, answer, flags, run_night

BAD_RELEASE = """
import importlib.abc, importlib.util, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "components.check_logs.partitions":
            raise ZeroDivisionError("a bug in a release")
        return None
sys.meta_path.insert(0, Broken())
"""
"""Put in front of Python's path as sitecustomize.py: what a broken release looks like to a step."""


def published(nights: Nights, result: dict[str, Any]) -> bool:
    """Was the report written, does it say so, and is the champion the one before?"""
    report = Path(result["report"])
    assert result["verdict"].capitalize() in report.read_text()
    assert "promote_model" not in nights.outcomes(result)
    assert nights.champion() == nights.first["model_version"]
    return report.is_file()


def test_refused_data(nights: Nights, seen: Seen) -> None:
    nights.break_next_day()
    refused = run_night(nights.workspace)
    assert (refused["verdict"], refused["exit_code"]) == ("refused", EXIT_DATA_REFUSED), refused["reason"]
    assert [stage["name"] for stage in refused["stages"]] == ["check_logs", "publish_report"]
    assert published(nights, refused)
    seen("check_logs refuses a renamed column", f"exit {refused['exit_code']}, {refused['verdict']}, report published")


def test_a_bug(nights: Nights, tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "sitecustomize.py").write_text(BAD_RELEASE)
    failed = run_night(nights.workspace, PYTHONPATH=str(tmp_path))
    assert (failed["verdict"], failed["exit_code"]) == ("failed", EXIT_BUG), failed["reason"]
    assert published(nights, failed)
    seen("a step of a broken release raises", f"exit {failed['exit_code']}, {failed['verdict']}, report published")


def test_a_step_is_killed(nights: Nights, seen: Seen) -> None:
    night = subprocess.Popen(
        [*COMMAND, "nightly", *flags(nights.workspace)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    step = _process_of("check_logs", night)
    step.kill()
    said, _ = night.communicate(timeout=NIGHT_SECONDS)
    failed = answer(said)
    assert (failed["verdict"], failed["exit_code"], night.returncode) == ("failed", EXIT_TRY_AGAIN, EXIT_TRY_AGAIN)
    assert "check_logs was interrupted; `goalrank resume`" in failed["reason"]
    assert published(nights, failed)
    seen("kill -9 of a step's own process", f"exit {failed['exit_code']}, {failed['verdict']}, report published")


def _process_of(step: str, night: subprocess.Popen[str]) -> psutil.Process:
    """The process that runs a step, once it has said that it began."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and night.poll() is None:
        for process in psutil.Process(night.pid).children(recursive=True):
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if "kfp.dsl.executor_main" in words and words[-1] == step and _began(step, words):
                return process
        time.sleep(0.2)
    raise AssertionError(f"{step} never began")


def _began(step: str, words: list[str]) -> bool:
    """Does the run's progress say that the step began? The run's folder stands among the step's own parameters."""
    given = json.loads(words[words.index("--executor_input") + 1])["inputs"]["parameterValues"]
    progress = Path(given["run_uri"], "progress.jsonl")
    return progress.exists() and f'"step": "{step}", "event": "start"' in progress.read_text()
