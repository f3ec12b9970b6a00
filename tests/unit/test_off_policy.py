"""Effective sample sizes, clustered intervals, the status, and the comparison of rankers on a training set."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from components.evaluate_ranker.off_policy import compare
from goalrank.dataset import TrainingSet
from goalrank.errors import DataRefused, UsageError
from goalrank.off_policy import MINIMUM_ESS, Estimate, cluster_intervals, conclude, effective_sample_size
from goalrank.off_policy.comparison import OTHERS, compare_policies
from goalrank.off_policy.intervals import METHODS
from goalrank.off_policy.logged import read_logged
from goalrank.off_policy.rankers import Target, greedy_targets, prefix_rewards
from goalrank.off_policy.weights import difference_sample_size, overall_sample_size
from goalrank.schema import LIST_LENGTH, SELF_SELECTED, RewardWeights
from tests.components.untrained_models import random_ranker, random_reward
from tests.synthetic import make_training_set

# --------------------------------------------------------------------------------------------------- effective samples


def test_effective_sample_size_by_hand():
    assert effective_sample_size(np.ones(7)) == 7
    assert effective_sample_size(np.array([1.0, 1.0, 0.0, 0.0])) == 2
    assert effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_sample_size(np.zeros(5)) == 0
    assert effective_sample_size(np.array([1e200, 1e200, 1.0])) == pytest.approx(2)
    np.testing.assert_allclose(effective_sample_size(np.array([[1.0, 0.0], [1.0, 5.0]])), [2, 1])


def test_positions_count_as_what_they_earn():
    assert overall_sample_size(np.array([100.0, 100.0]), np.array([0.9, 0.1])) == pytest.approx(100)
    assert overall_sample_size(np.array([100.0, 10.0]), np.array([0.9, 0.1])) == pytest.approx(1 / 0.019)
    assert overall_sample_size(np.array([100.0, 0.0]), np.array([0.9, 0.1])) == 0
    assert overall_sample_size(np.array([100.0, 0.0]), np.array([1.0, 0.0])) == pytest.approx(100)


def test_a_difference_rests_on_what_the_two_weigh_differently():
    """A thousand requests on which both agree, four that tell of the one, and a single one that tells of the other."""
    agreed, ours, theirs = np.zeros((1000, 1)), np.full((4, 1), 2.0), np.full((1, 1), -50.0)
    assert difference_sample_size(np.concatenate([agreed, ours, theirs]), np.ones(1)) == 1
    assert difference_sample_size(np.concatenate([agreed, ours]), np.ones(1)) == 0
    assert difference_sample_size(agreed, np.ones(1)) == 1000


# ----------------------------------------------------------------------------------------------------------- intervals


def test_the_normal_interval_is_the_textbooks():
    draw = np.random.default_rng(0)
    values_R = draw.normal(size=50)
    low_E, high_E = cluster_intervals(values_R[:, None], None)
    expected = stats.t.interval(0.95, 49, loc=values_R.mean(), scale=values_R.std(ddof=1) / math.sqrt(50))
    np.testing.assert_allclose([low_E[0], high_E[0]], expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_request_that_stands_twice_is_no_new_evidence(method):
    values_R = np.random.default_rng(1).normal(size=80)
    once = cluster_intervals(values_R[:, None], np.arange(80), seed=3, method=method)
    twice = cluster_intervals(np.repeat(values_R, 2)[:, None], np.repeat(np.arange(80), 2), seed=3, method=method)
    np.testing.assert_allclose(np.ravel(once), np.ravel(twice))
    blind = cluster_intervals(np.repeat(values_R, 2)[:, None], None, seed=3, method=method)
    assert blind[1] - blind[0] < 0.8 * (once[1] - once[0])


@pytest.mark.parametrize("method", METHODS)
def test_intervals_cover_at_their_level_when_users_differ(method):
    draw, covered = np.random.default_rng(2), 0
    for number in range(200):
        user_R = np.repeat(np.arange(100), draw.integers(1, 5, 100))
        values_R = draw.normal(size=100)[user_R] + draw.exponential(size=len(user_R)) - 1
        low_E, high_E = cluster_intervals(values_R[:, None], user_R, seed=number, method=method, resamples=200)
        covered += int(low_E[0] <= 0 <= high_E[0])
    assert stats.binomtest(covered, 200, 0.95).pvalue > 0.01


def test_one_user_knows_nothing():
    low_E, high_E = cluster_intervals(np.ones((5, 2)), np.zeros(5))
    assert (low_E == -np.inf).all()
    assert (high_E == np.inf).all()


@pytest.mark.parametrize(
    ("influence", "method", "told"),
    [
        (np.ones(4), "normal", r"influences of shape \(4,\) found"),
        (np.array([[np.nan]]), "normal", "expected finite numbers"),
        (np.ones((4, 1)), "jackknife", "method 'jackknife' found, expected one of normal, percentile, studentised"),
    ],
)
def test_bad_influences_are_refused(influence, method, told):
    with pytest.raises(UsageError, match=told):
        cluster_intervals(influence, None, method=method)


# -------------------------------------------------------------------------------------------------------------- status


@pytest.mark.parametrize(
    ("low", "high", "worth", "status"),
    [
        (-0.1, 0.3, MINIMUM_ESS, "passed"),
        (0.1, 0.3, MINIMUM_ESS, "passed"),
        (-0.3, -0.01, MINIMUM_ESS, "failed"),
        (-0.3, 0.0, MINIMUM_ESS, "passed"),
        (-0.3, -0.01, MINIMUM_ESS * 0.99, "inconclusive"),
        (0.1, 0.3, MINIMUM_ESS * 0.99, "inconclusive"),
        (-math.inf, math.inf, 1e6, "inconclusive"),
        (math.nan, math.nan, 1e6, "inconclusive"),
    ],
)
def test_the_status_follows_interval_and_sample_size(low, high, worth, status):
    result = conclude({"difference": Estimate("dr", 0.0, low, high, worth, 3000)}, against="the champion")
    assert result.status == status
    if status == "inconclusive":
        assert f"at least {MINIMUM_ESS:g} needed" in result.reason


# ------------------------------------------------------------------------------------------------------------ policies


def bandit(requests: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Item 0 earns most, item 3 least; lists of 2 shown uniformly. Slates, propensities, rewards, users."""
    draw = np.random.default_rng(5)
    slate_RL = draw.permuted(np.tile(np.arange(4), (requests, 1)), axis=1)[:, :2]
    reward_RL = (draw.random((requests, 2)) < np.array([0.8, 0.5, 0.4, 0.1])[slate_RL]).astype(float)
    return slate_RL, np.tile([1 / 4, 1 / 3], (requests, 1)), reward_RL, draw.integers(0, 400, requests)


