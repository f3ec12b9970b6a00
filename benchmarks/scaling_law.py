"""The law of benchmarks/scaling.py: fitted to the points of a series, and held against the last one.

    regret(x) = floor + scale * x^-b        floor >= 0, scale >= 0

by least squares over the points' means: for every b of a grid the other two in closed form, the grid refined around the
best. Without a floor a regret that levels off, at the reward model's error say, would pass for a small exponent.

Intervals are a bootstrap over seeds: residuals within the points, pooled (three seeds of one point tell too little of
their own spread), widened by the root of S / (S - 1) and as Student's t is wider than the normal distribution. A seed
is taken to err at each point anew; what it does alike at all points, its guide's error, only makes them wider than they
need be. They hold what other seeds would have changed, not that the law may be no law. In trials with planted laws (5
points, 3 seeds, a spread that is the same at all points) 95 of 100 hold the exponent, where there is no floor about 90:
it is not fitted below 0, so the exponent errs upwards.

The held-out point errs by the others' residuals or by its own, whichever are wider: the largest of a series may spread
as none before it. In such trials that holds it 99 times of 100, more than the 95 asked for, since three seeds tell
little of their own spread; where it spreads almost seven times as wide as the others 97 times (their residuals alone
would hold it 46 times). The exponent's interval takes all points to spread alike.

Shapes: P points, S seeds, D draws of the bootstrap, E exponents tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

DRAWS = 2000
FEWEST_POINTS = 4
"""Three parameters take three points, and one is held out."""
EXPONENT_LIMIT = 3.0
"""Exponents are looked for up to here, either way: x^-3 over a series' whole range is as good as a step."""
_STEP, _REFINEMENTS, _FINER = 0.05, 2, 10


@dataclass(frozen=True)
class Law:
    """What was fitted to all points, and what a fit without the last one says of it, but for that point's spread."""

    exponent: float  # b; NaN where it is not identified
    low: float  # of its 95% interval
    high: float
    identified: bool  # the interval lies on one side of 0 and within EXPONENT_LIMIT
    floor: float
    predicted: float  # at the largest x, from the others
    predicted_low: float  # of its 95% prediction interval
    predicted_high: float
    constant: float  # the mean of the others: what one says who knows no law
    observed: float


def fitted(x_P: np.ndarray, regret_PS: np.ndarray, seed: int = 0) -> Law:
    """The law through all points (its exponent and floor), and through all but the largest x (its prediction).

    Raises:
        ValueError: an x is not positive, fewer than FEWEST_POINTS points, or fewer than two seeds.
    """
    points, seeds = regret_PS.shape
    if points < FEWEST_POINTS or seeds < 2 or (x_P <= 0).any():
        raise ValueError(
            f"{points} points of {seeds} seeds found, expected {FEWEST_POINTS} or more, of two or more, with positive x"
        )
    order_P = np.argsort(x_P)
    log_x_P, regret_PS = np.log(x_P[order_P].astype(float)), regret_PS[order_P]
    chance = np.random.default_rng(seed)
    exponent_D, floor_D, _ = _least_squares(log_x_P, _drawn(regret_PS, chance))
    low, high = np.percentile(exponent_D[1:], [2.5, 97.5])
    identified = bool((low > 0.0 or high < 0.0) and max(abs(low), abs(high)) < EXPONENT_LIMIT)

    others_PS, others_P = regret_PS[:-1], log_x_P[:-1]
    held_exponent_D, held_floor_D, held_scale_D = _least_squares(others_P, _drawn(others_PS, chance))
    predicted_D = held_floor_D + held_scale_D * np.exp(-held_exponent_D * (log_x_P[-1] - others_P.mean()))
    # Of the held-out point's own mean.
    wider = max(_residuals(others_PS), _residuals(regret_PS[-1:]), key=np.std)
    error_D = chance.choice(wider, (DRAWS, seeds)).mean(axis=1)
    predicted_low, predicted_high = np.percentile(predicted_D[1:] + error_D, [2.5, 97.5])
    return Law(
        exponent=float(exponent_D[0]) if identified else float("nan"),
        low=float(low),
        high=float(high),
        identified=identified,
        floor=float(floor_D[0]),
        predicted=float(predicted_D[0]),
        predicted_low=float(predicted_low),
        predicted_high=float(predicted_high),
        constant=float(others_PS.mean()),
        observed=float(regret_PS[-1].mean()),
    )


