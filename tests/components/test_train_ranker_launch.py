"""The step starts torchrun itself: refusals come back as they are, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from components.train_ranker.launch import train
from goalrank.errors import UsageError
from tests.components.test_train_ranker import ROOT, arguments, inputs, outcome_of

__all__ = ["inputs"]  # a fixture

PATIENCE = 300
"""Seconds; nothing here may hang."""

STEP = "import json, sys; from components.train_ranker.launch import train; train(2, **json.loads(sys.argv[1]))"


def started(inputs: Path, out: Path) -> subprocess.Popen[str]:
    import json

    return subprocess.Popen(
        [sys.executable, "-c", STEP, json.dumps(arguments(inputs, out))],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def training(step: subprocess.Popen[str], out: Path) -> tuple[psutil.Process, list[psutil.Process]]:
    """torchrun and the processes it started, once a checkpoint is written."""
    deadline = time.monotonic() + PATIENCE
    while not list((out / "checkpoints").glob("step-*.checkpoint")):
        assert step.poll() is None, step.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (torchrun,) = psutil.Process(step.pid).children()
    return torchrun, torchrun.children()


def test_one_process_or_more(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 training processes found, expected 1 or more"):
        train(0, **arguments(inputs, tmp_path))


def test_a_refusal_comes_back_as_it_is(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="preset 'huge'"):
        train(2, **arguments(inputs, tmp_path) | {"preset": "huge"})
    assert outcome_of(tmp_path)["kind"] == "usage"


def test_killed_processes_are_told_of_and_none_stays(inputs: Path, tmp_path: Path) -> None:
    step = started(inputs, tmp_path)
    try:
        torchrun, processes = training(step, tmp_path)
        assert len(processes) == 2
        torchrun.kill()
        _, errors = step.communicate(timeout=PATIENCE)
        assert "goes on from the last checkpoint" in errors
        assert outcome_of(tmp_path)["kind"] == "try_again"
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive, "processes that torchrun left behind end themselves"
    finally:
        step.kill()


def test_sigterm_ends_with_a_checkpoint(inputs: Path, tmp_path: Path) -> None:
    step = started(inputs, tmp_path)
    try:
        _, processes = training(step, tmp_path)
        step.send_signal(signal.SIGTERM)
        step.communicate(timeout=PATIENCE)
        assert outcome_of(tmp_path)["kind"] == "try_again"
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive
    finally:
        step.kill()