def target(slate_RL: np.ndarray, shown: list[int]) -> Target:
    return Target((slate_RL == shown).astype(float), np.full(len(slate_RL), 0.9))


@pytest.mark.parametrize(
    ("challenger", "champion", "status"),
    [([0, 1], [3, 2], "passed"), ([3, 2], [0, 1], "failed"), ([0, 1], None, "passed"), ([3, 2], None, "failed")],
)
def test_a_loss_is_shown_and_a_gain_passes(challenger, champion, status):
    slate_RL, propensity_RL, reward_RL, users_R = bandit()
    model_RL = np.full(reward_RL.shape, 0.45)
    result = compare_policies(
        reward_RL,
        propensity_RL,
        users_R,
        model_RL,
        target(slate_RL, challenger),
        target(slate_RL, champion) if champion else None,
    )
    assert result.status == status, result.reason
    assert ("champion" in result.estimates) == (champion is not None)
    assert {"challenger", "logging_policy", "difference", *(f"difference.{name}" for name in OTHERS)} <= set(
        result.estimates
    )
    truth = np.array([0.8, 0.5, 0.4, 0.1])
    expected = truth[challenger].sum() - (truth[champion].sum() if champion else 2 * truth.mean())
    found = result.estimates["difference"]
    assert found.low <= expected <= found.high


def test_a_policy_that_the_log_never_shows_is_inconclusive():
    slate_RL, propensity_RL, reward_RL, users_R = bandit()
    never = Target(np.zeros(slate_RL.shape), np.full(len(slate_RL), 5.0))
    result = compare_policies(
        reward_RL, propensity_RL, users_R, np.zeros(reward_RL.shape), never, target(slate_RL, [0, 1])
    )
    assert (result.status, result.estimates["difference"].effective_sample_size) == ("inconclusive", 0)


# ------------------------------------------------------------------------------------------------- training set, models


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = tmp_path_factory.mktemp("off_policy")
    make_training_set(folder, requests=500, candidates=10, seed=1)
    loaded = TrainingSet.load(folder)
    loaded.card["folder"] = str(folder)
    return loaded


def changed(data: TrainingSet, **columns: list) -> TrainingSet:
    """The same training set with other columns of its examples."""
    folder, examples = Path(data.card["folder"]), data.examples
    for name, values in columns.items():
        field = examples.schema.field(name)
        examples = examples.set_column(examples.column_names.index(name), field, pa.array(values, field.type))
    return TrainingSet(
        examples, pq.read_table(folder / "users.parquet"), pq.read_table(folder / "items.parquet"), data.card
    )


def with_propensity(data: TrainingSet, value: float | None, share: float = 1.0) -> TrainingSet:
    """The first item of some evaluation requests has this propensity; None: these lists have none at all."""
    lists = data.examples.column("propensities").to_pylist()
    indices = data.evaluation_indices()
    for row in indices[: round(share * len(indices))]:
        lists[row] = None if value is None else [value, *lists[row][1:]]
    return changed(data, propensities=lists)


def compared(data: TrainingSet, champion: bool = True):
    challenger, other = random_ranker(0), random_ranker(1) if champion else None
    return compare(data, data.evaluation_indices(), challenger, other, random_reward(2), 0)