def _residuals(regret_PS: np.ndarray) -> np.ndarray:
    """Of all seeds from their points' means, as wide as the errors they stand for."""
    points, seeds = regret_PS.shape
    wider = stats.t.ppf(0.975, points * (seeds - 1)) / stats.norm.ppf(0.975)
    return ((regret_PS - regret_PS.mean(axis=1, keepdims=True)) * wider * np.sqrt(seeds / (seeds - 1))).ravel()


def _drawn(regret_PS: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Points' means [1 + D, P]: the first row as they are, then as other seeds might have made them."""
    mean_P = regret_PS.mean(axis=1)
    drawn_DPS = chance.choice(_residuals(regret_PS), (DRAWS, *regret_PS.shape))
    return np.concatenate([mean_P[None], mean_P + drawn_DPS.mean(axis=2)])


def _least_squares(log_x_P: np.ndarray, y_DP: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exponent, floor and scale of each row; the scale is that of x over the geometric mean of the points' x."""
    steps = round(EXPONENT_LIMIT / _STEP)
    tried_DE = np.broadcast_to(np.arange(-steps, steps + 1) * _STEP, (len(y_DP), 2 * steps + 1))
    step, row_D = _STEP, np.arange(len(y_DP))
    for remaining in range(_REFINEMENTS, -1, -1):
        error_DE, floor_DE, scale_DE = _given_exponents(log_x_P, y_DP, tried_DE)
        best_D = error_DE.argmin(axis=1)
        exponent_D, floor_D, scale_D = (of_DE[row_D, best_D] for of_DE in (tried_DE, floor_DE, scale_DE))
        if remaining:
            step /= _FINER
            around_DE = exponent_D[:, None] + step * np.arange(-_FINER, _FINER + 1)
            tried_DE = np.clip(around_DE, -EXPONENT_LIMIT, EXPONENT_LIMIT)
    return np.where(scale_D > 0.0, exponent_D, 0.0), floor_D, scale_D  # without a scale every exponent is as good


def _given_exponents(
    log_x_P: np.ndarray, y_DP: np.ndarray, exponent_DE: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum of squares, floor and scale, neither below 0, for each exponent of each row."""
    shape_DEP = np.exp(-exponent_DE[..., None] * (log_x_P - log_x_P.mean()))
    mean_DE, level_D1 = shape_DEP.mean(axis=2), y_DP.mean(axis=1)[:, None]
    centred_DEP = shape_DEP - mean_DE[..., None]
    variance_DE = (centred_DEP**2).sum(axis=2)
    product_DE = np.einsum("dep,dp->de", centred_DEP, y_DP)
    slope_DE = np.divide(product_DE, variance_DE, out=np.zeros_like(product_DE), where=variance_DE > 0.0)
    scale_DE = slope_DE.clip(min=0.0)
    floor_DE = level_D1 - scale_DE * mean_DE
    through_0_DE = np.einsum("dep,dp->de", shape_DEP, y_DP).clip(min=0.0) / (shape_DEP**2).sum(axis=2)
    scale_DE = np.where(floor_DE < 0.0, through_0_DE, scale_DE)
    floor_DE = floor_DE.clip(min=0.0)
    error_DEP = y_DP[:, None] - floor_DE[..., None] - scale_DE[..., None] * shape_DEP
    return (error_DEP**2).sum(axis=2), floor_DE, scale_DE
