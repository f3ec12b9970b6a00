"""Roll-back on a real MLflow registry: to the version before, both models, journalled, once, never to what is unfit."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components import registry
from components.promote_model import journal, lineage
from components.promote_model.main import run as promote
from components.promote_model.rollback import MAXIMUM_REASON, NOBODY, roll_back
from goalrank.errors import CheckpointDamaged, ModelRefused, TryAgain, UsageError
from goalrank.verdict import MAX_AGE_HOURS
from tests.components.promoted_workspace import PromotedWorkspace
from tests.components.untrained_models import NightInputs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three versions, each promoted over the one before."""
    inputs = NightInputs(tmp_path_factory.mktemp("inputs"), requests=120)
    return PromotedWorkspace(tmp_path_factory.mktemp("place") / "workspace", inputs).promoted(3)


@pytest.fixture
def place(made, tmp_path):
    """The same, its aliases and journal as after the third promotion; the journal a copy."""
    kept = Path(made.journal_uri) / journal.FILE
    before = kept.read_bytes()
    yield made
    kept.write_bytes(before)
    client = registry.connect(made.tracking_uri)
    for name in (registry.RANKER, registry.REWARD):
        registry.point(client, name, registry.CHAMPION, "3")
        registry.point(client, name, registry.PREVIOUS, "2")


def back(place, **more):
    return roll_back(place.tracking_uri, place.journal_uri, more.pop("reason", "clicks halved"), **more)


def newest(place) -> dict:
    return journal.read(place.journal_uri)[-2]


# ---------------------------------------------------------------------------------------------------- where it leads


def test_both_models_return_to_previous_and_the_journal_says_why(place):
    done = back(place)
    assert (done["rolled_back"], done["from"], done["to"], done["previous"]) == (True, "3", "2", "1")
    assert place.aliases() == [("2", "1"), ("2", "1")]
    intent = newest(place)
    assert (intent["kind"], intent["by"], intent["reason"]) == ("rollback", "hand", "clicks halved")
    assert journal.open_intent(place.journal_uri) is None


def test_typed_twice_it_does_not_go_two_steps_back(place):
    back(place)
    with pytest.raises(UsageError, match="--to VERSION"):
        back(place)
    assert place.aliases()[0] == ("2", "1")
    assert back(place, to="2")["rolled_back"] is False
    assert back(place, to="1")["to"] == "1"
    assert place.aliases() == [("1", None), ("1", None)]


def test_a_roll_back_can_be_undone_and_leaves_all_as_it_was(place):
    back(place)
    back(place, to="3", reason="it was the news, not the model")
    assert place.aliases() == [("3", "2"), ("3", "2")]
    past = lineage.follow(journal.read(place.journal_uri))
    assert (past.line, past.rolled_back) == (["1", "2", "3"], {})


def test_to_nobody_and_back_again(place):
    back(place, to=NOBODY)
    assert place.aliases() == [(None, None), (None, None)]
    back(place, to="2")
    assert place.aliases()[0][0] == "2"


def test_a_promotion_after_it_has_the_restored_version_as_previous(place):
    back(place)
    fourth = place.night(14, 2)
    place.promote(fourth)
    version = place.aliases()[0][0]
    assert place.aliases()[0] == (version, "2") and version not in ("1", "2", "3")
    back(place)
    assert place.aliases()[0] == ("2", "1")


def test_a_dry_run_says_where_and_moves_nothing(place):
    journalled = (Path(place.journal_uri) / journal.FILE).read_bytes()
    plan = back(place, dry_run=True)
    assert (plan["rolled_back"], plan["to"], plan["previous"]) == (False, "2", "1")
    assert place.aliases()[0] == ("3", "2")
    assert (Path(place.journal_uri) / journal.FILE).read_bytes() == journalled


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("to", ["9", "4"])
def test_a_version_that_was_never_champion_is_refused(place, to):
    if to == "4" and registry.registered(registry.connect(place.tracking_uri), registry.RANKER, "4") is None:
        place.night(24, 3)
    expected = (ModelRefused, "never champion") if to == "4" else (UsageError, "not in the registry")
    with pytest.raises(expected[0], match=expected[1]):
        back(place, to=to)
    assert place.aliases()[0] == ("3", "2")


