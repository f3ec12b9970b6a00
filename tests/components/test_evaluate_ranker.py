"""Evaluation on a real registry: both sides re-scored on the same requests, a verdict for every case."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import registry
from components.evaluate_ranker import outputs, scoring
from components.evaluate_ranker.main import add_true_rewards, run
from components.promote_model import journal
from components.register_model.main import run as register
from goalrank import checkpoint
from goalrank.errors import CheckpointDamaged, ModelRefused
from goalrank.schema import LIST_LENGTH
from goalrank.simulator.config import WorldConfig
from goalrank.simulator.logs import write_day
from goalrank.simulator.truth import true_reward
from goalrank.simulator.world import FIRST_ITEM_ID
from goalrank.verdict import FLOOR, SUPERIORITY, load_verdict, require_about
from tests.components.untrained_models import NightInputs, random_ranker

NAMES = ("below_floor", "good", "better")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    inputs = NightInputs(tmp_path_factory.mktemp("night"), requests=600)
    for name, ranker in inputs.graded_rankers().items():
        inputs.save(name, ranker, "ranker")
    return inputs


@pytest.fixture(scope="module")
def tracking_uri(inputs, tmp_path_factory):
    """A registry that holds all three rankers as versions."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    for name in NAMES:
        register(**inputs.registration_arguments(name, uri))
    return uri


@pytest.fixture
def client(tracking_uri):
    client = registry.connect(tracking_uri)
    for name in (registry.RANKER, registry.REWARD):
        for alias in (registry.CHAMPION, registry.PREVIOUS):
            registry.point(client, name, alias, None)
    return client


class Evaluation:
    """One run of the step on the ranker of that name, and what it left behind."""

    def __init__(self, inputs, tracking_uri, folder, name, **changes) -> None:
        self.folder, self.name = folder, name
        self.registration = registry.read_registration(inputs.folder / f"registration-{name}")
        self.arguments = {
            "registration": str(inputs.folder / f"registration-{name}"),
            "training_set": str(inputs.folder / "training_set"),
            "judge_model": str(inputs.folder / "judge_model"),
            "tracking_uri": tracking_uri,
            "verdict": str(folder / "verdict"),
            "lists": str(folder / "lists"),
            "allow_bootstrap": False,
            "world_uri": "",
            "seed": 3,
            "run_uri": str(folder / "run"),
            "date": inputs.date,
        } | changes
        run(**self.arguments)

    @property
    def verdict(self):
        return load_verdict(self.arguments["verdict"], "evaluation")

    @property
    def figures(self):
        return json.loads((self.folder / "run/outcomes/evaluate_ranker.json").read_text())["figures"]


@pytest.fixture
def evaluate(inputs, tracking_uri, client, tmp_path):
    return lambda name, **changes: Evaluation(inputs, tracking_uri, tmp_path, name, **changes)


@pytest.fixture
def crown(inputs, client):
    """Make the ranker of that name champion, and return its version."""

    def point(name):
        registration = registry.read_registration(inputs.folder / f"registration-{name}")
        registry.point(client, registry.RANKER, registry.CHAMPION, registration["ranker"]["version"])
        return registration["ranker"]["version"]

    return point


# ------------------------------------------------------------------------------------------------------------ verdicts


def test_first_night_promotes_above_the_floor_only_with_leave(evaluate, tmp_path):
    night = evaluate("good", allow_bootstrap=True)
    assert (night.verdict.decision, night.verdict.champion) == ("promote", None)
    assert night.verdict.difference.low > FLOOR
    with pytest.raises(ModelRefused, match="allow_bootstrap"):
        evaluate("good")
    assert load_verdict(tmp_path / "verdict", "evaluation").decision == "refuse"


def test_first_night_below_the_floor_is_refused_with_the_verdict_written(evaluate, tmp_path):
    with pytest.raises(ModelRefused, match="floor"):
        evaluate("below_floor", allow_bootstrap=True)
    assert load_verdict(tmp_path / "verdict", "evaluation").decision == "refuse"
    outcome = json.loads((tmp_path / "run/outcomes/evaluate_ranker.json").read_text())
    assert (outcome["kind"], outcome["exit_code"]) == ("model_refused", 4)
    assert outcome["figures"]["metrics"]["challenger"]["judged_reward"] is not None


