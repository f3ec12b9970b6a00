"""The step as the pipeline starts it: a process of its own, killed in the middle, run again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.extract_features.snapshots import Snapshot, dates
from components.step import DONE
from goalrank.errors import EXIT_DATA_REFUSED
from tests.components.log_samples import random_logs

WORLD = random_logs(seed=11, first="2026-01-01", days=3, requests=6)
ONE, TWO, THREE = WORLD.days


def flags(folder: Path, date: str) -> list[str]:
    """The step's command line."""
    values = {
        "logs-uri": folder / "logs",
        "snapshots-uri": folder / "snapshots",
        "date": date,
        "full-rebuild": "no",
        "window-days": 30,
        "snapshot": folder / f"{date}.json",
        "run-uri": folder / "run" / date,
    }
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def start(folder: Path, date: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "components.extract_features.main", *flags(folder, date)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(folder: Path, date: str) -> dict[str, Any]:
    return json.loads((folder / "run" / date / "outcomes" / "extract_features.json").read_text())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of three days and the snapshot of the second."""
    folder = tmp_path_factory.mktemp("night")
    WORLD.write(folder / "logs")
    process = start(folder, TWO)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return folder


def test_the_step_says_what_it_did(workspace: Path) -> None:
    said = outcome(workspace, TWO)
    snapshot = Snapshot.load(workspace / f"{TWO}.json")
    assert said["kind"] == DONE
    assert said["reason"] == "full: no earlier snapshot"
    assert said["figures"]["snapshot_id"] == snapshot.snapshot_id
    assert said["figures"]["rows"]["examples"] == len(snapshot.read_examples())
    assert said["figures"]["seconds"].keys() == {"digest", "advance", "write", "commit"}
    assert said["tool_seconds"]["pyspark"] > 0
    events = [json.loads(line) for line in (workspace / "run" / TWO / "progress.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events][-1] == "end"
    assert {"digest", "write"} <= {event.get("note") for event in events}


def test_killed_while_writing_leaves_yesterdays_snapshot_to_readers(workspace: Path) -> None:
    snapshots = workspace / "snapshots"
    process = start(workspace, THREE)
    try:
        until = time.monotonic() + 300
        while not list(snapshots.glob("data/*.partial-*/raw/*/_temporary")) and time.monotonic() < until:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    left = list(snapshots.glob("data/*.partial-*"))
    assert left, "killed too late: nothing was half written"
    assert dates(snapshots) == [TWO]
    before = Snapshot.read(snapshots, TWO)
    assert before.problem() == ""
    assert before.manifest == Snapshot.load(workspace / f"{TWO}.json").manifest
    assert not (workspace / f"{THREE}.json").exists()

    process = start(workspace, THREE)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    done = Snapshot.load(workspace / f"{THREE}.json")
    assert outcome(workspace, THREE)["figures"]["mode"] == "incremental"
    assert (done.days, done.problem()) == ([ONE, TWO, THREE], "")
    assert not any(folder.exists() for folder in left)


def test_a_missing_day_is_refused_without_starting_spark(workspace: Path) -> None:
    process = start(workspace, "2026-01-04")
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "no partition" in errors
    said = outcome(workspace, "2026-01-04")
    assert (said["kind"], said["exit_code"]) == ("data_refused", EXIT_DATA_REFUSED)
    assert "dt=2026-01-04" in said["reason"]
    assert "pyspark" not in said["tool_seconds"]
    assert not (workspace / "2026-01-04.json").exists()
