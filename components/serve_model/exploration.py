"""Exploring on purpose: a share epsilon of requests gets a list sampled from the ranker, the rest its greedy list.

Logged is the propensity under the whole mixture, whichever branch was taken, so that off-policy estimators hold:

    P(l_1..p) = epsilon * prod_{q<=p} pi(l_q | l_<q) + (1 - epsilon) * [l_1..p is the start of the greedy list]
    propensity_p = P(l_1..p) / P(l_1..p-1)

Legend: L list length.
"""

from __future__ import annotations

import numpy as np

SMALLEST = float(np.finfo(np.float64).tiny)
"""Stands in for a propensity too small for a float: an estimator may divide by it, zero would be refused."""


def mixture_propensities(log_steps_L: np.ndarray, follows_greedy_L: np.ndarray, epsilon: float) -> np.ndarray:
    """Propensity of each served item given the items above it.

    Args:
        log_steps_L: the ranker's log-probability of each item given those above it.
        follows_greedy_L: bool, is the list up to and including this position the start of the greedy list?
        epsilon: share of requests answered with a sampled list, 0..1.

    Returns:
        propensities_L, float64, in (0, 1].
    """
    steps_L = np.exp(np.minimum(np.asarray(log_steps_L, dtype=np.float64), 0.0))
    greedy_L = np.logical_and.accumulate(np.asarray(follows_greedy_L, dtype=bool))
    sampled_before_L = np.concatenate([[1.0], np.cumprod(steps_L)[:-1]])
    greedy_before_L = np.concatenate([[True], greedy_L[:-1]])
    before_L = epsilon * sampled_before_L + (1 - epsilon)
    after_L = epsilon * sampled_before_L * steps_L + (1 - epsilon) * greedy_L
    # Once off the greedy list only the sampled branch is left, and epsilon and the past cancel.
    propensities_L = np.where(greedy_before_L, after_L / np.maximum(before_L, SMALLEST), steps_L)
    return np.clip(propensities_L, SMALLEST, 1.0)
