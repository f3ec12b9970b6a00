"""Evaluation on a real registry: both sides re-scored on the same requests, a verdict for every case."""

import json
import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components import registry
from components.evaluate_ranker import anchor, differences, models, off_policy, outputs, scoring
from components.evaluate_ranker.main import true_rewards_of
from components.promote_model import journal
from goalrank.errors import CheckpointDamaged, ModelRefused, UsageError
from goalrank.off_policy import OffPolicyResult
from goalrank.schema import LIST_LENGTH
from goalrank.simulator.config import WorldConfig
from goalrank.simulator.logs import write_day
from goalrank.simulator.truth import true_reward
from goalrank.simulator.world import FIRST_ITEM_ID
from goalrank.slices import slices_of
from goalrank.verdict import (
    ANCHOR_DAYS,
    CONFIDENCE,
    FLOOR,
    SUPERIORITY,
    decision,
    load_verdict,
    require_about,
    thresholds,
)
from goalrank.verdict.statistics import paired_bootstrap
from tests.components.graded_night import shared_night
from tests.components.untrained_models import NightInputs, random_ranker


@pytest.fixture
def graded():
    """The shared night, no alias set."""
    return shared_night()


@pytest.fixture
def inputs(graded):
    return graded.inputs


@pytest.fixture
def client(graded):
    return graded.client


@pytest.fixture
def crown(graded):
    return graded.crown


@pytest.fixture
def evaluate(graded, tmp_path):
    return lambda name, **changes: graded.evaluate(tmp_path, name, **changes)


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


# ----------------------------------------------------------------------------------------------- slices, anchor, gates


def test_slices_are_judged_and_small_ones_say_so(evaluate, crown, inputs):
    crown("good")
    verdict = evaluate("better").verdict
    slices = {part.name: part for part in verdict.slices}
    assert {"new_users", "heavy_users", "new_items", "short_lists"} < set(slices)
    assert any(name.startswith("topic_") for name in slices)
    expected = slices_of(inputs.data, inputs.data.evaluation_indices())
    assert {name: part.requests for name, part in slices.items()} == {n: rows.sum() for n, rows in expected.items()}
    assert (slices["short_lists"].requests, slices["short_lists"].status) == (0, "not_applicable")


def days_before(inputs, days):
    return (date.fromisoformat(inputs.date) - timedelta(days=days)).isoformat()


def test_better_than_the_champion_but_worse_than_last_week_s_is_kept(evaluate, graded, inputs, tmp_path, monkeypatch):
    # An untrained judge finds all lists alike: what is a clear difference between these rankers is 0.1% of the reward.
    monkeypatch.setattr(thresholds, "ANCHOR_MARGIN", 0.0)
    reigns = {"better": days_before(inputs, ANCHOR_DAYS + 2), "below_floor": days_before(inputs, 2)}
    graded.reign(str(tmp_path), reigns)
    night = evaluate("good", journal_uri=str(tmp_path))
    assert night.verdict.difference.low > SUPERIORITY
    assert night.verdict.anchor.version == graded.version("better")
    assert night.verdict.anchor_difference.high < 0
    assert night.verdict.decision == "keep"
    assert "anchor" in night.verdict.reason
    mean = np.mean([row["challenger_reward"] - row["anchor_reward"] for row in night.lists])
    assert night.verdict.anchor_difference.mean == pytest.approx(mean)


