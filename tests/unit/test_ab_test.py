"""A/B tests: the split, what is concluded and when, and a whole experiment in a small simulated world."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from goalrank.ab_simulation import Day, live, metrics_of
from goalrank.ab_test import (
    ALPHA,
    METRICS,
    POSITIVE_SECONDS,
    PRIMARY,
    SAMPLE_RATIO_ALPHA,
    AbTest,
    adjusted,
    arm_numbers,
)
from goalrank.dataset import RequestBatch
from goalrank.errors import DataRefused, ModelRefused, UsageError
from goalrank.policies import top_lists
from goalrank.schema import LIST_LENGTH, TOPIC_BUCKETS
from goalrank.sequential import MINIMUM_UNITS
from goalrank.simulator import Feedback, Requests, WorldConfig, day_requests, expected_reward, single_item_value
from goalrank.simulator.world import FIRST_USER_ID

WORLD = WorldConfig(seed=3, users=600, items=200, requests_per_day=900, candidates=20)


def values(count: int, reward: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of `count` lists: the reward as given, the others shares of it."""
    return {metric: reward[:count] / (1 + column) for column, metric in enumerate(METRICS)}


# ------------------------------------------------------------------------------------------------------------ the split


def test_a_user_stays_in_an_arm_and_another_salt_splits_anew() -> None:
    users = np.arange(1, 20_001)
    first, again = arm_numbers(users, [0.5, 0.3, 0.2], "one"), arm_numbers(users[::-1], [0.5, 0.3, 0.2], "one")
    np.testing.assert_array_equal(first, again[::-1])
    shares = np.bincount(first, minlength=3) / len(users)
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=3 * 0.5 / math.sqrt(len(users)))
    other = arm_numbers(users, [0.5, 0.3, 0.2], "two")
    table = np.histogram2d(first, other, bins=3)[0] / len(users)
    np.testing.assert_allclose(table, np.outer([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]), atol=0.012)


def test_one_users_lists_all_go_to_one_arm() -> None:
    test = AbTest(("a", "b"), "a", "salt")
    numbers = test.arm_numbers(np.array([7, 8, 7, 9, 7]))
    assert len({*numbers[[0, 2, 4]]}) == 1
    np.testing.assert_array_equal(test.arm_numbers(np.array([7, 9])), numbers[[0, 3]])


