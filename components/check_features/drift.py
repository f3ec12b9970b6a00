"""How far tonight's features and feedback have moved since the last good snapshot.

The population stability index (PSI) decides, SciPy's Wasserstein distance is told beside it: in standard deviations of
the earlier values, so that a person reads how far a column moved. PSI because its limits are published and its
distribution without a change is known: a distance alone does not say how much of it is noise, and a test such as
Kolmogorov-Smirnov's rejects any change at all once there are rows enough.

PSI = sum over bins of (q - p) ln(q / p), p the earlier shares, q tonight's: the symmetrised Kullback-Leibler divergence
(Jeffreys 1946), known by this name from credit scoring (Siddiqi, "Credit Risk Scorecards", 2006). Bins are bounded by
the deciles of the earlier values; a decile's own value is a bin (counts pile up at few values), and so are nulls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import rel_entr
from scipy.stats import chi2, wasserstein_distance

from components.gate_limits import PSI

NOISE_QUANTILE = 0.999
"""Where nothing has changed, PSI / (1/n + 1/m) follows chi-square with bins - 1 degrees of freedom (Yurdakul & Naranjo,
Journal of Risk Model Validation, 2020). No limit lies below this quantile of it: small nights are noisy."""

SAME_RATE = 1.25
"""Rates of few rows scatter more than rates of many, so a change of volume alone widens or narrows their distribution.
While the pooled rate (all parts by all wholes) has moved by less than this factor, a shift of a rate is only reported:
a changed unit or a broken join moves it by far more."""

BINS = 10


@dataclass(frozen=True)
class Column:
    """Values of one column (float, NaN for null).

    Attributes:
        values: one a row.
        volume: the column counts traffic, which may change from day to day: its shifts are reported, never refused.
        pooled: of a rate, the sum of its parts by the sum of its wholes; None for any other column.
    """

    values: np.ndarray
    volume: bool = False
    pooled: float | None = None


@dataclass(frozen=True)
class Shift:
    """PSI between two samples, and how many bins it was taken over."""

    psi: float
    bins: int


def population_stability(earlier: np.ndarray, tonight: np.ndarray) -> Shift:
    """PSI of two samples of one column, shape (n,) and (m,), NaN for null. Empty bins count half a row.

    Raises:
        ValueError: a sample is empty.
    """
    if not len(earlier) or not len(tonight):
        raise ValueError(f"{len(earlier)} earlier and {len(tonight)} rows of tonight found, expected at least one each")
    known = earlier[~np.isnan(earlier)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.empty(0)
    counts = np.stack([_histogram(sample, edges) for sample in (earlier, tonight)])
    used = counts.sum(axis=0) > 0
    filled = np.maximum(counts[:, used], 0.5)
    p, q = filled / filled.sum(axis=1, keepdims=True)
    return Shift(float((rel_entr(p, q) + rel_entr(q, p)).sum()), int(used.sum()))


def _histogram(sample: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts of a sample below, at and between the edges and above them, then of NaN; shape (2 edges + 2,)."""
    between = np.searchsorted(edges, sample, side="left") + np.searchsorted(edges, sample, side="right")
    bins = np.where(np.isnan(sample), 2 * len(edges) + 1, between)
    return np.bincount(bins, minlength=2 * len(edges) + 2).astype(float)


def moved(earlier: np.ndarray, tonight: np.ndarray) -> float:
    """Wasserstein distance of the known values in standard deviations of the earlier ones.

    Infinite where the earlier values were all the same and tonight's are not; 0 where a side has no value.
    """
    before, now = earlier[~np.isnan(earlier)], tonight[~np.isnan(tonight)]
    if not len(before) or not len(now):
        return 0.0
    distance, scale = float(wasserstein_distance(before, now)), float(before.std())
    return distance / scale if scale > 0 else (np.inf if distance > 0 else 0.0)


def compare(earlier: dict[str, Column], tonight: dict[str, Column], accepted: bool = False) -> pd.DataFrame:
    """One row a column with values on both sides: rows and medians before and tonight, moved_by, psi, the two limits.

    A column without any is not judged: `without_values` names it.

    The critical limit is infinite where a shift says nothing of what the data mean, or the day was `accepted` as it is.
    """
    rows = []
    for column in tonight:
        before, now = earlier[column].values, tonight[column].values
        if _lacks_values(earlier[column], tonight[column]):
            continue
        shift = population_stability(before, now)
        refusable = not accepted and _can_refuse(earlier[column], tonight[column])
        noise = chi2.ppf(NOISE_QUANTILE, max(shift.bins - 1, 1)) * (1 / len(before) + 1 / len(now))
        rows.append(
            {
                "column": column,
                "rows_before": len(before),
                "rows_tonight": len(now),
                "median_before": float(np.nanmedian(before)) if not np.isnan(before).all() else None,
                "median_tonight": float(np.nanmedian(now)) if not np.isnan(now).all() else None,
                "moved_by": round(moved(before, now), 3),
                "psi": shift.psi,
                "warning_limit": max(PSI.warning or 0.0, noise),
                "critical_limit": max(PSI.critical or np.inf, noise) if refusable else np.inf,
            }
        )
    return pd.DataFrame(rows)


def as_rows(shifts: pd.DataFrame) -> list[dict[str, Any]]:
    """What `compare` found as plain objects; None where a limit is infinite or a number is not known."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in shifts.astype(object).to_dict("records")
    ]


def without_values(earlier: dict[str, Column], tonight: dict[str, Column]) -> list[str]:
    """The columns that cannot be compared, each with the side that has no value."""
    return [
        f"{column} (no value {_lacks_values(earlier[column], tonight[column])})"
        for column in tonight
        if _lacks_values(earlier[column], tonight[column])
    ]


def _lacks_values(before: Column, now: Column) -> str:
    """Which side has no value; '' if both have."""
    return " and ".join(side for side, one in (("before", before), ("tonight", now)) if not len(one.values))


def _can_refuse(before: Column, now: Column) -> bool:
    if now.volume:
        return False
    if before.pooled is None or now.pooled is None:
        return True
    least, most = sorted((before.pooled, now.pooled))
    return most > SAME_RATE * least
