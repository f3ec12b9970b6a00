"""train_ranker by torchrun: two processes, one of them killed outright, and the launch after it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from goalrank.checkpoint import WEIGHTS, read_model_card
from goalrank.errors import EXIT_TRY_AGAIN
from tests.components.test_train_ranker import arguments, inputs, outcome_of, undisturbed
from tests.sampled_lists import tolerance_of

__all__ = ["inputs", "undisturbed"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 2
PATIENCE = 600
"""Seconds for one launch; nothing here may hang."""


def launched(inputs: Path, out: Path) -> subprocess.Popen[bytes]:
    """torchrun of PROCESSES processes on gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(PROCESSES)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "components.train_ranker.main"]
    for name, value in arguments(inputs, out).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def ended(launch: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit status and what was said; none of it is left behind."""
    children = psutil.Process(launch.pid).children(recursive=True) if launch.poll() is None else []
    try:
        _, errors = launch.communicate(timeout=PATIENCE)
    finally:
        for process in children:
            if process.is_running():
                process.kill()
        launch.kill()
    return launch.returncode, errors.decode()


def wait_for_checkpoint(launch: subprocess.Popen[bytes], out: Path, after: int) -> None:
    """Return once a checkpoint of a step beyond `after` is there."""
    deadline = time.monotonic() + PATIENCE
    while not any(int(path.stem.split("-")[1]) > after for path in (out / "checkpoints").glob("step-*.checkpoint")):
        assert launch.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def killed(launch: subprocess.Popen[bytes], rank: int) -> None:
    """kill -9 of one process."""
    ranks = {process.environ().get("RANK"): process for process in psutil.Process(launch.pid).children()}
    ranks[str(rank)].send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed_two(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed-two")
    status, errors = ended(launched(inputs, out))
    assert status == 0, errors
    return out


def test_two_processes_write_one_model(inputs: Path, undisturbed: Path, undisturbed_two: Path) -> None:
    outcome = outcome_of(undisturbed_two)
    assert (outcome["kind"], outcome["figures"]["processes"]) == ("done", PROCESSES)
    events = [json.loads(line)["event"] for line in (undisturbed_two / "run/progress.jsonl").read_text().splitlines()]
    assert (events.count("start"), events.count("end")) == (1, 1)  # the second process writes nothing
    assert not list((undisturbed_two / "checkpoints").glob("*"))
    one, two = load_file(undisturbed / "ranker" / WEIGHTS), load_file(undisturbed_two / "ranker" / WEIGHTS)
    tolerance = tolerance_of(undisturbed / "ranker", undisturbed_two / "ranker")
    assert max(float((two[name] - weight).abs().max()) for name, weight in one.items()) < tolerance


def test_one_process_is_killed_and_the_next_launch_goes_on(inputs: Path, undisturbed_two: Path, tmp_path: Path) -> None:
    """The second process once, then the first, the one that writes."""
    seen = 0
    for rank in (1, 0):
        launch = launched(inputs, tmp_path)
        wait_for_checkpoint(launch, tmp_path, seen)
        killed(launch, rank)
        status, _ = ended(launch)
        assert status != 0
        assert not (tmp_path / "ranker/model.json").exists()
        if rank == 1:  # the first lived to say it
            outcome = outcome_of(tmp_path)
            assert outcome["kind"] == "try_again" and "another process of this training is gone" in outcome["reason"]
        seen = max(int(path.stem.split("-")[1]) for path in (tmp_path / "checkpoints").glob("step-*.checkpoint"))
    status, errors = ended(launched(inputs, tmp_path))
    assert status == 0, errors
    assert outcome_of(tmp_path)["figures"]["resumed_from"] == seen > 0
    again, once = read_model_card(tmp_path / "ranker"), read_model_card(undisturbed_two / "ranker")
    assert again["weights_sha256"] == once["weights_sha256"]
    assert again["metrics"] == once["metrics"]


def test_a_drained_node_stops_all_at_one_step(inputs: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun, which passes it on to every process, each somewhere in its step."""
    launch = launched(inputs, tmp_path)
    wait_for_checkpoint(launch, tmp_path, 0)
    launch.send_signal(signal.SIGTERM)
    status, _ = ended(launch)
    assert status != 0
    outcome = outcome_of(tmp_path)
    assert (outcome["kind"], outcome["exit_code"]) == ("try_again", EXIT_TRY_AGAIN)
    step = int(re.search(r"asked to stop after step (\d+) of", outcome["reason"]).group(1))  # type: ignore[union-attr]
    assert f"step-{step:010d}.checkpoint" in [path.name for path in (tmp_path / "checkpoints").iterdir()]