def test_a_better_challenger_is_promoted_and_the_verdict_names_both(evaluate, crown, inputs):
    champion = crown("good")
    night = evaluate("better")
    verdict = night.verdict
    assert verdict.decision == "promote"
    assert verdict.difference.low > SUPERIORITY
    assert verdict.champion.version == champion
    model = registry.registered_identity(night.registration, "ranker")
    require_about(verdict, model, inputs.snapshot_id, inputs.date)


def test_a_worse_challenger_leaves_the_champion(evaluate, crown):
    crown("better")
    assert evaluate("good").verdict.decision == "keep"


def test_the_same_date_again_finds_its_own_version_and_keeps_it(evaluate, crown):
    version = crown("good")
    verdict = evaluate("good").verdict
    assert verdict.decision == "keep"
    assert f"version {version} is the champion already" in verdict.reason


def test_below_the_floor_is_refused_beside_a_champion_too(evaluate, crown):
    crown("good")
    with pytest.raises(ModelRefused, match="floor"):
        evaluate("below_floor")


# --------------------------------------------------------------------------------------------------- what was measured


def test_both_sides_are_scored_on_the_evaluation_requests_of_tonight(evaluate, crown, inputs):
    crown("good")
    night = evaluate("better")
    lists = pq.read_table(night.arguments["lists"]).to_pylist()
    expected = [inputs.data.request_ids[index] for index in inputs.data.evaluation_indices()]
    assert [row["request_id"] for row in lists] == expected
    candidates = dict(zip(inputs.data.request_ids, inputs.data.examples["candidates"].to_pylist(), strict=True))
    for row in lists:
        for policy in ("challenger", "champion", "retriever", "random"):
            assert len(set(row[policy])) == LIST_LENGTH
            assert set(row[policy]) <= set(candidates[row["request_id"]])
    for policy in ("challenger", "champion", "retriever", "random"):
        mean = np.mean([row[f"{policy}_reward"] for row in lists])
        assert night.verdict.metrics[policy]["judged_reward"] == pytest.approx(mean)
    difference = np.mean([row["challenger_reward"] - row["champion_reward"] for row in lists])
    assert night.verdict.difference.mean == pytest.approx(difference)


def test_retriever_list_and_hits_are_what_plain_python_says(evaluate, inputs):
    night = evaluate("good", allow_bootstrap=True)
    lists = {row["request_id"]: row["retriever"] for row in pq.read_table(night.arguments["lists"]).to_pylist()}
    hits = []
    for row in inputs.data.examples.take(inputs.data.evaluation_indices()).to_pylist():
        by_score = sorted(zip(row["candidate_scores"], row["candidates"], strict=True), reverse=True)
        assert lists[row["request_id"]] == [item for _, item in by_score[:LIST_LENGTH]]
        clicked = {item for item, click in zip(row["slate"], row["clicks"], strict=True) if click}
        if clicked:
            hits.append(len(clicked & set(lists[row["request_id"]])) / len(clicked))
    assert night.verdict.metrics["retriever"][f"hit_at_{LIST_LENGTH}"] == pytest.approx(np.mean(hits))


def test_the_same_seed_gives_the_same_verdict_and_lists(evaluate, crown, tmp_path):
    crown("good")
    evaluate("better")
    first = [(tmp_path / name).read_bytes() for name in ("verdict", "lists")]
    evaluate("better")
    assert [(tmp_path / name).read_bytes() for name in ("verdict", "lists")] == first


def test_figures_and_tracking_run_say_what_the_report_shows(evaluate, crown, client):
    crown("good")
    night = evaluate("better")
    assert night.figures["difference"]["against"] == "champion"
    assert night.figures["latency_p50_ms"] > 0
    assert {"request_id", "challenger", "other", "against"} == set(night.figures["examples"][0])
    tracked = client.get_run(night.registration["run_id"])
    logged = tracked.data.metrics["evaluation.challenger.judged_reward"]
    assert logged == pytest.approx(night.verdict.metrics["challenger"]["judged_reward"])
    assert tracked.data.tags["decision"] == "promote"


