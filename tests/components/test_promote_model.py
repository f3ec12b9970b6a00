"""Promotion on a real MLflow registry: fail closed, once a night, one winner, repaired after a crash."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from components import registry
from components.gate_promotion.main import gate
from components.promote_model import journal
from components.promote_model.canary import Canary, Plan, Reading
from components.promote_model.inference_service import InferenceService
from components.promote_model.main import run
from goalrank import schema
from goalrank import verdict as v
from goalrank.errors import ModelRefused, TryAgain, UsageError
from tests.cluster import kserve_server
from tests.verdicts import passing, promoting

ROOT = Path(__file__).resolve().parents[2]
DATE = "2026-01-08"
MODELS = (registry.RANKER, registry.REWARD)


def digest(name: str, version: int) -> str:
    return f"{MODELS.index(name)}{version}".ljust(64, "0")


def model(name: str, version: int) -> v.ModelVersion:
    return v.ModelVersion(name=name, version=str(version), weights_sha256=digest(name, version))


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(tracking_uri):
    """A registry with versions 1 to 3 of both models and no alias."""
    client = registry.connect(tracking_uri)
    for name in MODELS:
        if client.search_registered_models(f"name = '{name}'"):
            client.delete_registered_model(name)
        client.create_registered_model(name)
        for version in (1, 2, 3):
            tags = {"weights_sha256": digest(name, version), registry.FEATURE_SET: schema.feature_set()}
            client.create_model_version(name, "nowhere", tags=tags)
    return client


class Night:
    """The artifacts of a night that registered `version`, evaluated against `champion`, and their folder."""

    def __init__(self, folder: Path, tracking_uri: str, version: int, champion: int | None) -> None:
        self.folder = folder / f"night-{version}-{champion}"
        self.folder.mkdir(exist_ok=True)
        self.tracking_uri = tracking_uri
        self.journal_uri = str(folder / "journal")
        self.registration = {"tracking_uri": tracking_uri, "run_id": "r1", "snapshot_id": "s1", "date": DATE}
        for field, name in zip(("ranker", "reward"), MODELS, strict=True):
            self.registration[field] = model(name, version).model_dump()
        ranker = model(registry.RANKER, version)
        evaluated = promoting(ranker, None if champion is None else model(registry.RANKER, champion), "s1", DATE)
        self.evaluation = evaluated.model_dump() | {"reason": "better"}
        self.serving = passing(ranker, "s1", DATE).model_dump()

    def paths(self) -> dict[str, str]:
        for name in ("registration", "evaluation", "serving"):
            document = getattr(self, name)
            if document is not None:
                (self.folder / name).write_text(json.dumps(document))
        return {name: str(self.folder / name) for name in ("registration", "evaluation", "serving")}

    def arguments(self) -> dict[str, str]:
        more = {"tracking_uri": self.tracking_uri, "journal_uri": self.journal_uri, "date": DATE}
        return {**self.paths(), **more, "run_uri": str(self.folder / "run")}

    def promote(self) -> dict:
        run(**self.arguments())
        return json.loads((self.folder / "run/outcomes/promote_model.json").read_text())

    def gate(self) -> bool:
        return gate(**self.paths(), run_uri=str(self.folder / "run"))


@pytest.fixture
def night(tmp_path, tracking_uri, client):
    return lambda version, champion: Night(tmp_path, tracking_uri, version, champion)


def aliases(client) -> list[tuple[str | None, str | None]]:
    """(champion, previous) of ranker and reward model."""

    def version(name, alias):
        found = registry.by_alias(client, name, alias)
        return None if found is None else str(found.version)

    return [(version(name, registry.CHAMPION), version(name, registry.PREVIOUS)) for name in MODELS]


def events(night) -> list[str]:
    return [event["event"] for event in journal.read(night.journal_uri)]


# ------------------------------------------------------------------------------------------------------ good nights


def test_first_then_second_champion_and_the_old_one_becomes_previous(night, client):
    assert night(1, None).promote()["figures"]["promoted"] is True
    assert aliases(client) == [("1", None), ("1", None)]
    second = night(2, 1)
    second.promote()
    assert aliases(client) == [("2", "1"), ("2", "1")]
    assert events(second) == ["intent", "done", "intent", "done"]


def test_the_same_night_twice_is_one_promotion(night, client):
    night(1, None).promote()
    second = night(2, 1)
    second.promote()
    outcome = second.promote()
    assert outcome["figures"]["promoted"] is False
    assert aliases(client) == [("2", "1"), ("2", "1")]
    assert events(second).count("intent") == 2


# --------------------------------------------------------------------------------------------------------- refusals


REFUSALS = {
    "evaluation missing": (lambda n: setattr(n, "evaluation", None), "cannot be read"),
    "serving missing": (lambda n: setattr(n, "serving", None), "cannot be read"),
    "registration missing": (lambda n: setattr(n, "registration", None), "cannot be read"),
    "evaluation malformed": (lambda n: n.evaluation.pop("decision"), "decision"),
    "serving malformed": (lambda n: n.serving.update(requests="20"), "requests"),
    "evaluation of another version": (lambda n: n.evaluation["model"].update(version="3"), "version 3, expected 2"),
    "serving of another version": (lambda n: n.serving["model"].update(version="3"), "version 3, expected 2"),
    "evaluation of another snapshot": (lambda n: n.evaluation.update(snapshot_id="s0"), "snapshot s0, expected s1"),
    "serving of another snapshot": (lambda n: n.serving.update(snapshot_id="s0"), "snapshot s0, expected s1"),
    "evaluation of another night": (lambda n: n.evaluation.update(date="2026-01-07"), "expected 2026-01-08"),
    "other weights": (lambda n: n.serving["model"].update(weights_sha256="f" * 64), "weights"),
    "evaluation refuses": (lambda n: n.evaluation.update(decision="refuse"), "refuses"),
    "serving refuses": (lambda n: n.serving.update(decision="refuse"), "refuses"),
    "registration without reward model": (lambda n: n.registration.pop("reward"), "reward"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_gate_and_promotion_fail_closed(night, client, name):
    night(1, None).promote()
    change, message = REFUSALS[name]
    second = night(2, 1)
    change(second)
    with pytest.raises(ModelRefused, match=message):
        second.gate()
    with pytest.raises(ModelRefused, match=message):
        second.promote()
    assert aliases(client) == [("1", None), ("1", None)]
    assert events(second) == ["intent", "done"]


def test_the_gate_opens_for_promote_and_stays_shut_for_keep(night):
    second = night(2, 1)
    assert second.gate() is True
    second.evaluation.update(decision="keep", reason="not better")
    assert second.gate() is False
    outcome = json.loads((second.folder / "run/outcomes/gate_promotion.json").read_text())
    assert outcome["figures"] == {"promote": False}
    assert (outcome["exit_code"], outcome["reason"]) == (0, "not better")


def test_a_kept_champion_is_not_promoted_over_even_if_asked(night, client):
    night(1, None).promote()
    second = night(2, 1)
    second.evaluation.update(decision="keep")
    with pytest.raises(ModelRefused, match="not promote"):
        second.promote()
    assert aliases(client) == [("1", None), ("1", None)]


def test_a_champion_that_changed_since_the_evaluation_is_refused(night, client):
    night(1, None).promote()
    night(2, 1).promote()
    with pytest.raises(ModelRefused, match="evaluated against goalrank-ranker version 1"):
        night(3, 1).promote()
    with pytest.raises(ModelRefused, match="evaluated against none"):
        night(3, None).promote()
    assert aliases(client) == [("2", "1"), ("2", "1")]


def test_a_version_whose_registered_weights_are_others_is_refused(night, client):
    client.set_model_version_tag(registry.REWARD, "1", "weights_sha256", "e" * 64)
    with pytest.raises(ModelRefused, match="goalrank-reward version 1"):
        night(1, None).promote()
    assert aliases(client) == [(None, None), (None, None)]


# ---------------------------------------------------------------------------------------------------- two promoters


def test_who_finds_the_lock_taken_is_told_by_whom(night, client):
    second = night(2, None)
    with journal.lock(second.journal_uri, "night of somebody"), pytest.raises(TryAgain, match="night of somebody"):
        second.promote()
    assert aliases(client) == [(None, None), (None, None)]
    second.promote()
    assert aliases(client)[0] == ("2", None)


def test_of_two_promoters_at_once_exactly_one_wins(night, client):
    night(1, None).promote()
    rivals = [night(2, 1), night(3, 1)]

    def attempt(rival):
        try:
            return rival.promote()["figures"]["version"]
        except (ModelRefused, TryAgain) as refusal:
            return refusal

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(attempt, rivals))
    winners = [result for result in results if isinstance(result, str)]
    assert len(winners) == 1, results
    assert aliases(client) == [(winners[0], "1")] * 2
    assert events(rivals[0]) == ["intent", "done"] * 2


# ---------------------------------------------------------------------------------------------------------- crashes


class Crash(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("moves_done", range(5))
def test_a_crash_after_any_alias_move_is_repaired_by_the_next_run(night, client, monkeypatch, moves_done):
    night(1, None).promote()
    second = night(2, 1)
    real, calls = registry.point, []

    def crashing(*arguments):
        if len(calls) == moves_done:
            raise Crash
        calls.append(arguments)
        real(*arguments)

    def crashing_end(*arguments, **named):
        raise Crash

    monkeypatch.setattr(registry, "point", crashing)
    if moves_done == 4:  # every alias moved, the journal's last line not written
        monkeypatch.setattr(journal, "end", crashing_end)
    with pytest.raises(Crash):
        second.promote()
    monkeypatch.undo()
    assert len(calls) == moves_done
    assert events(second)[-1] == "intent"

    note = journal.repair(second.tracking_uri, second.journal_uri)
    assert "interrupted and is now complete" in note
    assert aliases(client) == [("2", "1"), ("2", "1")]
    assert journal.repair(second.tracking_uri, second.journal_uri) is None
    assert second.promote()["figures"]["promoted"] is False
    assert events(second) == ["intent", "done", "intent", "done"]


def test_killed_between_journal_and_alias(night, client):
    """A real process, really killed: the lock goes with it, the next promoter finishes its work and then its own."""
    night(1, None).promote()
    second = night(2, 1)
    program = """