@pytest.mark.parametrize("to", ["..", "1#2", "%2e%2e", "2\n", "02", "-1", ""])
def test_a_version_that_is_no_number_is_refused(place, to):
    with pytest.raises(UsageError, match="expected a version number"):
        back(place, to=to)


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * (MAXIMUM_REASON + 1)])
def test_a_reason_is_one_line(place, reason):
    with pytest.raises(UsageError, match="--reason"):
        back(place, reason=reason)


def test_nothing_to_roll_back_to(tmp_path):
    with pytest.raises(UsageError, match="nothing was ever promoted"):
        roll_back(f"sqlite:///{tmp_path}/none/mlflow.db", str(tmp_path / "journal"), "why")
    assert not (tmp_path / "none").exists()


def test_a_first_champion_has_nobody_before_it(place, monkeypatch):
    back(place, to="1")
    events = journal.read(place.journal_uri)
    monkeypatch.setattr(journal, "read", lambda uri: events[:2])  # as after the first promotion
    with pytest.raises(UsageError, match="previous none"):
        back(place)


def test_features_that_changed_since_are_refused_and_named(place):
    client = registry.connect(place.tracking_uri)
    tag = client.get_model_version(registry.RANKER, "2").tags[registry.FEATURE_SET]
    client.set_model_version_tag(registry.RANKER, "2", registry.FEATURE_SET, "0" * 16)
    try:
        with pytest.raises(ModelRefused, match="trained on feature set 0000000000000000"):
            back(place)
        assert place.aliases()[0] == ("3", "2")
        assert back(place, to="1")["to"] == "1"
    finally:
        client.set_model_version_tag(registry.RANKER, "2", registry.FEATURE_SET, tag)


def test_a_damaged_file_of_the_target_is_found_before_any_alias_moves(place):
    client = registry.connect(place.tracking_uri)
    digest = registry.identity(client.get_model_version(registry.RANKER, "2")).weights_sha256
    weights = Path(place.folder, "mlflow").rglob("artifacts/**/weights.safetensors")
    (file,) = [file for file in set(weights) if registry.file_sha256(file) == digest]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(CheckpointDamaged, match="SHA-256"):
            back(place)
    finally:
        file.write_bytes(whole)
    assert place.aliases()[0] == ("3", "2")


def test_aliases_that_contradict_the_journal_are_not_followed(place):
    registry.point(registry.connect(place.tracking_uri), registry.RANKER, registry.PREVIOUS, "1")
    with pytest.raises(ModelRefused, match="moved an alias by hand"):
        back(place)
    assert back(place, to="2")["to"] == "2"


def test_without_its_journal_the_aliases_and_the_runs_are_enough(place):
    """The mend for a damaged journal is to move it away; a roll-back must work after that."""
    (Path(place.journal_uri) / journal.FILE).write_bytes(b"")
    assert back(place)["to"] == "2"
    assert [champion for champion, _ in place.aliases()] == ["2", "2"]


def test_only_from_the_champion_that_was_meant(place):
    with pytest.raises(TryAgain, match="by now"):
        back(place, champion="2", to="1")
    assert place.aliases()[0] == ("3", "2")


# -------------------------------------------------------------------------------------------- never by itself again


def test_the_same_night_again_does_not_promote_what_was_rolled_back_from(place):
    back(place)
    with pytest.raises(ModelRefused, match="version 3 was rolled back from .*clicks halved"):
        promote(**place.arguments(place.nights[2]))
    assert place.aliases()[0] == ("2", "1")


def test_nor_a_version_that_was_passed_over(place):
    back(place, to="1")
    with pytest.raises(ModelRefused, match="version 2 was rolled back from"):
        promote(**place.arguments(place.nights[1]))


