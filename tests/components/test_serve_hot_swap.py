"""Following the registry: swaps, refusals, the holdback, and a registry that is away."""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from components import registry
from components.serve_model.bodies import parse_rank
from components.serve_model.champion import Champion, Models, load_champion, load_number, on_trial
from components.serve_model.holdback import held_back
from components.serve_model.hot_swap import HotSwap, try_out
from components.serve_model.metrics import Metrics
from components.serve_model.ranking import NO_CHAMPION, RETRIEVER_POLICY, Ranking
from goalrank.errors import ModelRefused, TryAgain, UsageError
from goalrank.verdict import ModelVersion
from tests.components.serving import Caller, Place, address_of, body, by_score, launch, make_place, read_logs, serving


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("store"))


@pytest.fixture
def place(store: Place, tmp_path: Path) -> Place:
    """The store, and a registry of its own with version 1 as champion."""
    (tmp_path / "feast").symlink_to(store.folder / "feast")
    made = Place(tmp_path)
    made.register(seed=1)
    return made


class Following:
    """A ranking that follows a registry, by hand."""

    def __init__(self, place: Place, holdback: float = 0.0, clock=time.monotonic) -> None:
        self.metrics = Metrics()
        models = Models(load_champion(place.tracking_uri), holdback=holdback)
        self.ranking = Ranking(place.features(), models)
        self.swap = HotSwap(place.tracking_uri, self.ranking, self.metrics, clock=clock)

    def swaps(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("goalrank_swaps_total", {"outcome": outcome}) or 0.0

    def version(self) -> str:
        return self.ranking.rank(parse_rank(body(1))).model_version


def test_when_a_night_last_registered_is_told(place):
    """Of the newest version, champion or not: a night that is kept has run as well."""

    def told() -> float:
        return following.metrics.registry.get_sample_value("goalrank_newest_version_timestamp_seconds")

    begun = time.time()
    following = Following(place)
    assert told() == 0.0
    following.swap.look()
    first = told()
    assert 0 <= begun - first < 3600
    place.register(seed=2, alias=None)
    following.swap.look()
    assert told() > first and begun <= told() <= time.time()
    assert following.version() == "1"


def test_the_champion_is_swapped_and_a_known_version_is_not_loaded_again(place, monkeypatch):
    following = Following(place, holdback=0.1)
    following.swap.look()
    assert following.version() == "1" and following.swaps("swapped") == 0
    first = following.ranking.champion
    place.register(seed=2, alias=None)
    place.point("2", previous="1")
    following.swap.look()
    assert following.ranking.champion.version.version == "2" and following.ranking.models.previous is first
    monkeypatch.setattr("components.serve_model.hot_swap.load_version", None)
    place.point("1", previous=None)  # a roll-back
    following.swap.look()
    assert following.ranking.champion is first and following.ranking.models.previous is None
    assert following.swaps("swapped") == 2 and following.swaps("refused") == 0


def test_a_version_of_other_features_is_not_swapped_in(place):
    """It was registered by a release whose features mean something else (FAULTS: roll-back, changed features)."""
    following = Following(place)
    place.register(seed=2)
    registry.connect(place.tracking_uri).set_model_version_tag(registry.RANKER, "2", registry.FEATURE_SET, "other")
    following.swap.look()
    assert following.version() == "1" and following.swaps("refused") == 1


def test_a_refused_version_is_left_alone_for_a_minute_and_a_good_one_taken_at_once(place, monkeypatch):
    now = [0.0]
    following = Following(place, clock=lambda: now[0])
    directory = place.register(seed=2)
    weights = (directory / "weights.safetensors").read_bytes()
    (directory / "weights.safetensors").write_bytes(weights[:-1])
    for expected in (1, 1):
        following.swap.look()
        assert following.swaps("refused") == expected
    now[0] += 61
    following.swap.look()
    assert following.swaps("refused") == 2
    now[0] += 61
    (directory / "weights.safetensors").write_bytes(weights)
    following.swap.look()
    assert following.version() == "2" and following.swaps("swapped") == 1


def test_a_model_that_fails_on_a_request_is_refused(place):
    champion = load_champion(place.tracking_uri)
    try_out(champion)
    for parameter in champion.model.decoder.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(ModelRefused, match="finite"):
        try_out(champion)

    def raises(*args: object) -> None:
        raise RuntimeError("a shape")

    champion.model.greedy = raises  # type: ignore[method-assign]
    with pytest.raises(ModelRefused, match="fails on a request: RuntimeError: a shape"):
        try_out(champion)


def test_the_registry_away_or_emptied_changes_nothing(place):
    following = Following(place)
    following.swap.look()
    database = place.folder / "mlflow" / "mlflow.db"
    shutil.move(database, database.with_suffix(".away"))
    with pytest.raises(TryAgain):
        following.swap.look()
    assert not database.exists(), "looking must not make an empty registry"
    assert following.version() == "1"
    shutil.move(database.with_suffix(".away"), database)
    following.swap.look()
    registry.connect(place.tracking_uri).delete_registered_model(registry.RANKER)
    with pytest.raises(TryAgain, match="knows no goalrank-ranker"):
        following.swap.look()
    assert following.version() == "1" and not following.ranking.models.withdrawn


def test_a_withdrawn_champion_answers_no_more(place):
    """Rolled back to nobody: the retriever's order, marked, until there is a champion again."""
    following = Following(place)
    registry.point(registry.connect(place.tracking_uri), registry.RANKER, registry.CHAMPION, None)
    following.swap.look()
    ranked = following.ranking.rank(parse_rank(body(1)))
    assert (ranked.fallback, ranked.policy, ranked.propensities) == (NO_CHAMPION, RETRIEVER_POLICY, None)
    assert ranked.items == by_score(body(1))
    place.point("1")
    following.swap.look()
    assert following.ranking.rank(parse_rank(body(1))).fallback is None


def test_the_holdback_is_a_share_of_users_that_stays_and_changes_with_the_version():
    def nobody(version: str) -> Champion:
        return Champion(torch.nn.Identity(), ModelVersion(name="m", version=version, weights_sha256="0" * 64))

    models = Models(nobody("2"), nobody("1"), holdback=0.05)
    users = range(1, 20_001)
    held = {user for user in users if models.for_user(user).version.version == "1"}
    assert len(held) / len(users) == pytest.approx(0.05, abs=0.005)
    assert held == {user for user in users if models.for_user(user).version.version == "1"}
    later = Models(nobody("3"), nobody("2"), holdback=0.05)
    held_later = {user for user in users if later.for_user(user).version.version == "2"}
    assert len(held & held_later) < len(held) / 4, "not always the same users get the older version"
    for without in (Models(nobody("2"), None, 0.05), Models(nobody("2"), nobody("1"), 0.0)):
        assert all(without.for_user(user).version.version == "2" for user in range(1, 500))


def test_a_graceful_end_answers_what_is_under_way_and_writes_the_log(place, tmp_path):
    place.register(seed=2, alias=registry.PREVIOUS)
    process = launch(place, tmp_path / "served", "--exploration", "0", "--holdback", "0.5", told=None)
    address = address_of(process)
    answered: list[str] = []
    faults: list[str] = []
    ended: list[str] = []
    terminated = threading.Event()

    def call() -> None:
        caller = Caller(address)
        while True:
            try:
                status, answers = caller.post("/rank", [body(number) for number in range(20)])
            except (OSError, http.client.HTTPException) as error:
                (ended if terminated.is_set() else faults).append(repr(error))
                return
            if status != 200:
                faults.append(f"{status}: {answers}")
                return
            answered.extend(answer["request_id"] for answer in answers)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(1.0)
    terminated.set()
    process.terminate()
    for caller in callers:
        caller.join(60)
    process.communicate(timeout=60)
    assert not faults, faults
    assert len(ended) == len(callers) and answered
    logged = read_logs(tmp_path / "served", "requests")
    assert set(answered) <= set(logged["request_id"].to_pylist())
    assert set(logged["policy"].to_pylist()) == {f"{registry.RANKER}:1", f"{registry.RANKER}:2"}


def answered_by(models: Models) -> list[str]:
    return [models.for_user(user).version.version for user in range(1, 41)]


def test_a_canary_splits_users_as_the_champion_it_becomes(place):
    """Between a promotion and the end of its canary trials and followers answer side by side: one split, not two."""
    place.register(seed=2, alias=None)
    expected = ["1" if held_back(user, "2", "1", 0.5) else "2" for user in range(1, 41)]
    assert set(expected) == {"1", "2"}
    assert answered_by(on_trial(place.tracking_uri, "2", 0.5)) == expected
    place.point("2", previous="1")
    assert answered_by(on_trial(place.tracking_uri, "2", 0.5)) == expected, "started again after the aliases moved"
    following = Following(place, holdback=0.5)
    following.swap.look()
    assert answered_by(following.ranking.models) == expected
    assert set(answered_by(on_trial(place.tracking_uri, "2", 0.0))) == {"2"}


def test_a_canary_serves_the_version_it_was_given_and_follows_nobody(place, tmp_path):
    place.register(seed=2, alias=None)
    flags = ("--version", "2", "--poll-seconds", "0.1", "--holdback", "0.5", "--exploration", "0")
    expected = ["1" if held_back(user, "2", "1", 0.5) else "2" for user in range(1, 21)]
    with serving(place, tmp_path / "served", *flags) as address:
        caller = Caller(address)
        for look, champion in enumerate(("1", "2", "1")):
            place.point(champion, previous="1" if champion == "2" else None)
            time.sleep(0.3)
            bodies = [body(0, user_id=user, request_id=f"r{look}-{user}") for user in range(1, 21)]
            _, answers = caller.post("/rank", bodies)
            assert [answer["model_version"] for answer in answers] == expected


def test_a_first_version_on_trial_holds_nobody_back(place):
    place.point("1", previous=None)
    assert on_trial(place.tracking_uri, "1", 0.5).previous is None


@pytest.mark.parametrize(("number", "error"), [("9", ModelRefused), ("two", UsageError), ("../1", UsageError)])
def test_a_version_that_is_none_is_not_served(place, number, error):
    with pytest.raises(error):
        load_number(place.tracking_uri, number)
