"""Importance weights of lists that were chosen position by position, and how many samples they are worth.

A list is logged as a_1..a_L with the conditional propensities mu(a_k | x, a_1..a_k-1). The ratio at position k is the
target's probability over that; which ratios make up position k's weight is an assumption about users, a window:

    all of 1..k     a position's feedback depends on the items above it and on its own (the cascade assumption:
                    McInerney et al. 2020; Kiyohara et al. 2022)
    k alone         feedback depends on the item and its position (the item-position model: Li et al. 2018)

Legend: R requests, L positions.
"""

from __future__ import annotations

import numpy as np

LARGEST_WEIGHT = 1e100
"""Products are cut here, so that their squares stay finite. A weight like that leaves an effective sample size of 1."""


def ratios(target_RL: np.ndarray, propensity_RL: np.ndarray) -> np.ndarray:
    """pi / mu of each logged item, any shape; both already checked (goalrank.off_policy.propensities)."""
    with np.errstate(over="ignore"):
        return np.minimum(np.asarray(target_RL, dtype=np.float64) / propensity_RL, LARGEST_WEIGHT)


def window_weights(ratios_RL: np.ndarray, window: int) -> np.ndarray:
    """Position k's weight [R, L]: the product of the ratios of the last `window` positions up to k."""
    weights_RL = np.empty_like(ratios_RL)
    with np.errstate(over="ignore"):
        for place in range(ratios_RL.shape[1]):
            first = max(0, place + 1 - window)
            weights_RL[:, place] = np.minimum(np.prod(ratios_RL[:, first : place + 1], axis=1), LARGEST_WEIGHT)
    return weights_RL


def effective_sample_size(weights: np.ndarray) -> np.ndarray:
    """(sum w)^2 / sum w^2 over the first axis: Kish 1965, section 11.7; Owen 2013, section 9.3. 0 where all are 0."""
    weights = np.abs(np.asarray(weights, dtype=np.float64))
    largest = weights.max(axis=0, initial=0.0)
    scaled = np.divide(weights, largest, out=np.zeros_like(weights), where=largest > 0)  # squares of 1e200 overflow
    squares = (scaled**2).sum(axis=0)
    return np.divide(scaled.sum(axis=0) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)


def overall_sample_size(worth_K: np.ndarray, shares_K: np.ndarray) -> float:
    """Harmonic mean of positions' effective sample sizes, each counting as its share of the logged reward.

    Few samples for a position that earns little cost little; none at all for one that earns something leave none.
    """
    counts_K = shares_K > 0
    if not worth_K[counts_K].all():
        return 0.0
    return float(shares_K[counts_K].sum() / (shares_K[counts_K] / worth_K[counts_K]).sum())


def difference_sample_size(weights_RK: np.ndarray, shares_K: np.ndarray) -> float:
    """Effective sample size of a difference of two policies.

    At each position the smaller of two: of the requests that weigh more for the one, and of those that weigh more for
    the other. Positions at which no request weighs differently ask for nothing.

    Args:
        weights_RK: the one's weights minus the other's.
        shares_K: of the logged reward.
    """
    more_K = effective_sample_size(np.maximum(weights_RK, 0.0))
    less_K = effective_sample_size(np.maximum(-weights_RK, 0.0))
    differs_K = np.maximum(more_K, less_K) > 0
    if not differs_K.any():
        return float(len(weights_RK))
    return overall_sample_size(np.minimum(more_K, less_K)[differs_K], shares_K[differs_K])
