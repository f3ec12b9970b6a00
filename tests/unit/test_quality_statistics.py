"""Paired tests over users and Holm's correction, held against SciPy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.quality.statistics import above, holm, over_seeds, paired, paired_over_seeds, spread


def test_with_one_request_a_user_it_is_the_paired_t_test() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.1, 1, 80), random.normal(0, 1, 80)
    found, expected = paired(ours, theirs, np.arange(80)), stats.ttest_rel(ours, theirs)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx((ours - theirs).mean())


def test_the_test_over_seeds_is_scipys_of_the_seeds_that_both_have() -> None:
    ours = np.array([2.10, 2.15, np.nan, 2.12, 2.19, 2.05])
    theirs = np.array([2.08, 2.16, 2.20, 2.05, 2.11, np.nan])
    both = np.array([0, 1, 3, 4])
    assert paired_over_seeds(ours, theirs) == pytest.approx(stats.ttest_rel(ours[both], theirs[both]).pvalue)
    assert paired_over_seeds(ours, theirs) == pytest.approx(paired_over_seeds(theirs, ours))  # two-sided
    assert np.isnan(paired_over_seeds(ours[:1], theirs[:1])) and np.isnan(paired_over_seeds(ours[1:3], theirs[1:3]))


def test_requests_of_one_user_do_not_count_as_many() -> None:
    """Every request twice is the same evidence as once."""
    random = np.random.default_rng(1)
    ours, theirs = random.normal(0.2, 1, 50), random.normal(0, 1, 50)
    once = paired(ours, theirs, np.arange(50))
    twice = paired(np.repeat(ours, 2), np.repeat(theirs, 2), np.repeat(np.arange(50), 2))
    assert twice.p == pytest.approx(once.p) and twice.low == pytest.approx(once.low)
    careless = paired(np.repeat(ours, 2), np.repeat(theirs, 2), np.arange(100))
    assert careless.p < once.p


def test_false_alarms_are_as_rare_as_promised() -> None:
    random = np.random.default_rng(2)
    user_R = np.repeat(np.arange(60), random.integers(1, 6, 60))
    alarms = []
    for _ in range(2000):
        gap_R = random.normal(0, 1, 60)[user_R] + random.normal(0, 1, len(user_R))
        alarms.append(paired(gap_R, np.zeros(len(user_R)), user_R).p < 0.05)
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.02)


def test_requests_without_a_figure_are_left_out() -> None:
    ours, theirs = np.array([1.0, np.nan, 2.0, 5.0]), np.array([0.5, 3.0, np.nan, 4.0])
    found = paired(ours, theirs, np.arange(4))
    assert found.mean == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("ours", "theirs", "p"), [([1.0, 1.0], [1.0, 1.0], 1.0), ([2.0, 2.0], [1.0, 1.0], 0.0), ([np.nan], [1.0], 1.0)]
)
def test_without_spread_or_figures_there_is_no_test(ours: list, theirs: list, p: float) -> None:
    assert paired(np.array(ours), np.array(theirs), np.arange(len(ours))).p == p


def test_holm_against_its_definition() -> None:
    p_M = np.array([0.03, 0.001, 0.04, 0.2, 0.001])
    order = np.argsort(p_M, kind="stable")
    expected = np.empty(5)
    for place, rival in enumerate(order):
        expected[rival] = min(1.0, max(p_M[order[earlier]] * (5 - earlier) for earlier in range(place + 1)))
    np.testing.assert_allclose(holm(p_M), expected)
    np.testing.assert_allclose(expected, [0.09, 0.005, 0.09, 0.2, 0.005])


def test_below_is_never_above() -> None:
    random = np.random.default_rng(3)
    base = random.normal(0, 0.1, 40)
    differences = [paired(base + shift, np.zeros(40), np.arange(40)) for shift in (-1.0, 1.0)]
    assert above(differences)[0] == 1.0 and above(differences)[1] < 1e-6


def test_means_and_spread_over_seeds() -> None:
    values_SR = np.array([[1.0, np.nan, 3.0], [3.0, np.nan, 5.0]])
    np.testing.assert_array_equal(over_seeds(values_SR), [2.0, np.nan, 4.0])
    assert spread(values_SR) == pytest.approx(np.std([2.0, 4.0], ddof=1))
    assert np.isnan(spread(values_SR[:1]))
