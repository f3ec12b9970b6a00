"""Estimators against enumeration: in a world of 4 candidates and lists of 2 every expectation is a finite sum.

A log that holds every list as often as its probability says is its own expectation: what an estimator returns on it is
the mean of its answers (and, for self-normalised ones, their limit), with no simulation error. Probabilities are
eighths, so that 64 rows hold each list a whole number of times.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from goalrank.errors import DataRefused, UsageError
from goalrank.off_policy import (
    cascade_dr,
    dr,
    ips,
    item_position_dr,
    list_dr,
    list_ips,
    list_snips,
    logged_value,
    rips,
    snips,
    window_weights,
)

CANDIDATES, LENGTH, ROWS = 4, 2, 64
LISTS_XL = np.array(list(permutations(range(CANDIDATES), LENGTH)))
Policy = Callable[[tuple[int, ...]], np.ndarray]
"""Items above -> probability of each candidate."""

EIGHTHS = (np.array([4, 2, 1, 1]) / 8, np.array([4, 2, 2]) / 8)


def logging(above: tuple[int, ...]) -> np.ndarray:
    """Probabilities in eighths; which item gets which depends on the item above."""
    if not above:
        return EIGHTHS[0]
    chances_N = np.zeros(CANDIDATES)
    left = [item for item in np.roll(np.arange(CANDIDATES), above[0]) if item not in above]
    chances_N[left] = EIGHTHS[1]
    return chances_N


def softmax(above: tuple[int, ...]) -> np.ndarray:
    """A target whose second choice depends on the first."""
    weights_N = np.exp(np.array([0.1, 0.9, -0.4, 1.3]) + (0.7 * np.arange(CANDIDATES) * above[0] if above else 0.0))
    weights_N[list(above)] = 0.0
    return weights_N / weights_N.sum()


def greedy(above: tuple[int, ...]) -> np.ndarray:
    """What is served: the likeliest item, with certainty."""
    return np.eye(CANDIDATES)[softmax(above).argmax()]


TARGETS = {"stochastic": softmax, "deterministic": greedy}


def conditional(policy: Policy) -> np.ndarray:
    """Probability of each item of each list given those above it [X, L]."""
    return np.array([[policy(tuple(items[:k]))[items[k]] for k in range(LENGTH)] for items in LISTS_XL])


CHANCE_X = conditional(logging).prod(axis=1)
ROW_R = np.repeat(np.arange(len(LISTS_XL)), np.round(CHANCE_X * ROWS).astype(int))
"""The list of each row of the log."""

_draw = np.random.default_rng(7)
FIRST_N, SECOND_N = _draw.random(CANDIDATES), _draw.random(CANDIDATES)
PAIR_NN = _draw.random((CANDIDATES, CANDIDATES))


def item_position() -> np.ndarray:
    """Rewards [X, L] that depend on the item and its position alone."""
    return np.stack([FIRST_N[LISTS_XL[:, 0]], SECOND_N[LISTS_XL[:, 1]]], axis=1)


def cascade() -> np.ndarray:
    """Rewards that depend on the items above too."""
    return np.stack([FIRST_N[LISTS_XL[:, 0]], PAIR_NN[LISTS_XL[:, 0], LISTS_XL[:, 1]]], axis=1)


def whole_list() -> np.ndarray:
    """Rewards of the first position that depend on the item below."""
    return cascade() + np.stack([PAIR_NN[LISTS_XL[:, 1], LISTS_XL[:, 0]], np.zeros(len(LISTS_XL))], axis=1)


def truth(reward_XL: np.ndarray, policy: Policy) -> float:
    return float(conditional(policy).prod(axis=1) @ reward_XL.sum(axis=1))


def log(reward_XL: np.ndarray, policy: Policy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, target probabilities and propensities of the log's rows, each [R, L]."""
    return reward_XL[ROW_R], conditional(policy)[ROW_R], conditional(logging)[ROW_R]


