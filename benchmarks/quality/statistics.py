"""Comparing methods on the same requests: means over seeds, paired tests over requests, Holm's correction.

Two questions, two tests. :func:`paired` takes the trained models as they are and asks whether other requests would show
the same; requests of one user are alike, so its standard error is taken over users (with one request each it is the
plain paired one). It does not say how another training would come out: that :func:`paired_over_seeds` asks, on these
requests. The former sees small differences of models that happened to come out so, the latter has but a few seeds.

Shapes: S seeds, R requests, M rivals.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences over requests."""

    mean: float
    low: float  # of the 95% interval
    high: float
    p: float  # two-sided


def over_seeds(values_SR: np.ndarray) -> np.ndarray:
    """Of each request the mean over the seeds that have it [R], NaN where none has."""
    return _known_mean(values_SR, axis=0)


def of_seeds(values_SR: np.ndarray) -> np.ndarray:
    """Of each seed the mean over the requests that have a figure [S], NaN where none has."""
    return _known_mean(values_SR, axis=1)


def _known_mean(values_SR: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        # A request without a positive has no figure, and neither has a seed that was refused.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values_SR, axis=axis)


def spread(values_SR: np.ndarray) -> float:
    """Standard deviation (ddof 1) of the mean over requests, over the seeds that have one; NaN with fewer than two."""
    means_S = of_seeds(values_SR)
    means_S = means_S[~np.isnan(means_S)]
    return float(means_S.std(ddof=1)) if len(means_S) > 1 else float("nan")


def paired(ours_R: np.ndarray, theirs_R: np.ndarray, user_R: np.ndarray) -> Difference:
    """Ours less theirs over the requests that both have a figure of, by a t-test clustered by user (Liang and Zeger,
    Longitudinal data analysis using generalized linear models, 1986, for the mean).

    With fewer than two users, or no spread at all, there is no test: p is 1, or 0 where all differ alike.
    """
    both_R = ~np.isnan(ours_R) & ~np.isnan(theirs_R)
    gap_R = ours_R[both_R] - theirs_R[both_R]
    if not len(gap_R):
        return Difference(float("nan"), float("nan"), float("nan"), 1.0)
    mean = float(gap_R.mean())
    _, code_R = np.unique(user_R[both_R], return_inverse=True)
    sums_C = np.bincount(code_R, weights=gap_R - mean)
    users = len(sums_C)
    if users < 2:
        return Difference(mean, float("-inf"), float("inf"), 1.0)
    error = float(np.sqrt(users / (users - 1) * (sums_C**2).sum()) / len(gap_R))
    if error == 0.0:
        return Difference(mean, mean, mean, 1.0 if mean == 0.0 else 0.0)
    half = float(stats.t.ppf(0.975, users - 1)) * error
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, users - 1)))


def paired_over_seeds(ours_S: np.ndarray, theirs_S: np.ndarray) -> float:
    """p of a paired t-test of seeds' means, two-sided, not corrected for the number of rivals.

    A seed has its world's requests, encoder and guide in common, so seeds are pairs; those that either lacks (NaN) are
    left out. NaN with fewer than two pairs.
    """
    if (np.isfinite(ours_S) & np.isfinite(theirs_S)).sum() < 2:
        return float("nan")
    return paired(ours_S, theirs_S, np.arange(len(ours_S))).p


def holm(p_M: np.ndarray) -> np.ndarray:
    """Adjusted p-values: the family-wise error over all M stays below the level they are held against (Holm, A simple
    sequentially rejective multiple test procedure, 1979)."""
    order_M = np.argsort(p_M, kind="stable")
    factors_M = len(p_M) - np.arange(len(p_M))
    adjusted_M = np.empty(len(p_M))
    adjusted_M[order_M] = np.minimum(np.maximum.accumulate(p_M[order_M] * factors_M), 1.0)
    return adjusted_M


def above(differences: list[Difference]) -> np.ndarray:
    """Holm's p for "ours is above", rival by rival [M]: 1 where ours is not above at all."""
    adjusted_M = holm(np.array([each.p for each in differences]))
    return np.where([each.mean > 0 for each in differences], adjusted_M, 1.0)