def test_the_comparison_reads_what_was_logged(data):
    indices_R = data.evaluation_indices()
    logged = read_logged(data, indices_R, RewardWeights())
    np.testing.assert_array_equal(logged.indices_R, indices_R)
    row = data.examples.take(pa.array(indices_R[:1])).to_pylist()[0]
    assert logged.propensity_RL[0].tolist() == row["propensities"]
    weights = RewardWeights()
    expected = [
        weights.click * click + weights.like * like + weights.watch_minute * seconds / 60
        for click, like, seconds in zip(row["clicks"], row["likes"], row["watch_seconds"], strict=True)
    ]
    np.testing.assert_allclose(logged.reward_RL[0], expected, rtol=1e-6)


def test_a_ranker_is_compared_by_its_own_greedy_list(data):
    logged = read_logged(data, data.evaluation_indices(), RewardWeights())
    ranker, judge = random_ranker(0), random_reward(2)
    targets, model_RL = greedy_targets(data, logged, {"challenger": ranker}, judge)
    batch = data.batch(logged.indices_R)
    own_RL = ranker.greedy(ranker.encode(batch), LIST_LENGTH)
    np.testing.assert_array_equal(targets["challenger"].probability_RL, own_RL.numpy() == logged.slate_RL)
    served = dataclasses.replace(logged, slate_RL=own_RL.numpy())
    again, own_model_RL = greedy_targets(data, served, {"challenger": ranker}, judge)
    assert again["challenger"].probability_RL.all()
    np.testing.assert_allclose(own_model_RL.sum(axis=1), targets["challenger"].model_value_R, rtol=1e-5)


def test_the_control_variate_does_not_look_below(data):
    judge = random_reward(2)
    batch = data.batch(data.evaluation_indices()[:8])
    lists_BL = random_ranker(0).greedy(random_ranker(0).encode(batch), LIST_LENGTH)
    swapped_BL = lists_BL.clone()
    swapped_BL[:, [3, 5]] = lists_BL[:, [5, 3]]
    encoded = judge.encode(batch)
    as_it_is, other = prefix_rewards(judge, encoded, lists_BL), prefix_rewards(judge, encoded, swapped_BL)
    assert (as_it_is[:, :3] == other[:, :3]).all()
    assert not np.allclose(as_it_is[:, 3:].detach(), other[:, 3:].detach())


def test_the_comparison_gives_the_same_answer_twice(data):
    assert compared(data) == compared(data)
    json.dumps(dataclasses.asdict(compared(data)), allow_nan=False)


@pytest.mark.parametrize("champion", [True, False])
@pytest.mark.parametrize("value", [0.0, -0.5, 1.5, math.nan, math.inf])
def test_bad_propensities_are_refused(data, value, champion):
    with pytest.raises(DataRefused, match="logged propensities: 1 .*expected probabilities in"):
        compared(with_propensity(data, value, share=0.005), champion)


def test_no_propensities_are_not_applicable(data):
    result = compared(with_propensity(data, None))
    assert (result.status, result.estimates) == ("not_applicable", {})
    assert "logged lists has propensities" in result.reason


def test_lists_that_no_ranker_chose_are_not_applicable(data):
    result = compared(changed(data, policy=[SELF_SELECTED] * len(data)))
    assert result.status == "not_applicable"
    assert "chosen by a ranker" in result.reason


def test_requests_without_propensities_are_left_out_and_counted(data):
    result = compared(with_propensity(data, None, share=0.5))
    asked = len(data.evaluation_indices())
    assert result.estimates["difference"].requests == asked - round(asked * 0.5)
    assert f"{round(asked * 0.5)} requests left out" in result.reason


def test_next_to_no_overlap_is_inconclusive(data):
    lists = data.examples.column("propensities").to_pylist()
    for row, number in zip(data.evaluation_indices(), range(10**6), strict=False):
        lists[row] = [1e-9 if number == 0 else 1.0] * len(lists[row])
    assert compared(changed(data, propensities=lists)).status == "inconclusive"


def test_a_served_log_keeps_propensities_that_a_32_bit_float_would_lose(data):
    """The service writes the smallest float where a probability underflows; as float32 it would be zero: refused."""
    result = compared(with_propensity(data, float(np.finfo(np.float64).tiny), share=0.01))
    assert result.status in ("passed", "inconclusive", "failed")
    assert all(math.isfinite(found.value) for found in result.estimates.values())


def test_short_lists_are_left_out(data):
    """Impressions that came too late: of such a list nobody knows the last places."""
    indices_R = data.evaluation_indices()
    short = set(indices_R[:3].tolist())
    names = ("slate", "propensities", "clicks", "likes", "watch_seconds")
    columns = {name: data.examples.column(name).to_pylist() for name in names}
    for values in columns.values():
        for row in short:
            values[row] = values[row][:4]
    left = read_logged(changed(data, **columns), indices_R, RewardWeights())
    assert left.slate_RL.shape == (len(indices_R) - 3, LIST_LENGTH)
    assert not short & set(left.indices_R.tolist())