def test_a_stale_verdict_is_refused(place):
    arguments = place.arguments(place.night(34, 3))
    path = Path(arguments["serving"])
    document = json.loads(path.read_text())
    long_ago = datetime.now(UTC) - timedelta(hours=MAX_AGE_HOURS + 1)
    # Written this very moment, as a copy from a store would be: the file's own time says nothing.
    path.write_text(json.dumps(document | {"judged_at": long_ago.strftime("%Y-%m-%dT%H:%M:%SZ")}))
    with pytest.raises(ModelRefused, match=f"serving verdict was judged .* expected at most {MAX_AGE_HOURS}"):
        promote(**arguments)
    assert place.aliases()[0] == ("3", "2")


# ---------------------------------------------------------------------------------------------------------- crashes


KILLED = """
import json, os, signal, sys
from components import registry
from components.promote_model import journal
from components.promote_model.rollback import roll_back
moves, real = [], registry.point
def point(*arguments):
    if len(moves) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)
    moves.append(arguments)
registry.point = point
journal.end = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
roll_back(**json.loads(sys.argv[1]))
"""


@pytest.mark.parametrize("moves_done", [0, 1, 2, 3, 4])
def test_killed_in_the_middle_the_same_command_finishes_it_and_goes_no_further(place, moves_done):
    arguments = {"tracking_uri": place.tracking_uri, "journal_uri": place.journal_uri, "reason": "clicks halved"}
    command = [sys.executable, "-c", KILLED, json.dumps(arguments), str(moves_done)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert journal.open_intent(place.journal_uri)["kind"] == "rollback"
    done = back(place)
    assert (done["to"], "interrupted" in done["repaired"]) == ("2", True)
    assert place.aliases() == [("2", "1"), ("2", "1")]
    assert [event["event"] for event in journal.read(place.journal_uri)][-2:] == ["intent", "done"]


def test_an_interrupted_promotion_is_finished_and_then_rolled_back_from(place, monkeypatch):
    fourth = place.night(44, 3)

    class Crash(BaseException):
        pass

    def crash(*arguments):
        raise Crash

    monkeypatch.setattr(journal, "apply", crash)
    with pytest.raises(Crash):
        promote(**place.arguments(fourth))
    monkeypatch.undo()
    done = back(place)
    assert (done["to"], "promotion" in done["repaired"]) == ("3", True)
    assert place.aliases()[0] == ("3", "2")


# ---------------------------------------------------------------------------------------------------------- journal


def test_the_line_of_succession():
    def event(number, kind, before, after):
        moves = [
            {"name": name, "from": before and prefix + before, "to": after and prefix + after, "previous": None}
            for name, prefix in ((registry.RANKER, ""), (registry.REWARD, "10"))
        ]
        intent = {"event": "intent", "id": number, "kind": kind, "moves": moves, "at": "then", "reason": "why"}
        return [intent, {"event": "done", "id": number}]

    events = event(1, "promotion", "4", "5") + event(2, "promotion", "5", "7") + event(3, "promotion", "7", "8")
    past = lineage.follow(events)
    assert (past.line, past.rewards["7"], past.ever) == (["4", "5", "7", "8"], "107", ["4", "5", "7", "8"])
    past = lineage.follow(events + event(4, "rollback", "8", "5"))
    assert (past.line, sorted(past.rolled_back)) == (["4", "5"], ["7", "8"])
    past = lineage.follow(events + event(4, "rollback", "8", "5") + event(5, "rollback", "5", "7"))
    assert (past.line, sorted(past.rolled_back)) == (["4", "5", "7"], ["8"])
    past = lineage.follow(events + event(4, "rollback", "8", None))
    assert (past.line, past.after("7")) == ([], ["7"])
    unfinished = lineage.follow(events[:-1])
    assert unfinished.line == ["4", "5", "7"]
