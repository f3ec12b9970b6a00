"""Off-policy estimators of lists: what a target policy's lists would have earned, from lists of another policy.

    list_ips, list_snips, list_dr   weights of whole lists: whatever users do with a list
    rips, cascade_dr                weights of prefixes: users who read from the top
    item_position_dr                weights of single positions: a model whose error is local

The choice for lists of 6 out of 50 logged by Plackett-Luce: `item_position_dr`. Whole-list weights of a deterministic
ranker leave an effective sample size of 1 out of 3,000 lists; prefix weights, exact where users read from the top, have
run out by the third position. The pseudo-inverse (Swaminathan et al. 2017, section 3) needs the logging policy's
probability of every item at every position: logs hold that of the shown items only. Weights of single positions leave
hundreds, at the price of an assumption, which a model of whole lists underneath makes mild: not that feedback is local
to an item and its position, but that the model's error is. docs/experiments.md has the measurements.

Legend: R requests, L positions. `model` is a prediction of the reward that has not seen these logs.
"""

from __future__ import annotations

import numpy as np

from goalrank.off_policy.estimation import Estimation, weighted
from goalrank.off_policy.propensities import require_finite, require_probabilities, require_propensities
from goalrank.off_policy.weights import ratios, window_weights


def list_ips(reward_RL: np.ndarray, target_RL: np.ndarray, propensity_RL: np.ndarray) -> Estimation:
    """mean(w r), w the product of all L ratios, r the list's reward. Precup, Sutton & Singh 2000, section 3; unbiased
    whatever users do with a list."""
    reward_RL, target_RL, propensity_RL = _lists(reward_RL, target_RL, propensity_RL)
    weights_R1 = _whole(target_RL, propensity_RL)
    return weighted("list_ips", reward_RL.sum(1)[:, None], weights_R1, np.zeros(len(reward_RL)), False)


def list_snips(reward_RL: np.ndarray, target_RL: np.ndarray, propensity_RL: np.ndarray) -> Estimation:
    """sum(w r) / sum(w) with the weights of `list_ips`. Swaminathan & Joachims 2015, section 5."""
    reward_RL, target_RL, propensity_RL = _lists(reward_RL, target_RL, propensity_RL)
    weights_R1 = _whole(target_RL, propensity_RL)
    return weighted("list_snips", reward_RL.sum(1)[:, None], weights_R1, np.zeros(len(reward_RL)), True)


def list_dr(
    reward_RL: np.ndarray,
    target_RL: np.ndarray,
    propensity_RL: np.ndarray,
    model_RL: np.ndarray,
    model_value_R: np.ndarray,
) -> Estimation:
    """Dudik, Langford & Li 2011, section 3, whole lists being the actions; arguments as in `cascade_dr`."""
    reward_RL, target_RL, propensity_RL = _lists(reward_RL, target_RL, propensity_RL)
    residual_R = (reward_RL - require_finite(model_RL, "model rewards", reward_RL.shape)).sum(1)
    base_R = require_finite(model_value_R, "model values", residual_R.shape)
    return weighted("list_dr", residual_R[:, None], _whole(target_RL, propensity_RL), base_R, False)


def rips(
    reward_RL: np.ndarray, target_RL: np.ndarray, propensity_RL: np.ndarray, *, self_normalised: bool = False
) -> Estimation:
    """sum over k of mean(w_1..k r_k). McInerney et al. 2020, section 4, reward interaction; unbiased if a position's
    reward depends on the items above it and on its own only."""
    length = np.shape(reward_RL)[1]
    nothing_RL, nothing_R = np.zeros(np.shape(reward_RL)), np.zeros(len(reward_RL))
    name = "snrips" if self_normalised else "rips"
    return _windowed(
        name, reward_RL, target_RL, propensity_RL, nothing_RL, nothing_R, length, self_normalised=self_normalised
    )


def cascade_dr(
    reward_RL: np.ndarray,
    target_RL: np.ndarray,
    propensity_RL: np.ndarray,
    model_RL: np.ndarray,
    model_value_R: np.ndarray,
    *,
    self_normalised: bool = False,
) -> Estimation:
    """The cascade doubly robust estimator of Kiyohara et al. 2022, section 3, in the form

        mean( E_pi[sum over k of q_k(x, a_1..k)] + sum over k of w_1..k (r_k - q_k(x, a_1..k)) )

    which is theirs where their Q_k is q_k plus the expectation under pi of what follows: then in
    w_1..k (r_k - Q_k) + w_1..k-1 E_pi[Q_k] the expectations of neighbouring positions cancel (a test shows it).

    Args:
        model_RL: q_k(x, a_1..k): the model's reward of position k of the logged list; it may depend on the items down
            to k, not on those below.
        model_value_R: E_pi of the sum of q_k over the target's lists; exact, or over lists drawn from the target.
        self_normalised: divide each position's weights by their mean.
    """
    length = np.shape(reward_RL)[1]
    return _windowed(
        "cascade_dr",
        reward_RL,
        target_RL,
        propensity_RL,
        model_RL,
        model_value_R,
        length,
        self_normalised=self_normalised,
    )


def item_position_dr(
    reward_RL: np.ndarray,
    target_RL: np.ndarray,
    propensity_RL: np.ndarray,
    model_RL: np.ndarray,
    model_value_R: np.ndarray,
    *,
    self_normalised: bool = False,
) -> Estimation:
    """mean( E_pi[sum over k of q_k] + sum over k of w_k (r_k - q_k) ), w_k the ratio of position k alone.

    The item-position estimator of Li et al. 2018, section 4.3 (independent IPS), with a control variate as in Dudik,
    Langford & Li 2011, section 3, and with the logged propensity, which is conditional on the items above, in the
    place of the marginal one. Unbiased for a target list that the logging policy could put in place one position at a
    time if the model's error at a position depends on the item there and on nothing else. Where the logged items above
    already hold the target's item it cannot be shown again: that share of the error goes uncorrected.

    Args:
        target_RL: the target's probability of the logged item at that position, whatever stands above it: for a
            deterministic ranker, whether its own list has the item there.
    """
    return _windowed(
        "item_position_dr",
        reward_RL,
        target_RL,
        propensity_RL,
        model_RL,
        model_value_R,
        1,
        self_normalised=self_normalised,
    )


def _windowed(
    name: str,
    reward_RL: np.ndarray,
    target_RL: np.ndarray,
    propensity_RL: np.ndarray,
    model_RL: np.ndarray,
    model_value_R: np.ndarray,
    window: int,
    *,
    self_normalised: bool,
) -> Estimation:
    reward_RL, target_RL, propensity_RL = _lists(reward_RL, target_RL, propensity_RL)
    residual_RL = reward_RL - require_finite(model_RL, "model rewards", reward_RL.shape)
    base_R = require_finite(model_value_R, "model values", (len(reward_RL),))
    weights_RL = window_weights(ratios(target_RL, propensity_RL), window)
    return weighted(name, residual_RL, weights_RL, base_R, self_normalised, reward_RL)


def _whole(target_RL: np.ndarray, propensity_RL: np.ndarray) -> np.ndarray:
    """Weights of whole lists [R, 1]."""
    found_RL = ratios(target_RL, propensity_RL)
    return window_weights(found_RL, found_RL.shape[1])[:, -1:]


def _lists(
    reward_RL: np.ndarray, target_RL: np.ndarray, propensity_RL: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    propensity_RL = require_propensities(propensity_RL)
    return (
        require_finite(reward_RL, "rewards", propensity_RL.shape),
        require_probabilities(target_RL, "target probabilities", propensity_RL.shape),
        propensity_RL,
    )
