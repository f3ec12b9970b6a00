"""4. Killed while writing a snapshot -> yesterday's is intact and still what readers see, and the next run is clean."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.extract_features.snapshots import Snapshot, dates
from tests.components.log_samples import random_logs
from tests.components.test_extract_features_night import flags, outcome, start
from tests.faults.conftest import Seen

WORLD = random_logs(seed=11, first="2026-01-01", days=3, requests=6)
ONE, TWO, THREE = WORLD.days
SECONDS = 3.0
"""About what writing takes here: the seeded moments lie within."""

SUICIDE = """
import os, signal, sys
from components.extract_features import main, store
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "before the rename of the data":
    rename = os.rename
    os.rename = lambda old, new: die() if str(new) == str(old).partition(".partial-")[0] else rename(old, new)
else:
    store.commit_manifest = die
del sys.argv[1]
main.run_alone(main.run)
"""
"""The step's own process, killing itself (SIGKILL) right before one of the two renames of a commit."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of three days and the snapshot of the second."""
    folder = tmp_path_factory.mktemp("killed")
    WORLD.write(folder / "logs")
    process = start(folder, TWO)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return folder


class Reader(threading.Thread):
    """Reads the newest snapshot again and again, whole."""

    def __init__(self, snapshots: Path) -> None:
        super().__init__()
        self.snapshots, self.stop, self.found, self.faults = snapshots, threading.Event(), set(), []

    def run(self) -> None:
        while not self.stop.is_set():
            newest = Snapshot.read(self.snapshots, dates(self.snapshots)[-1])
            self.found.add(newest.date)
            if problem := newest.problem():
                self.faults.append(problem)
            time.sleep(0.05)


def kill_while_writing(folder: Path, seed: int) -> None:
    """SIGKILL from outside, at a seeded moment after the first file of tonight's appears."""
    process = start(folder, THREE)
    try:
        until = time.monotonic() + 300
        while not list((folder / "snapshots").glob("data/*.partial-*")) and time.monotonic() < until:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, SECONDS))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def kill_itself(folder: Path, moment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUICIDE, moment, *flags(folder, THREE)], cwd=Path(__file__).resolve().parents[2]
    )
    assert done.returncode == -signal.SIGKILL


def test_readers_see_yesterdays_snapshot_whenever_the_writer_dies(workspace: Path, seen: Seen) -> None:
    snapshots = workspace / "snapshots"
    before = Snapshot.read(snapshots, TWO).manifest
    tables = {view: Snapshot.read(snapshots, TWO).read_view(view) for view in before["rows"] if view != "examples"}
    reader = Reader(snapshots)
    reader.start()
    left = []
    try:
        for moment in (1, 2, "before the rename of the data", "before the manifest"):
            if isinstance(moment, int):
                kill_while_writing(workspace, moment)
            else:
                kill_itself(workspace, moment)
            if dates(snapshots) == [TWO, THREE]:  # so late that it was done
                os.unlink(snapshots / "manifests" / f"{THREE}.json")
                continue
            assert dates(snapshots) == [TWO], moment
            left.append(len(list(snapshots.glob("data/*.partial-*"))))
            assert not (workspace / f"{THREE}.json").exists()
    finally:
        reader.stop.set()
        reader.join()
    assert len(left) >= 3 and 1 in left, "killed too late: nothing was half written"
    assert reader.faults == [] and TWO in reader.found
    now = Snapshot.read(snapshots, TWO)
    assert now.manifest == before
    assert all(now.read_view(view).equals(rows) for view, rows in tables.items())

    process = start(workspace, THREE)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    done = Snapshot.load(workspace / f"{THREE}.json")
    assert (done.days, done.problem(), dates(snapshots)) == ([ONE, TWO, THREE], "", [TWO, THREE])
    assert not list(snapshots.glob("data/*.partial-*"))
    mode = outcome(workspace, THREE)["figures"]["mode"]
    assert mode == "incremental"
    seen(
        f"kill -9 of the writer at {len(left)} moments, before each of the commit's two renames among them",
        "readers saw yesterday's snapshot, whole, all the time; the next run went on from it and left nothing behind",
    )