import json, os, signal, sys
from components import registry
from components.promote_model.main import run
real = registry.point
def point(client, name, alias, version):
    real(client, name, alias, version)
    if alias == registry.CHAMPION:
        os.kill(os.getpid(), signal.SIGKILL)
registry.point = point
run(**json.loads(sys.argv[1]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, json.dumps(second.arguments())]
    assert subprocess.run(command, env=environment, cwd=second.folder).returncode == -signal.SIGKILL
    assert aliases(client) == [("2", "1"), ("1", None)]  # half done: the reward model stayed behind

    third = night(3, 2)
    third.promote()
    assert aliases(client) == [("3", "2"), ("3", "2")]
    assert events(third) == ["intent", "done"] * 3


def test_an_alias_moved_by_hand_after_the_crash_is_left_alone(night, client, monkeypatch):
    night(1, None).promote()
    second = night(2, 1)

    def crashing(*arguments):
        raise Crash

    monkeypatch.setattr(journal, "apply", crashing)
    with pytest.raises(Crash):
        second.promote()
    monkeypatch.undo()
    registry.point(client, registry.RANKER, registry.CHAMPION, "3")
    assert "abandoned" in journal.repair(second.tracking_uri, second.journal_uri)
    assert aliases(client) == [("3", None), ("1", None)]
    assert journal.open_intent(second.journal_uri) is None


# ---------------------------------------------------------------------------------------------------------- journal


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path):
    journal.begin(str(tmp_path), kind="promotion", moves=[])
    with open(tmp_path / journal.FILE, "a") as file:
        file.write('{"format": 1, "event": "do')
    assert [event["event"] for event in journal.read(str(tmp_path))] == ["intent"]
    journal.end(str(tmp_path), 1)
    assert [event["event"] for event in journal.read(str(tmp_path))] == ["intent", "done"]
    assert journal.begin(str(tmp_path), kind="promotion", moves=[]) == 2