def test_an_anchor_that_is_gone_or_of_other_features_does_not_lose_the_night(evaluate, graded, inputs, tmp_path):
    reigns = {"good": days_before(inputs, ANCHOR_DAYS + 2), "below_floor": days_before(inputs, 2)}
    graded.reign(str(tmp_path), reigns)
    version, files = graded.version("good"), graded.stored("good")
    files.rename(files.with_name("aside"))
    try:
        verdict = evaluate("better", journal_uri=str(tmp_path)).verdict
    finally:
        files.with_name("aside").rename(files)
    check = next(check for check in verdict.checks if check.name == "anchor")
    assert (verdict.decision, verdict.anchor, check.status) == ("promote", None, "not_applicable")
    tag = graded.client.get_model_version(registry.RANKER, version).tags[registry.FEATURE_SET]
    graded.client.set_model_version_tag(registry.RANKER, version, registry.FEATURE_SET, "another")
    try:
        verdict = evaluate("better", journal_uri=str(tmp_path)).verdict
    finally:
        graded.client.set_model_version_tag(registry.RANKER, version, registry.FEATURE_SET, tag)
    check = next(check for check in verdict.checks if check.name == "anchor")
    assert (verdict.decision, check.status) == ("promote", "not_applicable")
    assert "another" in check.detail


def intents(*moves):
    """A journal's events: (version, date) promoted, or (version, date, "rollback")."""
    events, before = [], None
    for number, (version, night, *kind) in enumerate(moves, start=1):
        move = {"name": registry.RANKER, "from": before, "to": version, "previous": before}
        kind = kind[0] if kind else "promotion"
        events.append({"event": "intent", "id": number, "kind": kind, "date": night, "moves": [move]})
        events.append({"event": "done", "id": number})
        before = version
    return events


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([], []),
        ([("1", "2026-01-01")], []),  # champion for longer than a week
        ([("1", "2026-01-30")], []),  # the only one there was
        ([("1", "2026-01-01"), ("2", "2026-01-20"), ("3", "2026-01-28"), ("4", "2026-01-30")], ["2", "1", "3"]),
        ([("1", "2026-01-28"), ("2", "2026-01-29"), ("3", "2026-01-30")], ["1", "2"]),  # young: the first there was
        ([("1", "2026-01-01"), ("2", "2026-01-24")], []),
        ([("1", "2026-01-01"), ("2", "2026-01-25")], ["1"]),
        # version 2 was rolled back from: it is no yardstick
        (
            [("1", "2026-01-01"), ("2", "2026-01-10"), ("1", "2026-01-20", "rollback"), ("3", "2026-01-30")],
            ["1"],
        ),
    ],
)
def test_which_version_is_the_anchor(moves, expected):
    champion = moves[-1][0] if moves else "9"
    assert anchor.in_order(intents(*moves), champion, "2026-01-31") == expected


def test_an_inconclusive_off_policy_estimate_blocks_where_it_is_required(evaluate, crown, monkeypatch):
    monkeypatch.setattr(off_policy, "compare", lambda *_: OffPolicyResult("inconclusive", "too few", {}))
    crown("good")
    vetoed = evaluate("better").verdict
    assert (vetoed.decision, vetoed.off_policy.status) == ("promote", "inconclusive")
    required = evaluate("better", off_policy="required").verdict
    assert required.decision == "keep"
    assert "off_policy (inconclusive)" in required.reason
    with pytest.raises(UsageError, match="off_policy 'no' found"):
        evaluate("better", off_policy="no")


@pytest.mark.parametrize(
    ("budget", "name"), [({"latency_budget_ms": 1e-6}, "latency"), ({"size_budget_mb": 1e-6}, "size")]
)
def test_a_model_over_its_budget_is_not_promoted(evaluate, crown, budget, name):
    crown("good")
    kept = evaluate("better", **budget).verdict
    assert kept.decision == "keep"
    assert f"not passed: {name}" in kept.reason


@pytest.mark.parametrize("who", ["challenger", "champion"])
@pytest.mark.parametrize("spoilt", [{"weight": float("nan")}, {"weight": float("inf")}, {"loss": float("nan")}])
def test_weights_and_losses_of_either_side_must_be_finite(evaluate, graded, tmp_path, who, spoilt, monkeypatch):
    graded.crown("good")
    name = {"challenger": "better", "champion": "good"}[who]
    with graded.spoiled(name, **spoilt):
        registered = registry.identity(graded.client.get_model_version(registry.RANKER, graded.version(name)))
        registration = json.loads((graded.inputs.folder / "registration-better").read_text())
        if who == "challenger":
            registration["ranker"] = registered.model_dump()
        (tmp_path / "registration").write_text(json.dumps(registration))
        with pytest.raises(ModelRefused, match=f"not finite: {who}"):
            evaluate("better", registration=str(tmp_path / "registration"))
    refused = load_verdict(tmp_path / "verdict", "evaluation")
    assert refused.decision == "refuse"
    assert next(check for check in refused.checks if check.name == "finite").status == "failed"


