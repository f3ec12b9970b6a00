"""Exploring on purpose: a share epsilon of requests gets a list sampled from the ranker, the rest its greedy list.

Logged is the propensity under the whole mixture, whichever branch was taken, so that off-policy estimators hold:

    P(l_1..p) = epsilon * prod_{q<=p} pi(l_q | l_<q) + (1 - epsilon) * [l_1..p is the start of the greedy list]
    propensity_p = P(l_1..p) / P(l_1..p-1)

Legend: B requests, L list length.
"""

from __future__ import annotations

import numpy as np

SMALLEST = float(np.finfo(np.float64).tiny)
"""Stands in for a propensity too small for a float: an estimator may divide by it, zero would be refused."""


def mixture_propensities(
    log_steps_BL: np.ndarray, follows_greedy_BL: np.ndarray, epsilon_B1: float | np.ndarray
) -> np.ndarray:
    """Propensity of each served item given the items above it, for one list [L] or many [B, L].

    Args:
        log_steps_BL: the ranker's log-probability of each item given those above it.
        follows_greedy_BL: bool, is the list up to and including this position the start of the greedy list?
        epsilon_B1: share of requests answered with a sampled list, 0..1.

    Returns:
        propensities_BL, float64, in (0, 1].
    """
    steps_BL = np.exp(np.minimum(np.asarray(log_steps_BL, dtype=np.float64), 0.0))
    greedy_BL = np.logical_and.accumulate(np.asarray(follows_greedy_BL, dtype=bool), axis=-1)
    first = np.ones((*steps_BL.shape[:-1], 1))
    sampled_before_BL = np.concatenate([first, np.cumprod(steps_BL, axis=-1)[..., :-1]], axis=-1)
    greedy_before_BL = np.concatenate([first.astype(bool), greedy_BL[..., :-1]], axis=-1)
    before_BL = epsilon_B1 * sampled_before_BL + (1 - epsilon_B1)
    after_BL = epsilon_B1 * sampled_before_BL * steps_BL + (1 - epsilon_B1) * greedy_BL
    # Once off the greedy list only the sampled branch is left, and epsilon and the past cancel.
    propensities_BL = np.where(greedy_before_BL, after_BL / np.maximum(before_BL, SMALLEST), steps_BL)
    return np.clip(propensities_BL, SMALLEST, 1.0)