@pytest.mark.parametrize("line", ["", "{}", "[]", "nonsense", '{"format": 2, "event": "intent", "id": 1}'])
def test_a_damaged_line_in_the_middle_is_refused_and_named(tmp_path, line):
    journal.begin(str(tmp_path), kind="promotion", moves=[])
    with open(tmp_path / journal.FILE, "a") as file:
        file.write(line + "\n")
    with pytest.raises(ModelRefused, match="line 2"):
        journal.read(str(tmp_path))


# ------------------------------------------------------------------------------------------------------------- away


def test_a_tracking_server_that_is_away_is_tried_again_later(night, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    first = night(1, None)
    with pytest.raises(TryAgain, match="does not answer") as refusal:
        run(**{**first.arguments(), "tracking_uri": "http://user:secret@127.0.0.1:9"})
    assert "secret" not in str(refusal.value)
    assert aliases(client) == [(None, None), (None, None)]


def test_a_database_that_cannot_be_opened_is_tried_again_later(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(TryAgain, match="does not answer"):
        registry.connect(f"sqlite:///{tmp_path}/mlflow.db")


def _half_done(first, second, moves_done, monkeypatch):
    """`second` killed after that many alias moves."""
    first.promote()
    real, calls = registry.point, []

    def crashing(*arguments):
        if len(calls) == moves_done:
            raise Crash
        calls.append(arguments)
        real(*arguments)

    monkeypatch.setattr(registry, "point", crashing)
    with pytest.raises(Crash):
        second.promote()
    monkeypatch.undo()


@pytest.mark.parametrize("moves_done", range(4))
@pytest.mark.parametrize("gone", MODELS)
def test_a_promotion_whose_version_was_deleted_meanwhile_is_put_back(night, client, monkeypatch, moves_done, gone):
    _half_done(night(1, None), night(2, 1), moves_done, monkeypatch)
    client.delete_model_version(gone, "2")
    third = night(3, 1)
    assert third.promote()["figures"]["repaired"].endswith(
        f"abandoned: {gone} version 2 is not in the registry any more; what had moved was put back"
    )
    assert aliases(client) == [("3", "1"), ("3", "1")]
    assert events(third) == ["intent", "done", "intent", "abandoned", "intent", "done"]


def test_put_back_means_previous_too(night, client, monkeypatch):
    night(1, None).promote()
    _half_done(night(2, 1), night(3, 2), 3, monkeypatch)
    client.delete_model_version(registry.RANKER, "3")
    assert "put back" in journal.repair(night(3, 2).tracking_uri, night(3, 2).journal_uri)
    assert aliases(client) == [("2", "1"), ("2", "1")]


def test_a_promotion_is_finished_without_the_predecessor_that_was_deleted(night, client, monkeypatch):
    _half_done(night(1, None), night(2, 1), 2, monkeypatch)
    client.delete_model_version(registry.REWARD, "1")
    assert "now complete" in journal.repair(night(2, 1).tracking_uri, night(2, 1).journal_uri)
    assert aliases(client) == [("2", "1"), ("2", None)]


def test_a_version_that_was_deleted_is_refused(night, client):
    client.delete_model_version(registry.RANKER, "1")
    with pytest.raises(ModelRefused, match="version 1 .* is not in the registry any more"):
        night(1, None).promote()


def test_a_journal_that_is_no_folder_is_refused():
    for use in (journal.read, lambda uri: journal.lock(uri, "me").__enter__()):
        with pytest.raises(UsageError, match="expected a folder: its lock is the file system's"):
            use("s3://bucket/journal")
    assert not Path("s3:").exists()


# ------------------------------------------------------------------------------------------------------ by stages


@pytest.fixture
def kserve(monkeypatch):
    """An InferenceService to promote on, and what is read of a trial's health."""
    monkeypatch.setattr("components.promote_model.inference_service.PAUSE_SECONDS", 0.001)
    plan = Plan(stage_seconds=0.01, longest_seconds=0.2, ready_seconds=0.5, poll_seconds=0.005, least_requests=100)
    with kserve_server.serving() as server:
        server.reading = Reading(1000, 0, 20.0)

        def read(revision, seconds):
            if isinstance(server.reading, BaseException):
                raise server.reading
            return server.reading

        health = SimpleNamespace(read=read)
        service = InferenceService(server.host, kserve_server.NAMESPACE, kserve_server.NAME, kserve_server.TOKEN)
        canary = Canary(service, health, plan)
        monkeypatch.setattr("components.promote_model.canary.from_environment", lambda said: canary)
        yield server


def test_by_stages_the_aliases_move_once_all_have_gone_well(night, client, kserve):
    night(1, None).promote()
    kserve.history.clear()
    outcome = night(2, 1).promote()
    assert outcome["figures"]["canary_stages"] == [5, 25, 50, 99]
    assert [share for version, share in kserve.history if version == "2"][:4] == [5, 25, 50, 99]
    assert kserve.document["spec"] == kserve.original
    assert aliases(client) == [("2", "1"), ("2", "1")]


def test_by_stages_an_unwell_one_is_refused_and_no_alias_moves(night, client, kserve):
    night(1, None).promote()
    before = events(night(1, None))
    kserve.reading = Reading(1000, 100, 20.0)
    with pytest.raises(ModelRefused, match="version 2 was unwell on 5% of the traffic"):
        night(2, 1).promote()
    assert (aliases(client), events(night(1, None))) == ([("1", None), ("1", None)], before)
    assert kserve.document["spec"] == kserve.original


def test_by_stages_a_second_promoter_is_told_and_the_first_wins(night, client, kserve):
    night(1, None).promote()
    kserve.history.clear()
    second, told = night(3, 1), []
    original = kserve.patch

    def patch(changes):
        if kserve.percent == 25 and not told:
            told.append(None)
            kserve.lock.release()  # the second asks the same server
            try:
                with pytest.raises(TryAgain, match="canary of version 2, run .*wait for it to end"):
                    second.promote()
            finally:
                kserve.lock.acquire()
        return original(changes)

    kserve.patch = patch
    assert night(2, 1).promote()["figures"]["canary_stages"] == [5, 25, 50, 99]
    assert told and "3" not in {version for version, _ in kserve.history}
    assert aliases(client)[0] == ("2", "1")
    with pytest.raises(ModelRefused, match="the champion is .* version 2"):
        second.promote()


def test_by_stages_killed_after_the_aliases_moved(night, client, kserve, monkeypatch):
    night(1, None).promote()

    class Killed(BaseException):
        pass

    def killed(_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Canary, "finish", killed)
        night(2, 1).promote()
    assert (aliases(client)[0], kserve.tried) == (("2", "1"), "2")
    assert night(2, 1).promote()["figures"]["canary_stages"] == []
    assert kserve.document["spec"] == kserve.original


def test_by_stages_somebody_else_was_promoted_meanwhile(night, client, kserve):
    night(1, None).promote()
    original = kserve.patch

    def patch(changes):
        if kserve.percent == 50:
            registry.point(client, registry.RANKER, registry.CHAMPION, "3")
        return original(changes)

    kserve.patch = patch
    with pytest.raises(ModelRefused, match="the champion is .* version 3"):
        night(2, 1).promote()
    assert kserve.document["spec"] == kserve.original


@pytest.mark.parametrize(
    ("meanwhile", "said", "champion"),
    [
        (
            lambda trial, client: registry.point(client, registry.RANKER, registry.CHAMPION, "3"),
            "the champion is .* version 3",
            "3",
        ),
        (lambda trial, client: trial.evaluation.update(snapshot_id="s0"), "snapshot s0, expected s1", "1"),
    ],
    ids=["another champion", "another verdict"],
)
def test_by_stages_refused_when_started_again_it_takes_its_trial_back(night, client, kserve, meanwhile, said, champion):
    """The pod was lost in a stage; before kfp's next try something made the version one that may not be promoted."""
    night(1, None).promote()
    trial = night(2, 1)

    class Killed(BaseException):
        pass

    kserve.reading = Killed()
    with pytest.raises(Killed):
        trial.promote()
    kserve.reading = Reading(1000, 0, 20.0)
    assert (kserve.tried, kserve.percent) == ("2", 5)
    meanwhile(trial, client)
    with pytest.raises(ModelRefused, match=said):
        trial.promote()
    kserve.settle()
    assert kserve.document["spec"] == kserve.original and kserve.traffic_of("") == 100
    assert aliases(client)[0][0] == champion


def test_by_stages_a_refusal_leaves_another_versions_trial_alone(night, client, kserve):
    night(1, None).promote()
    kserve.patch({"metadata": dict(kserve.document["metadata"]), "spec": {"predictor": {
        "containers": [{"name": "kserve-container", "env": [{"name": "GOALRANK_SERVE_VERSION", "value": "2"}]}],
        "canaryTrafficPercent": 25,
    }}})  # fmt: skip
    kserve.settle()
    with pytest.raises(ModelRefused, match="evaluated against"):
        night(3, 2).promote()
    assert (kserve.tried, kserve.percent) == ("2", 25)


def test_by_stages_what_may_not_be_promoted_is_not_tried(night, client, kserve):
    night(1, None).promote()
    kserve.history.clear()
    with pytest.raises(ModelRefused, match="evaluated against"):
        night(2, 3).promote()
    assert kserve.history == []
