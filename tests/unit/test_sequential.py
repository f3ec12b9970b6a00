"""Anytime-valid statistics: false alarms under peeking, coverage, power, and what breaks without them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from goalrank import sequential
from goalrank.errors import DataRefused, UsageError
from goalrank.sequential import MINIMUM_UNITS, lift, sample_ratio

ALPHA = 0.05
REPLAYS = 600
LOOKS = 40
PER_LOOK = 40  # units that reach each arm between two looks

Draw = Callable[[np.random.Generator, int], np.ndarray]
DRAWS: dict[str, Draw] = {
    "normal": lambda random, count: random.normal(size=count),
    "a rare click": lambda random, count: (random.random(count) < 0.08).astype(float),
    "a long tail": lambda random, count: np.exp(random.normal(0, 1.2, count)),
    "mostly zero": lambda random, count: (random.random(count) < 0.3) * random.gamma(0.5, 1.0, count),
}


def most(share: float, replays: int) -> float:
    """The upper end of what chance makes of a true share: three binomial standard errors."""
    return share + 3 * math.sqrt(share * (1 - share) / replays)


def ever(
    decided: Callable[[np.ndarray, np.ndarray], bool], draw: Draw, effect: float = 0.0, replays: int = REPLAYS
) -> float:
    """Share of replays in which any of LOOKS looks at two growing arms decides."""
    random = np.random.default_rng(7)
    found = 0
    for _ in range(replays):
        treatment, control = draw(random, LOOKS * PER_LOOK) + effect, draw(random, LOOKS * PER_LOOK)
        found += any(decided(treatment[: look * PER_LOOK], control[: look * PER_LOOK]) for look in range(2, LOOKS + 1))
    return found / replays


@pytest.mark.parametrize("name", DRAWS)
def test_equal_arms_looked_at_after_every_batch_are_called_different_in_at_most_alpha(name: str) -> None:
    share = ever(lambda treatment, control: lift(treatment, control, ALPHA).decided, DRAWS[name])
    assert share <= most(ALPHA, REPLAYS)
    assert share <= ALPHA, "the boundary is conservative: chance has no need of its margin at these looks"


def test_a_plain_t_test_looked_at_as_often_breaks() -> None:
    def t_test(treatment: np.ndarray, control: np.ndarray) -> bool:
        return bool(stats.ttest_ind(treatment, control).pvalue < ALPHA)

    assert ever(t_test, DRAWS["normal"], replays=150) > 4 * ALPHA


def test_the_true_difference_is_covered_at_all_looks_at_once() -> None:
    random, effect, missed = np.random.default_rng(3), 0.4, 0
    for _ in range(REPLAYS):
        treatment, control = random.gamma(1.0, 1.0, 2000) + effect, random.gamma(1.0, 1.0, 1000)
        looks = [lift(treatment[: 2 * end], control[:end], ALPHA) for end in range(50, 1001, 50)]
        missed += any(not look.low <= effect <= look.high for look in looks)
    assert missed / REPLAYS <= most(ALPHA, REPLAYS)


def test_a_real_difference_is_found() -> None:
    # At 1,600 units an arm the standard error is 0.035: an effect of 0.2 is 5.7 of them, the boundary 3.1.
    share = ever(lambda treatment, control: lift(treatment, control, ALPHA).low > 0, DRAWS["normal"], effect=0.2)
    assert share >= 0.95


def test_interval_agrees_with_the_papers_formula() -> None:
    random = np.random.default_rng(0)
    treatment, control = random.normal(1.0, 2.0, 300), random.normal(0.0, 1.0, 200)
    found, t = lift(treatment, control, 0.1, tuned_for=400), 500
    rho = math.sqrt((-2 * math.log(0.1) + math.log(-2 * math.log(0.1) + 1)) / 400)
    sigma = math.sqrt(t * (treatment.var(ddof=1) / 300 + control.var(ddof=1) / 200))
    radius = sigma * math.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / 0.1))
    assert found.mean == pytest.approx(treatment.mean() - control.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - radius, found.mean + radius))


def test_users_whose_values_ripen_need_the_information_and_not_their_number() -> None:
    """The same users every day, their means over ever more days: much is learnt although no unit enters."""
    random, users, by_number, by_information = np.random.default_rng(5), 60, 0, 0
    day_D = np.unique(np.geomspace(1, 10_000, 100).round())
    spread_D11 = np.sqrt(np.diff(day_D, prepend=0))[:, None, None]
    for _ in range(REPLAYS):
        sums_D2U = (spread_D11 * random.normal(size=(len(day_D), 2, users))).cumsum(axis=0)
        means_D2U = sums_D2U / day_D[:, None, None]
        first = (means_D2U[0, 0].var(ddof=1) + means_D2U[0, 1].var(ddof=1)) / 2
        tuned = {"tuned_for": 2 * users}
        by_number += any(lift(treatment, control, ALPHA, **tuned).decided for treatment, control in means_D2U)
        by_information += any(
            lift(treatment, control, ALPHA, **tuned, unit_variance=first).decided for treatment, control in means_D2U
        )
    assert by_information / REPLAYS <= ALPHA
    assert by_number / REPLAYS > ALPHA


def test_too_few_units_know_nothing() -> None:
    few = lift(np.arange(MINIMUM_UNITS - 1), np.arange(MINIMUM_UNITS))
    assert (few.low, few.high, few.decided) == (-math.inf, math.inf, False)
    assert lift(np.zeros(1), np.ones(1)).mean == -1.0
    assert math.isfinite(lift(np.arange(MINIMUM_UNITS), np.arange(MINIMUM_UNITS)).high)


def test_one_arm_without_spread_is_judged_by_the_others() -> None:
    found = lift(np.arange(100) % 2, np.zeros(100))
    assert found.decided and found.low > 0


@pytest.mark.parametrize(
    ("treatment", "control", "message"),
    [
        (np.array([]), np.ones(99), "treatment has shape \\(0,\\)"),
        (np.ones(99), np.array([]), "control has shape \\(0,\\)"),
        (np.ones((9, 9)), np.ones(99), "expected one value a unit"),
        (np.append(np.ones(98), np.nan), np.ones(99), "1 of 99 treatment values are not finite"),
        (np.ones(99), np.full(99, np.inf), "99 of 99 control values are not finite"),
        (np.ones(99), np.zeros(99), "all 99 treatment values equal 1 and all 99 control values 0"),
    ],
)
def test_values_that_cannot_be_judged_are_refused(treatment: np.ndarray, control: np.ndarray, message: str) -> None:
    with pytest.raises(DataRefused, match=message):
        lift(treatment, control)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"alpha": 5}, "alpha 5"),
        ({"tuned_for": 0}, "tuned_for 0"),
        ({"unit_variance": -1.0}, "unit_variance -1.0"),
    ],
)
def test_wrong_settings_are_refused(flags: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lift(np.arange(99), np.arange(99), **flags)


# ---------------------------------------------------------------------------------------------------- sample ratio

PLAN = {"a": 0.5, "b": 0.3, "c": 0.2}


def smallest_p(random: np.random.Generator, true_shares: list[float], units: int = 6000, every: int = 100) -> float:
    """The smallest p-value of any look while units come."""
    arms = random.choice(3, size=units, p=true_shares)
    counts_LA = np.array([np.bincount(arms[:end], minlength=3) for end in range(every, units + 1, every)])
    return min(sample_ratio(dict(zip("abc", map(int, counts), strict=True)), PLAN).p_value for counts in counts_LA)


def test_planned_shares_fail_at_any_look_in_at_most_alpha() -> None:
    random = np.random.default_rng(0)
    alarms = sum(smallest_p(random, list(PLAN.values())) <= ALPHA for _ in range(REPLAYS)) / REPLAYS
    assert alarms <= ALPHA


def test_a_chi_square_test_looked_at_as_often_breaks() -> None:
    random, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        arms = random.choice(3, size=6000, p=list(PLAN.values()))
        alarms += any(
            stats.chisquare(np.bincount(arms[:end], minlength=3), np.array(list(PLAN.values())) * end).pvalue < ALPHA
            for end in range(100, 6001, 100)
        )
    assert alarms / 200 > 3 * ALPHA


def test_a_split_that_lost_a_tenth_of_one_arm_is_found() -> None:
    random = np.random.default_rng(1)
    lost = np.array([0.5, 0.3, 0.2 * 0.8])
    found = sum(smallest_p(random, list(lost / lost.sum())) <= ALPHA for _ in range(100)) / 100
    assert found >= 0.95


def test_bayes_factor_of_two_arms_agrees_with_the_beta_binomial() -> None:
    counts, prior = {"t": 130, "c": 70}, sequential.CONCENTRATION / 2
    expected = stats.betabinom(200, prior, prior).pmf(130) / stats.binom(200, 0.5).pmf(130)
    found = sample_ratio(counts, {"t": 0.5, "c": 0.5})
    assert found.p_value == pytest.approx(1 / expected)
    assert found.passed == (1 / expected > ALPHA)


def test_no_units_yet_is_no_alarm() -> None:
    found = sample_ratio(dict.fromkeys(PLAN, 0), PLAN)
    assert (found.p_value, found.passed) == (1.0, True)


@pytest.mark.parametrize(
    ("counts", "shares", "kind", "message"),
    [
        ({"a": 1, "b": 1}, {"a": 0.5, "c": 0.5}, DataRefused, "expected counts of"),
        ({"a": -1, "b": 1}, {"a": 0.5, "b": 0.5}, DataRefused, "whole numbers"),
        ({"a": float("nan"), "b": 1}, {"a": 0.5, "b": 0.5}, DataRefused, "whole numbers"),
        ({"a": 1, "b": 1}, {"a": 0.5, "b": 0.6}, UsageError, "sum to 1"),
        ({"a": 1, "b": 1}, {"a": 1.0, "b": 0.0}, UsageError, "positive shares"),
        ({"a": 1}, {"a": 1.0}, UsageError, "two or more"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(counts, shares, kind, message) -> None:
    with pytest.raises(kind, match=message):
        sample_ratio(counts, shares)