def test_a_day_on_which_nobody_clicked_has_no_hits_but_a_verdict():
    answers = scoring.Answers(np.zeros((2, 1), np.int64), np.zeros((2, 3)), np.array([0.5, 1.5]))
    figures = scoring.measure(answers, np.zeros((2, 3), bool), np.ones((2, 3), bool))
    assert figures["judged_reward"] == 1.0
    assert {figures[name] for name in figures if name != "judged_reward"} == {None}


def test_scores_that_are_not_finite_show():
    answers = scoring.Answers(np.zeros((1, 1), np.int64), np.array([[np.nan, 0.0]]), np.array([0.5]))
    figures = scoring.measure(answers, np.array([[True, False]]), np.ones((1, 2), bool))
    assert np.isnan(figures["auc"])


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_champion_that_has_seen_the_evaluation_day_is_refused(evaluate, crown, inputs, monkeypatch):
    """An older date run again after a newer night became champion."""
    version = crown("good")
    real = checkpoint.read_model_card

    def card_from_the_future(folder):
        card = real(folder)
        return {**card, "created_by": {**card["created_by"], "trained_until": inputs.date}}

    monkeypatch.setattr(checkpoint, "read_model_card", card_from_the_future)
    with pytest.raises(ModelRefused, match=f"version {version} was trained on days up to {inputs.date}"):
        evaluate("better")


def test_a_champion_whose_registered_weights_are_others_is_refused(evaluate, crown, client):
    version = crown("good")
    recorded = client.get_model_version(registry.RANKER, version).tags["weights_sha256"]
    client.set_model_version_tag(registry.RANKER, version, "weights_sha256", "0" * 64)
    try:
        with pytest.raises(CheckpointDamaged, match="the registry 0000"):
            evaluate("better")
    finally:
        client.set_model_version_tag(registry.RANKER, version, "weights_sha256", recorded)


def test_artifacts_of_another_night_are_refused(evaluate, inputs, tmp_path):
    with pytest.raises(ModelRefused, match="artifacts of one night"):
        evaluate("good", date="2026-02-01")
    changed = json.loads((inputs.folder / "registration-good").read_text()) | {"snapshot_id": "another"}
    (tmp_path / "registration").write_text(json.dumps(changed))
    with pytest.raises(ModelRefused, match="artifacts of one night"):
        evaluate("good", registration=str(tmp_path / "registration"))


def test_a_promotion_cut_in_half_is_finished_before_the_champion_is_read(evaluate, inputs, client, tmp_path):
    registration = registry.read_registration(inputs.folder / "registration-good")
    moves = [
        {"name": registration[model]["name"], "from": None, "to": registration[model]["version"], "previous": None}
        for model in ("ranker", "reward")
    ]
    journal.begin(str(tmp_path), kind="promotion", date=inputs.date, moves=moves)
    night = evaluate("better", journal_uri=str(tmp_path))
    assert night.verdict.champion.version == registration["ranker"]["version"]
    assert "interrupted" in night.figures["repaired"]


def test_the_true_reward_of_a_simulated_world_is_reported(tmp_path):
    """Requests of the synthetic set, their ids moved into a real simulated world: all the truth needs."""
    inputs = NightInputs(tmp_path / "night", requests=150, users=40, items=80)
    config = WorldConfig(users=60, items=120, requests_per_day=20, candidates=12)
    write_day(config, 0, str(tmp_path / "logs"))
    data, indices_R = inputs.data, inputs.data.evaluation_indices()
    answers = scoring.answer_all(data, indices_R, {"challenger": random_ranker(0)}, inputs.judge, 0, lambda *_: None)
    data.items = replace(data.items, item_id_I=data.items.item_id_I + FIRST_ITEM_ID - 1)
    measured = {name: {} for name in answers}
    add_true_rewards(measured, answers, data, indices_R, "")
    assert measured["challenger"] == {}
    add_true_rewards(measured, answers, data, indices_R, str(tmp_path / "logs"))
    ids_RL = outputs.item_ids(data, indices_R, answers["retriever"].lists_RL)
    expected_R = true_reward(config, data.examples.take(pa.array(indices_R)), ids_RL)
    assert measured["retriever"]["true_reward"] == pytest.approx(expected_R.mean())
    assert measured["retriever"] != measured["random"]
