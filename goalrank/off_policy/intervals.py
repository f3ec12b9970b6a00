"""Intervals around an estimate whose requests come in clusters: a user's requests share tastes.

Three ways, of which benchmarks/off_policy.py measures the coverage:

    normal        cluster-robust standard error, Student's t with C - 1 degrees (Liang & Zeger 1986)
    percentile    quantiles of the cluster bootstrap (Davison & Hinkley 1997, section 3.8)
    studentised   quantiles of the bootstrap's t statistic (Davison & Hinkley 1997, section 5.2)

The first is the default: where few samples carry the weight, resampling them knows no more than they do, and both
bootstraps cover less (docs/experiments.md).

Legend: R requests, C clusters (users), E estimates at once, K resamples.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from goalrank.errors import UsageError

CONFIDENCE = 0.95
RESAMPLES = 2000
"""The 2.5% point rests on 50 resamples of t: the end of the interval moves by some percent of its width from seed to
seed, which decides nothing that is not close."""

Method = Literal["normal", "percentile", "studentised"]
METHODS: tuple[Method, ...] = ("normal", "percentile", "studentised")

_CELLS = 8_000_000


def cluster_intervals(
    influence_RE: np.ndarray,
    clusters_R: np.ndarray | None,
    *,
    seed: int = 0,
    method: Method = "normal",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends [E], for the mean influence of each column, by resampling whole clusters.

    Args:
        influence_RE: from Estimation.influence_R, one column an estimate; the same resamples serve all columns.
        clusters_R: whose request it was; None takes each row as a cluster of its own.
        method: as above.
        seed: of the resampling, where there is any.
        resamples: likewise.

    Raises:
        UsageError: an unknown method, or influences that are no matrix of finite numbers.
    """
    influence_RE = np.asarray(influence_RE, dtype=np.float64)
    if influence_RE.ndim != 2 or not len(influence_RE) or not np.isfinite(influence_RE).all():
        raise UsageError(f"influences of shape {influence_RE.shape} found, expected finite numbers, a row a request")
    sums_CE, counts_C = _by_cluster(influence_RE, clusters_R)
    clusters = len(counts_C)
    mean_E = influence_RE.mean(axis=0)
    if clusters < 2:
        return np.full(len(mean_E), -np.inf), np.full(len(mean_E), np.inf)
    tail = (1 - confidence) / 2
    error_E = _standard_error(
        sums_CE.sum(0), counts_C.sum(), (sums_CE**2).sum(0), counts_C @ sums_CE, counts_C @ counts_C, clusters
    )
    if method == "normal":
        return _student(mean_E, error_E, clusters, tail)
    if method not in METHODS:
        raise UsageError(f"method {method!r} found, expected one of {', '.join(METHODS)}")
    drawn_KC = _resampled(clusters, resamples, seed)
    total_KE, count_K = drawn_KC @ sums_CE, drawn_KC @ counts_C
    mean_KE = total_KE / count_K[:, None]
    if method == "percentile":
        low_E, high_E = np.quantile(mean_KE, [tail, 1 - tail], axis=0)
        return low_E, high_E
    error_KE = _standard_error(
        total_KE,
        count_K[:, None],
        drawn_KC @ sums_CE**2,
        drawn_KC @ (sums_CE * counts_C[:, None]),
        (drawn_KC @ counts_C**2)[:, None],
        clusters,
    )
    # A resample without any spread says nothing of t; where that happens often there is next to no information.
    usable_KE = error_KE > 1e-12 * np.maximum(error_E, 1e-300)
    t_KE = np.divide(mean_KE - mean_E, error_KE, out=np.full_like(mean_KE, np.nan), where=usable_KE)
    known_E = usable_KE.mean(axis=0) > 0.99
    low_E, high_E = _student(mean_E, error_E, clusters, tail)
    if known_E.any():
        t_low_E, t_high_E = np.nanquantile(t_KE[:, known_E], [tail, 1 - tail], axis=0)
        low_E[known_E] = mean_E[known_E] - t_high_E * error_E[known_E]
        high_E[known_E] = mean_E[known_E] - t_low_E * error_E[known_E]
    return low_E, high_E


def _by_cluster(influence_RE: np.ndarray, clusters_R: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums [C, E] and numbers of requests [C] of each cluster."""
    if clusters_R is None:
        return influence_RE, np.ones(len(influence_RE))
    _, index_R = np.unique(np.asarray(clusters_R), return_inverse=True)
    counts_C = np.bincount(index_R).astype(np.float64)
    sums_CE = np.stack([np.bincount(index_R, weights=column) for column in influence_RE.T], axis=1)
    return sums_CE, counts_C


def _standard_error(
    total: np.ndarray,
    count: np.ndarray,
    squares: np.ndarray,
    cross: np.ndarray,
    count_squares: np.ndarray,
    clusters: int,
) -> np.ndarray:
    """Of a ratio of cluster sums: sqrt(C / (C - 1) * sum of (S - mean n)^2) / total n."""
    mean = total / count
    spread = squares - 2 * mean * cross + mean**2 * count_squares
    return np.sqrt(np.maximum(spread, 0.0) * clusters / (clusters - 1)) / count


def _student(mean_E: np.ndarray, error_E: np.ndarray, clusters: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy import stats  # a second to import, which those that only read results need not spend

    reach_E = stats.t.ppf(1 - tail, clusters - 1) * error_E
    return mean_E - reach_E, mean_E + reach_E


def _resampled(clusters: int, resamples: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn in each resample, [K, C]."""
    random = np.random.default_rng(seed)
    drawn_KC = np.empty((resamples, clusters), dtype=np.float64)
    chunk = max(1, _CELLS // clusters)
    for first in range(0, resamples, chunk):
        size = min(chunk, resamples - first)
        picked = random.integers(0, clusters, size=(size, clusters)) + np.arange(size)[:, None] * clusters
        drawn_KC[first : first + size] = np.bincount(picked.ravel(), minlength=size * clusters).reshape(size, clusters)
    return drawn_KC
