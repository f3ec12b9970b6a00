"""Point 18 with real processes: one promoter wins, a killed one is repaired, roll-back restores what was journalled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components import registry
from components.promote_model import journal
from tests.components.promoted_workspace import PromotedWorkspace
from tests.components.untrained_models import NightInputs
from tests.faults.conftest import Seen

ROOT = Path(__file__).resolve().parents[2]

PROMOTER = """
import json, os, signal, sys, time
from pathlib import Path
from components import registry
from components.promote_model.main import run
real = registry.point
def point(client, name, alias, version):
    if (name, alias) == (registry.RANKER, registry.CHAMPION):
        Path(sys.argv[2]).write_text("intent written, alias not moved")
        if sys.argv[3] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        while Path(sys.argv[2]).exists():
            time.sleep(0.02)
    real(client, name, alias, version)
registry.point = point
run(**json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> PromotedWorkspace:
    """Version 1 is champion; versions 2 and 3 were both judged against it."""
    inputs = NightInputs(tmp_path_factory.mktemp("inputs"), requests=120)
    place = PromotedWorkspace(tmp_path_factory.mktemp("place") / "workspace", inputs).promoted(1)
    for seed in (2, 3):
        place.night(seed, 1)
    return place


@pytest.fixture(autouse=True)
def as_it_was(place: PromotedWorkspace):
    """Version 1 champion before and after each test."""
    path = Path(place.journal_uri) / journal.FILE
    before = path.read_bytes()
    yield
    path.write_bytes(before)
    client = registry.connect(place.tracking_uri)
    for name in (registry.RANKER, registry.REWARD):
        registry.point(client, name, registry.CHAMPION, "1")
        registry.point(client, name, registry.PREVIOUS, None)


def promoter(place: PromotedWorkspace, night: Path, flag: Path, what: str) -> subprocess.Popen[str]:
    """promote_model in a process that stops between the journal and the alias: waits, or is killed."""
    command = [sys.executable, "-c", PROMOTER, json.dumps(place.arguments(night)), str(flag), what]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_promoters_at_once(place: PromotedWorkspace, tmp_path: Path, seen: Seen) -> None:
    first, second = place.nights[1:3]
    flag = tmp_path / "flag"
    holder = promoter(place, first, flag, "wait")
    try:
        deadline = time.monotonic() + 60
        while not flag.exists() and time.monotonic() < deadline and holder.poll() is None:
            time.sleep(0.05)
        told = place.goalrank("promote", "--run", "/".join(second.parts[-2:]), "--json")
    finally:
        flag.unlink(missing_ok=True)
        said, _ = holder.communicate(timeout=60)
    assert holder.returncode == 0, said
    document = json.loads(told.stdout)
    assert (told.returncode, document["exit_code"]) == (75, 75), told.stderr
    assert "under way" in document["reason"] and f"process {holder.pid}" in document["reason"]
    assert place.aliases() == [("2", "1"), ("2", "1")]
    again = place.goalrank("promote", "--run", "/".join(second.parts[-2:]), "--json")
    assert again.returncode == 4 and "evaluated against goalrank-ranker version 1" in again.stderr
    seen("two promoters at once", "one won, the other was told by whom (75), later refused (4)")


def test_a_promoter_killed_between_journal_and_alias(place: PromotedWorkspace, tmp_path: Path, seen: Seen) -> None:
    killed = promoter(place, place.nights[1], tmp_path / "flag", "die")
    said, _ = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, said
    assert place.aliases()[0][0] == "1"
    history = json.loads(place.goalrank("history", "--json").stdout)
    assert history["entries"][-1]["what"] == "interrupted"
    repaired = place.goalrank("promote", "--run", "/".join(place.nights[1].parts[-2:]), "--json")
    document = json.loads(repaired.stdout)
    assert (repaired.returncode, document["promoted"]) == (0, False), repaired.stderr
    assert "interrupted and is now complete" in document["repaired"]
    assert place.aliases() == [("2", "1"), ("2", "1")]
    assert journal.open_intent(place.journal_uri) is None
    seen("kill -9 after the intent, before the alias", "the next run completed both models' aliases")


def test_rollback_restores_the_journalled_version(place: PromotedWorkspace, seen: Seen) -> None:
    place.promote(place.nights[1])
    before = len(journal.read(place.journal_uri))
    done = place.goalrank("rollback", "--reason", "clicks halved", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (document["from"], document["to"], document["previous"]) == ("2", "1", None)
    assert place.aliases() == [("1", None), ("1", None)]
    intent, end = journal.read(place.journal_uri)[before:]
    assert (intent["kind"], intent["reason"], end["event"]) == ("rollback", "clicks halved", "done")
    again = place.goalrank("promote", "--run", "/".join(place.nights[1].parts[-2:]), "--json")
    assert again.returncode == 4 and "rolled back from" in json.loads(again.stdout)["reason"]
    assert place.goalrank("rollback", "--reason", "once more").returncode == 2
    seen("goalrank rollback", "ranker and reward model back to version 1, version 2 not promoted again (4)")