@pytest.mark.parametrize(
    ("arms", "control", "shares", "message"),
    [
        (("a",), "a", {}, "two or more"),
        (("a", "a"), "a", {}, "each named once"),
        (("a", "b"), "c", {}, "control 'c'"),
        (("a", "b"), "a", {"a": 0.9, "b": 0.2}, "sum to 1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(arms, control, shares, message) -> None:
    with pytest.raises(UsageError, match=message):
        AbTest(arms, control, "salt", shares)


# ------------------------------------------------------------------------------------------------------- conclusions


def test_the_family_spends_alpha_and_no_more() -> None:
    test = AbTest(("a", "b", "c"), "a", "salt")
    assert sum(test.level(metric) for metric in METRICS) * 2 == pytest.approx(ALPHA)
    assert test.level(PRIMARY) > test.level("clicks")


def test_means_are_over_users_and_not_over_lists() -> None:
    test = AbTest(("a", "b"), "a", "salt")
    users = np.arange(100)
    of_a = users[test.arm_numbers(users) == 0][:2]
    # One user with three lists of reward 0, one with a single list of reward 4.
    test.add(np.repeat(of_a, [3, 1]), values(4, np.array([0.0, 0.0, 0.0, 4.0])))
    look = test.look("2026-01-01")
    assert look.means["a"]["reward"] == 2.0
    assert (look.users, look.requests) == ({"a": 2, "b": 0}, {"a": 4, "b": 0})
    assert math.isnan(look.means["b"]["reward"]) and math.isnan(look.lifts["b"]["reward"].mean)


def test_too_few_users_or_no_spread_decide_nothing() -> None:
    test = AbTest(("a", "b"), "a", "salt")
    test.add(np.arange(MINIMUM_UNITS), values(MINIMUM_UNITS, np.arange(MINIMUM_UNITS, dtype=float)))
    assert test.look("1").lifts["b"]["reward"].high == math.inf
    test = AbTest(("a", "b"), "a", "salt")
    test.add(np.arange(1000), values(1000, np.ones(1000)))
    assert test.look("1").decisions() == {"b": "undecided"}


def replay(seed: int, effect: float, past: bool = False, days: int = 10, users: int = 1200) -> tuple[bool, bool]:
    """Whether any metric, and whether the primary one, was ever decided; users differ and come back unevenly."""
    random = np.random.default_rng(seed)
    test = AbTest(("a", "b"), "a", str(seed))
    level_U, activity_U = random.gamma(4.0, 0.25, users), random.gamma(1.0, 1.0, users)
    if past:
        earlier_U = random.gamma(4.0, level_U / 4.0)
        test.remember(np.arange(900), dict.fromkeys(METRICS, earlier_U[:900]))
    anything = primary = False
    for day in range(days):
        user_R = random.choice(users, size=600, p=activity_U / activity_U.sum())
        reward_R = random.gamma(0.8, level_U[user_R] / 0.8) * (1 + effect * (test.arm_numbers(user_R) == 1))
        noise_R = random.normal(size=600)
        test.add(user_R, {metric: reward_R + column * noise_R for column, metric in enumerate(METRICS)})
        look = test.look(str(day))
        anything |= any(look.decision("b", metric) != "undecided" for metric in METRICS)
        primary |= look.decision("b", PRIMARY) == "better"
    return anything, primary


@pytest.mark.parametrize("past", [False, True])
def test_equal_arms_looked_at_daily_are_seldom_called_different_by_any_metric(past: bool) -> None:
    replays = 200
    alarms = sum(replay(seed, effect=0.0, past=past)[0] for seed in range(replays))
    assert alarms / replays <= ALPHA


def test_what_users_did_before_finds_a_difference_sooner() -> None:
    without, with_it = (sum(replay(seed, effect=0.2, past=past)[1] for seed in range(40)) for past in (False, True))
    assert with_it > without + 5


def test_adjustment_is_the_regression_on_the_past_and_leaves_the_unknown_alone() -> None:
    random = np.random.default_rng(0)
    past_T, past_C = random.normal(3.0, 1.0, 300), random.normal(3.0, 1.0, 200)
    treatment, control = 2 * past_T + random.normal(0.5, 1.0, 300), 2 * past_C + random.normal(size=200)
    plain = adjusted(treatment, control, past_T, past_C)
    # Least squares of value on arm and past: its arm coefficient is the adjusted difference.
    design = np.column_stack([np.ones(500), np.repeat([1.0, 0.0], [300, 200]), np.concatenate([past_T, past_C])])
    fitted = np.linalg.lstsq(design, np.concatenate([treatment, control]), rcond=None)[0]
    assert plain[0].mean() - plain[1].mean() == pytest.approx(fitted[1])
    assert plain[0].var() < treatment.var() / 2
    past_T[:100] = np.nan
    np.testing.assert_array_equal(adjusted(treatment, control, past_T, past_C)[0][:100], treatment[:100])
    few = np.full(300, np.nan)
    few[: MINIMUM_UNITS - 1] = random.normal(size=MINIMUM_UNITS - 1)
    np.testing.assert_array_equal(adjusted(treatment, control, few, past_C)[0], treatment)
    np.testing.assert_array_equal(adjusted(treatment, control, np.ones(300), np.ones(200))[1], control)


def test_a_better_arm_is_found() -> None:
    assert sum(replay(seed, effect=0.35)[1] for seed in range(40)) / 40 >= 0.9


def test_an_arm_that_loses_users_decides_nothing_however_good_it_looks() -> None:
    random, test = np.random.default_rng(0), AbTest(("a", "b"), "a", "salt")
    users = np.arange(4000)
    kept = users[(test.arm_numbers(users) == 0) | (random.random(4000) < 0.7)]
    test.add(kept, values(len(kept), random.normal(size=len(kept)) + (test.arm_numbers(kept) == 1)))
    look = test.look("1")
    assert look.lifts["b"]["reward"].decided
    assert not look.sample_ratio.passed and look.sample_ratio.p_value <= SAMPLE_RATIO_ALPHA
    assert look.decisions() == {"b": "undecided"}
    # Users who come later mend the counts, not the experiment.
    late = np.arange(4000, 8000)[test.arm_numbers(np.arange(4000, 8000)) == 1]
    test.add(late[:700], values(700, random.normal(size=700)))
    assert not test.look("2").sample_ratio.passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.ones(3)}, "reward has shape \\(3,\\)"),
        ({"likes": np.array([1.0, np.nan])}, "finite"),
    ],
)
def test_broken_feedback_is_refused(change, message) -> None:
    with pytest.raises(DataRefused, match=message):
        AbTest(("a", "b"), "a", "salt").add(np.arange(2), values(2, np.ones(2)) | change)


def test_a_missing_metric_is_refused() -> None:
    with pytest.raises(DataRefused, match="expected reward, clicks"):
        AbTest(("a", "b"), "a", "salt").add(np.arange(2), {"reward": np.ones(2)})


def test_metrics_are_sums_over_the_list() -> None:
    feedback = Feedback(
        click=np.array([[1, 1, 1, 0]], dtype=np.int8),
        like=np.array([[0, 1, 0, 0]], dtype=np.int8),
        watch_seconds=np.array([[POSITIVE_SECONDS, 3.0, POSITIVE_SECONDS - 1, 0.0]]),
    )
    found = {name: float(value[0]) for name, value in metrics_of(feedback).items()}
    assert found == {
        "reward": pytest.approx(float(feedback.reward()[0])),
        "clicks": 3,
        "likes": 1,
        "watch_seconds": 2 * POSITIVE_SECONDS + 2,
        "positives": 2,
    }