# --------------------------------------------------------------------------------------------------- what was measured


def test_both_sides_are_scored_on_the_evaluation_requests_of_tonight(evaluate, crown, inputs):
    crown("good")
    night = evaluate("better")
    lists = night.lists
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
    lists = {row["request_id"]: row["retriever"] for row in night.lists}
    hits = []
    for row in inputs.data.examples.take(inputs.data.evaluation_indices()).to_pylist():
        by_score = sorted(zip(row["candidate_scores"], row["candidates"], strict=True), reverse=True)
        assert lists[row["request_id"]] == [item for _, item in by_score[:LIST_LENGTH]]
        clicked = {item for item, click in zip(row["slate"], row["clicks"], strict=True) if click}
        if clicked:
            hits.append(len(clicked & set(lists[row["request_id"]])) / len(clicked))
    assert night.verdict.metrics["retriever"][f"hit_at_{LIST_LENGTH}"] == pytest.approx(np.mean(hits))


def test_the_same_seed_gives_the_same_verdict_and_lists(evaluate, crown, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "latency_ms", lambda *_: {"latency_p50_ms": 1.0, "latency_p95_ms": 2.0})
    monkeypatch.setattr(decision, "judged_now", lambda: "2026-01-02T03:04:05Z")
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
    example = night.figures["examples"][0]
    assert {"request_id", "challenger", "other", "against", "judged", "places", "clicked"} == set(example)
    answered = next(row for row in night.lists if row["request_id"] == example["request_id"])
    assert [item["item_id"] for item in example["challenger"]] == answered["challenger"]
    assert example["judged"]["other"] == answered["champion_reward"]
    known = outputs.read_items(night.arguments["training_set"])
    assert example["challenger"][0]["topics"] == known[example["challenger"][0]["item_id"]].topics
    tracked = client.get_run(night.registration["run_id"])
    for name, difference in night.figures["metric_differences"].items():
        metrics = night.verdict.metrics
        assert difference["mean"] == pytest.approx(metrics["challenger"][name] - metrics["champion"][name])
        assert difference["low"] < difference["high"]
    logged = tracked.data.metrics["evaluation.challenger.judged_reward"]
    assert logged == pytest.approx(night.verdict.metrics["challenger"]["judged_reward"])
    assert tracked.data.tags["decision"] == "promote"


def test_the_retrievers_order_is_compared_by_every_metric_as_the_floor_is(evaluate, crown, inputs):
    crown("good")
    night = evaluate("better")
    found, metrics = night.figures["retriever_differences"], night.verdict.metrics
    assert found.keys() == metrics["challenger"].keys()
    for name, difference in found.items():
        assert difference["mean"] == pytest.approx(metrics["challenger"][name] - metrics["retriever"][name])
        assert (difference["metric"], difference["confidence"]) == (name, CONFIDENCE)
        assert difference["low"] < difference["mean"] < difference["high"]
    floor = next(check for check in night.verdict.checks if check.name == "floor")
    assert found["judged_reward"]["low"] == pytest.approx(floor.value)
    judged = inputs.data.examples.take(inputs.data.evaluation_indices())
    clicked = sum(any(clicks) for clicks in judged.column("clicks").to_pylist())
    assert found["judged_reward"]["requests"] == night.verdict.requests
    assert {found[name]["requests"] for name in found if name != "judged_reward"} == {clicked}