def model(prediction_XL: np.ndarray, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """A prediction of the rewards: of the logged lists, and its expectation under the policy, the same in each row."""
    return prediction_XL[ROW_R], np.full(len(ROW_R), truth(prediction_XL, policy))


WRONG_XL = cascade() * 0.6 + 0.2 * LISTS_XL
"""A model of the cascade rewards that errs."""


def test_the_log_holds_each_list_as_often_as_its_probability_says():
    assert len(ROW_R) == ROWS
    np.testing.assert_array_equal(np.bincount(ROW_R), CHANCE_X * ROWS)


# -------------------------------------------------------------------------------------------------------- list level


@pytest.mark.parametrize("policy", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("rewards", [item_position, cascade, whole_list])
def test_whole_list_weights_are_exact_whatever_users_do(policy, rewards):
    reward_XL = rewards()
    expected = truth(reward_XL, policy)
    rows = log(reward_XL, policy)
    assert list_ips(*rows).value == pytest.approx(expected)
    assert list_snips(*rows).value == pytest.approx(expected)
    assert list_dr(*rows, *model(WRONG_XL, policy)).value == pytest.approx(expected)


@pytest.mark.parametrize("policy", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("rewards", [item_position, cascade])
def test_prefix_weights_are_exact_where_users_read_from_the_top(policy, rewards):
    reward_XL = rewards()
    expected = truth(reward_XL, policy)
    rows = log(reward_XL, policy)
    for self_normalised in (False, True):
        assert rips(*rows, self_normalised=self_normalised).value == pytest.approx(expected)
        estimated = cascade_dr(*rows, *model(WRONG_XL, policy), self_normalised=self_normalised)
        assert estimated.value == pytest.approx(expected)


@pytest.mark.parametrize("policy", TARGETS.values(), ids=TARGETS)
def test_prefix_weights_are_biased_where_a_place_looks_below(policy):
    """The assumption is one: where it fails, so do they."""
    reward_XL = whole_list()
    assert abs(rips(*log(reward_XL, policy)).value - truth(reward_XL, policy)) > 0.01


@pytest.mark.parametrize("policy", TARGETS.values(), ids=TARGETS)
def test_cascade_dr_is_the_recursion_of_the_paper(policy):
    """Kiyohara et al. 2022: sum over k of w_1..k (r_k - Q_k) + w_1..k-1 E_pi[Q_k], Q_k of all that is still to come."""
    reward_RL, target_RL, propensity_RL = log(cascade(), policy)
    q_XL = WRONG_XL
    value_of_second_N = np.array([_second_value(first, policy) for first in range(CANDIDATES)])
    to_come_XL = np.stack([q_XL[:, 0] + value_of_second_N[LISTS_XL[:, 0]], q_XL[:, 1]], axis=1)
    expected_to_come_XL = np.stack(
        [np.full(len(LISTS_XL), truth(q_XL, policy)), value_of_second_N[LISTS_XL[:, 0]]], axis=1
    )
    first_R, both_R = (target_RL[:, :k].prod(1) / propensity_RL[:, :k].prod(1) for k in (1, 2))
    paper_R = (
        first_R * (reward_RL[:, 0] - to_come_XL[ROW_R, 0])
        + expected_to_come_XL[ROW_R, 0]
        + both_R * (reward_RL[:, 1] - to_come_XL[ROW_R, 1])
        + first_R * expected_to_come_XL[ROW_R, 1]
    )
    ours = cascade_dr(reward_RL, target_RL, propensity_RL, *model(q_XL, policy))
    np.testing.assert_allclose(ours.influence_R, paper_R)


def _second_value(first: int, policy: Policy) -> float:
    """E over the second item of the wrong model's reward for it, after this first item."""
    chances_N = policy((first,))
    rows = {tuple(items): row for row, items in enumerate(LISTS_XL.tolist())}
    others = [item for item in range(CANDIDATES) if item != first]
    return float(sum(chances_N[item] * WRONG_XL[rows[first, item], 1] for item in others))


def served(reward_XL: np.ndarray, shown: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `log`, for a target that shows one list: does its own list have the logged item at that position?"""
    return reward_XL[ROW_R], (LISTS_XL[ROW_R] == shown).astype(float), conditional(logging)[ROW_R]


def of_list(values_XL: np.ndarray, shown: tuple[int, int]) -> np.ndarray:
    """A list's own values [L]."""
    return values_XL[LISTS_XL.tolist().index(list(shown))]


def available(shown: tuple[int, int]) -> float:
    """Probability that the logging policy has not put the second item first already."""
    return 1 - logging(())[shown[1]]


@pytest.mark.parametrize("shown", list(permutations(range(CANDIDATES), LENGTH)))
def test_single_positions_correct_a_models_error_of_item_and_position(shown):
    """Strong list effects, which the model knows, and an error that it makes wherever the item stands at its place."""
    reward_XL, error_XL = cascade(), item_position() - 0.4
    model_XL = reward_XL + error_XL
    modelled = model_XL[ROW_R], np.full(ROWS, of_list(model_XL, shown).sum())
    expected, error_L = of_list(reward_XL, shown).sum(), of_list(error_XL, shown)
    found = item_position_dr(*served(reward_XL, shown), *modelled)
    # The share of rows in which the second item stands above already cannot be corrected.
    assert found.value == pytest.approx(expected + (1 - available(shown)) * error_L[1])
    normalised = item_position_dr(*served(reward_XL, shown), *modelled, self_normalised=True)
    assert normalised.value == pytest.approx(expected)


def test_single_positions_are_biased_where_nothing_models_the_list():
    reward_XL, shown = cascade(), (3, 1)
    nothing = np.zeros((ROWS, LENGTH)), np.zeros(ROWS)
    for self_normalised in (False, True):
        found = item_position_dr(*served(reward_XL, shown), *nothing, self_normalised=self_normalised)
        assert abs(found.value - of_list(reward_XL, shown).sum()) > 0.01


def test_the_logged_lists_own_value_is_their_mean():
    found = logged_value(cascade()[ROW_R])
    assert found.value == pytest.approx(truth(cascade(), logging))
    assert found.effective_sample_size == ROWS


def test_a_perfect_model_leaves_no_variance():
    reward_XL = cascade()
    assert cascade_dr(*log(reward_XL, softmax), *model(reward_XL, softmax)).influence_R.std() == pytest.approx(0)
    assert rips(*log(reward_XL, softmax)).influence_R.std() > 0.1


def test_differences_are_differences_of_influences():
    reward_XL = cascade()
    ours, theirs = rips(*log(reward_XL, softmax)), rips(*log(reward_XL, greedy))
    difference = ours.minus(theirs)
    assert difference.value == pytest.approx(truth(reward_XL, softmax) - truth(reward_XL, greedy))
    assert difference.value == pytest.approx(difference.influence_R.mean())
    assert difference.effective_sample_size <= min(ours.effective_sample_size, theirs.effective_sample_size)


# -------------------------------------------------------------------------------------------------------- item level


@pytest.mark.parametrize("policy", TARGETS.values(), ids=TARGETS)
def test_item_level_estimators_are_exact(policy):
    reward_n, target_n, propensity_n = (values[:, 0] for values in log(item_position(), policy))
    expected = float(policy(()) @ FIRST_N)
    assert ips(reward_n, target_n, propensity_n).value == pytest.approx(expected)
    assert snips(reward_n, target_n, propensity_n).value == pytest.approx(expected)
    wrong_N = np.linspace(0, 1, CANDIDATES)
    wrong_n, value_n = wrong_N[LISTS_XL[ROW_R, 0]], np.full(ROWS, policy(()) @ wrong_N)
    for self_normalised in (False, True):
        estimated = dr(reward_n, target_n, propensity_n, wrong_n, value_n, self_normalised=self_normalised)
        assert estimated.value == pytest.approx(expected)


def test_doubly_robust_either_way():
    """Exact with a perfect model and wrong weights; with right weights and a wrong model the test above says so."""
    reward_n, target_n, propensity_n = (values[:, 0] for values in log(item_position(), softmax))
    value_n = np.full(ROWS, softmax(()) @ FIRST_N)
    wrong_n = np.clip(propensity_n * 2, 0, 1)
    assert dr(reward_n, target_n, wrong_n, reward_n, value_n).value == pytest.approx(value_n[0])
    assert abs(ips(reward_n, target_n, wrong_n).value - value_n[0]) > 0.01


def test_self_normalised_influences_are_the_derivative():
    """Leave-one-out slopes of sum(w r) / sum(w), by brute force."""
    draw = np.random.default_rng(0)
    reward_n, target_n, propensity_n = draw.random(40), draw.random(40), draw.uniform(0.2, 1, 40)
    found = snips(reward_n, target_n, propensity_n)
    weight_n = target_n / propensity_n

    def value(times_n: np.ndarray) -> float:
        return float((times_n * weight_n * reward_n).sum() / (times_n * weight_n).sum())

    step = 1e-6
    slopes_n = [(value(1 + step * np.eye(40)[row]) - value(np.ones(40))) / step for row in range(40)]
    np.testing.assert_allclose(found.influence_R - found.value, np.array(slopes_n) * 40, atol=1e-4)


# -------------------------------------------------------------------------------------------------------- bad inputs

NAN, INFINITY = float("nan"), float("inf")
GOOD = {"reward": [[1.0, 0.0]], "target": [[0.5, 0.5]], "propensity": [[0.5, 0.25]]}
BAD = [
    (
        {"propensity": [[0.5, 0.0]]},
        DataRefused,
        r"1 zero or negative \(first at \[0, 1\]: 0\) among 2, expected probabil",
    ),
    ({"propensity": [[-0.1, 0.5]]}, DataRefused, r"1 zero or negative \(first at \[0, 0\]: -0.1\)"),
    ({"propensity": [[NAN, 0.5]]}, DataRefused, r"1 NaN or infinite \(first at \[0, 0\]: nan\)"),
    ({"propensity": [[0.5, INFINITY]]}, DataRefused, r"1 NaN or infinite \(first at \[0, 1\]: inf\)"),
    ({"propensity": [[0.5, 1.5]]}, DataRefused, r"1 above 1 \(first at \[0, 1\]: 1.5\)"),
    ({"propensity": [[0.0, 1.5]]}, DataRefused, r"1 zero or negative .*; 1 above 1"),
    ({"propensity": np.zeros((0, 2))}, DataRefused, "no propensities found, expected one for each shown item"),
    ({"reward": [[NAN, 0.0]]}, DataRefused, "1 of 2 rewards are not finite"),
    ({"reward": [[1.0]]}, UsageError, r"rewards of shape \(1, 1\) found, expected \(1, 2\)"),
    ({"target": [[0.5, 1.2]]}, UsageError, "target probabilities between 0.5 and 1.2 found, expected"),
    ({"target": [[NAN, 1.0]]}, DataRefused, "1 of 2 target probabilities are not finite"),
]


@pytest.mark.parametrize(("change", "error", "told"), BAD, ids=[f"{next(iter(row[0]))} {row[2][:25]}" for row in BAD])
def test_bad_inputs_are_refused_by_every_estimator(change, error, told):
    reward, target, propensity = (np.array((GOOD | change)[name]) for name in GOOD)
    models = np.zeros(propensity.shape), np.zeros(len(propensity))
    for estimator in (list_ips, list_snips, rips):
        with pytest.raises(error, match=told):
            estimator(reward, target, propensity)
    for modelled in (list_dr, cascade_dr, item_position_dr):
        with pytest.raises(error, match=told):
            modelled(reward, target, propensity, *models)
    flat = told.replace("0, ", "").replace(r"\(1, 1\)", r"\(1,\)").replace(r"\(1, 2\)", r"\(2,\)")
    for estimator in (ips, snips):
        with pytest.raises(error, match=flat):
            estimator(reward.ravel(), target.ravel(), propensity.ravel())


def test_a_model_that_is_not_finite_is_refused():
    rows = log(cascade(), softmax)
    wrong_RL = np.full(rows[0].shape, NAN)
    with pytest.raises(DataRefused, match="model rewards are not finite"):
        cascade_dr(*rows, wrong_RL, np.zeros(ROWS))
    with pytest.raises(UsageError, match="model values of shape"):
        cascade_dr(*rows, np.zeros(rows[0].shape), np.zeros(3))


def test_propensities_next_to_nothing_overflow_nothing():
    tiny = np.finfo(np.float64).tiny
    estimated = cascade_dr(
        np.ones((2, 3)), np.ones((2, 3)), np.array([[tiny] * 3, [1.0] * 3]), np.zeros((2, 3)), np.zeros(2)
    )
    assert np.isfinite(estimated.influence_R).all()
    assert estimated.effective_sample_size == pytest.approx(1)


def test_windows_multiply_the_last_ratios():
    ratios_RL = np.array([[2.0, 3.0, 5.0, 7.0]])
    np.testing.assert_array_equal(window_weights(ratios_RL, 1), ratios_RL)
    np.testing.assert_array_equal(window_weights(ratios_RL, 2), [[2, 6, 15, 35]])
    np.testing.assert_array_equal(window_weights(ratios_RL, 9), [[2, 6, 30, 210]])
