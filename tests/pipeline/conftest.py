"""Whole nights on a small simulated world: run once a session, looked at by many tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.publish_report.notify import ADDRESS
from tests.webhook import Webhook, listening

WORLD = ["--users", "500", "--items", "200", "--requests-per-day", "1500"]

COMMAND = [sys.executable, "-c", "from goalrank_platform import main; main()"]


def flags(workspace: Path) -> list[str]:
    """What every night of these tests is started with."""
    return ["--workspace", str(workspace), "--preset", "tiny", "--json"]


def goalrank(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=1800,
    )


def run_night(workspace: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """One tiny night with --json; its last line of standard output, parsed, beside the process's own exit code."""
    done = goalrank("nightly", *flags(workspace), *arguments, **environment)
    lines = done.stdout.strip().splitlines()
    assert lines, f"nothing on standard output; standard error ends: {done.stderr[-2000:]}"
    result = json.loads(lines[-1])
    assert result["exit_code"] == done.returncode
    return result


def outcomes(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Outcome documents of a night, by step."""
    return json.loads(Path(result["report"]).with_suffix(".json").read_text())["outcomes"]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose world has lived four days and seen no night."""
    folder = tmp_path_factory.mktemp("nights") / "workspace"
    made = goalrank("simulate", "--workspace", str(folder), "--days", "4", *WORLD)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    """Told by the first two nights how they went."""
    with listening() as server:
        yield server


@pytest.fixture(scope="session")
def without_leave(workspace: Path, webhook: Webhook) -> dict[str, Any]:
    """The very first night, as nobody gave leave to bootstrap."""
    return run_night(workspace, **{ADDRESS: webhook.address})


@pytest.fixture(scope="session")
def first_night(workspace: Path, webhook: Webhook, without_leave: dict[str, Any]) -> dict[str, Any]:
    """The same date once more, with leave: no champion yet."""
    return run_night(workspace, "--allow-bootstrap", **{ADDRESS: webhook.address})


@pytest.fixture(scope="session")
def interrupted(workspace: Path, first_night: dict[str, Any]) -> dict[str, Any]:
    """The day after, ended by SIGTERM as soon as the reward model trains."""
    night = subprocess.Popen(
        [*COMMAND, "nightly", *flags(workspace)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 300
    while (
        not training_has_begun(workspace, first_night["date"]) and night.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    night.send_signal(signal.SIGTERM)
    said, _ = night.communicate(timeout=60)
    return json.loads(said.strip().splitlines()[-1]) | {"returncode": night.returncode}


@pytest.fixture(scope="session")
def second_night(workspace: Path, interrupted: dict[str, Any]) -> dict[str, Any]:
    """The interrupted night, resumed: the champion is re-scored."""
    done = goalrank("resume", "--workspace", str(workspace), "--json")
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def again(workspace: Path, second_night: dict[str, Any]) -> dict[str, Any]:
    """The second night's date once more, its features rebuilt from all days."""
    return run_night(workspace, "--date", second_night["date"], "--full-rebuild")


def training_has_begun(workspace: Path, after: str) -> bool:
    """Does a night of a date after `after` say that train_reward is under way?"""
    files = [file for file in (workspace / "nights").glob("*/*/progress.jsonl") if file.parts[-3] > after]
    return any('"step": "train_reward", "event": "progress"' in file.read_text() for file in files)