# ------------------------------------------------------------------------------------------------------ a lived test


def knowing_features(requests: Requests, rows_B: np.ndarray) -> RequestBatch:
    """Batches whose score is the true single-item value: what a policy may use here to be good or bad at will."""
    value_BN = torch.from_numpy(single_item_value(requests.facts)[rows_B]).float()
    B, N = value_BN.shape
    return RequestBatch(
        *(torch.zeros(B, width) for width in (3, TOPIC_BUCKETS)),
        *(torch.zeros(B, 1, dtype=torch.int64) for _ in range(3)),
        torch.from_numpy(requests.item_RN[rows_B] + 1),
        torch.zeros(B, N, 3),
        torch.zeros(B, N, TOPIC_BUCKETS),
        value_BN,
        torch.ones(B, N, dtype=torch.bool),
    )


def best_first(batch: RequestBatch, length: int) -> torch.Tensor:
    return top_lists(batch.score_BN, batch.mask_BN, length)


def worst_first(batch: RequestBatch, length: int) -> torch.Tensor:
    return top_lists(-batch.score_BN, batch.mask_BN, length)


def in_order(batch: RequestBatch, length: int) -> torch.Tensor:
    return top_lists(torch.zeros_like(batch.score_BN), batch.mask_BN, length)


def test_a_lived_test_finds_the_better_and_the_worse_arm() -> None:
    arms = {"plain": in_order, "good": best_first, "bad": worst_first}
    test = AbTest(tuple(arms), "plain", "lived")
    told: list[tuple[int, int]] = []
    days = list(live(test, WORLD, 2, 4, arms, knowing_features, progress=lambda *seen: told.append(seen)))
    assert days[-1].look.decisions() == {"good": "better", "bad": "worse"}
    assert [day.look.date for day in days] == ["2026-01-03", "2026-01-04", "2026-01-05", "2026-01-06"]
    assert told[-1] == (4 * WORLD.requests_per_day, 4 * WORLD.requests_per_day)
    truth = days[-1].true_reward
    assert truth["bad"] < truth["plain"] < truth["good"]
    # The oracle's difference lies in the interval, which was made of sampled feedback alone.
    for arm in ("good", "bad"):
        found = days[-1].look.lifts[arm][PRIMARY]
        assert found.low < truth[arm] - truth["plain"] < found.high


def test_users_are_answered_by_their_own_arms_policy() -> None:
    arms = {"plain": in_order, "good": best_first}
    test = AbTest(tuple(arms), "plain", "own")
    day = next(live(test, WORLD, 0, 1, arms, knowing_features))
    requests = day_requests(WORLD, 0)
    arm_R = test.arm_numbers(requests.user_R + FIRST_USER_ID)
    value_RN = torch.from_numpy(single_item_value(requests.facts)).float()
    lists_RL = torch.stack([value_RN.argsort(descending=True)[:, :LIST_LENGTH]], dim=1).numpy()
    true_R = expected_reward(requests.facts, lists_RL)[:, 0]
    good = {user: true_R[requests.user_R == user].mean() for user in requests.user_R[arm_R == 1]}
    assert day.true_reward["good"] == pytest.approx(np.mean(list(good.values())))


def test_the_same_test_again_gives_the_same_and_another_salt_another() -> None:
    def lived(salt: str) -> Day:
        arms = {"plain": in_order, "good": best_first}
        return next(live(AbTest(tuple(arms), "plain", salt), WORLD, 0, 1, arms, knowing_features))

    assert lived("one") == lived("one")
    assert lived("one") != lived("two")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lists_BL: lists_BL[:, :-1], "lists of shape"),
        (lambda lists_BL: torch.cat([lists_BL[:, :1], lists_BL[:, :1], lists_BL[:, 2:]], dim=1), "6 distinct ones"),
        (lambda lists_BL: lists_BL + 100, "policy odd gave the list"),
        (lambda lists_BL: torch.where(lists_BL == lists_BL[:, 3:4], -1, lists_BL), "6 distinct ones"),
    ],
)
def test_a_policy_that_answers_wrongly_is_named(spoil, message) -> None:
    arms = {"plain": in_order, "odd": lambda batch, length: spoil(in_order(batch, length))}
    with pytest.raises(ModelRefused, match=message):
        next(live(AbTest(tuple(arms), "plain", "salt"), WORLD, 0, 1, arms, knowing_features))


def test_fewer_candidates_than_places_are_answered_with_all_of_them() -> None:
    world = replace(WORLD, candidates=4, list_length=4)
    arms = {"plain": in_order, "good": best_first}
    day = next(live(AbTest(tuple(arms), "plain", "few"), world, 0, 1, arms, knowing_features))
    assert day.true_reward["good"] > day.true_reward["plain"] > 0