def test_on_a_first_night_the_retriever_is_the_other(evaluate):
    night = evaluate("good", allow_bootstrap=True)
    found = dict(night.figures["retriever_differences"])
    assert found.pop("judged_reward")["mean"] == pytest.approx(night.verdict.difference.mean)
    assert night.figures["metric_differences"] == found


def test_a_metric_that_no_request_defines_has_no_difference():
    nothing = {"judged_reward": np.array([1.0, 2.0]), "auc": np.array([np.nan, np.inf])}
    assert list(differences.differences(nothing, nothing, np.array([7, 8]), seed=0)) == ["judged_reward"]
    assert differences.differences({"auc": np.zeros(0)}, {"auc": np.zeros(0)}, np.zeros(0, np.int64), seed=0) == {}


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
    real = models.read_model_card

    def card_from_the_future(folder):
        card = real(folder)
        seen = card["created_by"] | (
            {"trained_until": inputs.date} if Path(folder).name.endswith(f"-{version}") else {}
        )
        return card | {"created_by": seen}

    monkeypatch.setattr(models, "read_model_card", card_from_the_future)
    with pytest.raises(ModelRefused, match=f"version {version} was trained on days up to {inputs.date}"):
        evaluate("better")


@pytest.fixture
def altered(inputs, tmp_path):
    """A copy of a model directory of the night with other words in its card's created_by."""

    def copy(name, **created_by):
        folder = shutil.copytree(inputs.folder / name, tmp_path / "-".join([name, *created_by]))
        card = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(card | {"created_by": card["created_by"] | created_by}))
        return str(folder)

    return copy


def test_a_challenger_that_has_seen_the_evaluation_day_is_refused(evaluate, crown, inputs, monkeypatch):
    crown("good")
    real = models.require_unseen
    monkeypatch.setattr(models, "require_unseen", lambda folder, what, date: real(folder, what, "2026-01-01"))
    with pytest.raises(ModelRefused, match=r"challenger version \d+ was trained on days up to"):
        evaluate("better")


def test_a_judge_of_another_night_or_that_has_seen_the_day_is_refused(evaluate, crown, inputs, altered):
    crown("good")
    with pytest.raises(ModelRefused, match=f"judge was trained on snapshot another, expected {inputs.snapshot_id}"):
        evaluate("better", judge_model=altered("judge_model", snapshot_id="another"))
    with pytest.raises(ModelRefused, match=f"the judge was trained on days up to {inputs.date}"):
        evaluate("better", judge_model=altered("judge_model", trained_until=inputs.date))


def test_a_judge_that_guided_the_ranker_is_refused(evaluate, crown, inputs):
    crown("good")
    with pytest.raises(ModelRefused, match="the judge is the reward model that guided the ranker"):
        evaluate("better", judge_model=str(inputs.folder / "reward_model"))


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
    assert true_rewards_of(answers, data, indices_R, "") == {}
    true_rewards = true_rewards_of(answers, data, indices_R, str(tmp_path / "logs"))
    ids_RL = outputs.item_ids(data, indices_R, answers["retriever"].lists_RL)
    expected_R = true_reward(config, data.examples.take(pa.array(indices_R)), ids_RL)
    np.testing.assert_allclose(true_rewards["retriever"], expected_R)
    assert true_rewards["retriever"].mean() != true_rewards["random"].mean()
    users_R = data.examples.column("user_id").to_numpy()[indices_R]
    positives_RN, mask_RN = scoring.positives(data, indices_R)
    ours, theirs = (
        differences.values(answers[name], positives_RN, mask_RN, true_rewards[name])
        for name in ("challenger", "random")
    )
    found = differences.differences(ours, theirs, users_R, seed=0)
    assert found["true_reward"]["mean"] == pytest.approx((true_rewards["challenger"] - true_rewards["random"]).mean())
    alone = paired_bootstrap(true_rewards["challenger"] - true_rewards["random"], users_R)
    assert found["true_reward"]["low"] == pytest.approx(alone.low)
