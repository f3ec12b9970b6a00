"""The scaling law of benchmarks/scaling_law.py on series whose law is planted, and what is claimed of each."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import curve_fit

from benchmarks.scaling import claims_of
from benchmarks.scaling_law import EXPONENT_LIMIT, FEWEST_POINTS, Law, fitted

X_P = np.array([500.0, 1000.0, 2000.0, 4000.0, 8000.0])
SEEDS, SPREAD = 3, 0.01
EXPONENT, FLOOR, SCALE = 0.5, 0.2, 0.5
TRIALS, COVERED = 40, 34
"""Of 40 intervals that hold with a chance of 0.95, fewer than 34 do in one case of 300 (binomial)."""


def planted(
    exponent: float, floor: float, scale: float, seed: int, x_P: np.ndarray = X_P, spread_P: np.ndarray | float = SPREAD
) -> np.ndarray:
    """regret_PS: the law and the seeds' spread; at the smallest x it is floor + scale."""
    noise_PS = np.random.default_rng(seed).normal(0.0, 1.0, (len(x_P), SEEDS)) * np.reshape(spread_P, (-1, 1))
    return floor + scale * (x_P / x_P[0])[:, None] ** -exponent + noise_PS


def claimed(law: Law) -> list[bool]:
    """Do they hold: the exponent, the prediction interval, nearer than the constant."""
    return [made["holds"] for made in claims_of([{"part": "size, r*", "fit": "x", **asdict(law)}])]


def test_without_noise_it_is_the_least_squares_of_scipy() -> None:
    regret_P = FLOOR + SCALE * (X_P / X_P[0]) ** -EXPONENT + np.array([0.01, -0.012, 0.008, -0.006, 0.004])
    expected, _ = curve_fit(lambda x, floor, scale, b: floor + scale * x**-b, X_P / X_P[0], regret_P, (0.1, 0.4, 0.4))
    law = fitted(X_P, np.repeat(regret_P[:, None], SEEDS, axis=1))
    assert (law.floor, law.exponent) == pytest.approx((expected[0], expected[2]), abs=1e-3)
    assert law.low == pytest.approx(law.exponent) == law.high  # seeds that agree leave nothing open


@pytest.mark.parametrize("exponent", [EXPONENT, 1.0])
def test_intervals_hold_the_planted_law_and_what_is_held_out(exponent: float) -> None:
    series = [planted(exponent, FLOOR, SCALE, seed) for seed in range(TRIALS)]
    laws = [fitted(X_P, regret_PS) for regret_PS in series]
    assert sum(law.low <= exponent <= law.high for law in laws) >= COVERED
    assert sum(law.predicted_low <= law.observed <= law.predicted_high for law in laws) >= COVERED
    assert np.median([law.exponent for law in laws]) == pytest.approx(exponent, abs=0.05)
    assert np.median([law.floor for law in laws]) == pytest.approx(FLOOR, abs=0.02)
    assert sum(all(claimed(law)) for law in laws) >= COVERED
    assert np.median([law.predicted_high - law.predicted_low for law in laws]) < 0.2 * SCALE  # it says something


def test_the_prediction_interval_has_the_spread_of_the_held_out_point_in_it() -> None:
    """However many points the law is known from, and be it by chance that its own seeds agree."""
    x_P = np.linspace(500.0, 4000.0, 60)
    spread_P = np.array([*[SPREAD] * (len(x_P) - 1), 0.0])
    law = fitted(x_P, planted(EXPONENT, FLOOR, SCALE, 0, x_P, spread_P))
    own = 2 * 1.96 * SPREAD / np.sqrt(SEEDS)
    assert 0.9 * own < law.predicted_high - law.predicted_low < 1.5 * own


def test_the_prediction_interval_holds_a_held_out_point_that_spreads_wider_than_the_others() -> None:
    spread_P = np.array([*[SPREAD / 3] * (len(X_P) - 1), 2 * SPREAD])
    laws = [fitted(X_P, planted(EXPONENT, FLOOR, SCALE, seed, spread_P=spread_P)) for seed in range(TRIALS)]
    assert sum(law.predicted_low <= law.observed <= law.predicted_high for law in laws) >= COVERED


def test_a_floor_is_not_taken_for_a_small_exponent() -> None:
    law = fitted(X_P, planted(1.0, 0.6, 0.2, seed=0))
    assert law.low < 1.0 < law.high and law.floor == pytest.approx(0.6, abs=0.03)


def test_no_floor_is_found_where_there_is_none() -> None:
    law = fitted(X_P, planted(EXPONENT, 0.0, SCALE, seed=0))
    assert law.floor < 0.05 and law.low < EXPONENT < law.high


def test_a_flat_series_has_no_exponent() -> None:
    laws = [fitted(X_P, planted(0.0, FLOOR, 0.0, seed)) for seed in range(TRIALS)]
    assert sum(not law.identified and law.low < 0.0 < law.high for law in laws) >= COVERED
    for law in laws:
        assert np.isnan(law.exponent) != law.identified
        assert law.identified or claimed(law)[::2] == [False, False]


def test_regret_that_grows_has_an_exponent_below_0_and_no_claim() -> None:
    law = fitted(X_P, planted(-EXPONENT, FLOOR, SCALE, seed=0))
    assert law.identified and law.low < -EXPONENT < law.high < 0.0
    assert not claimed(law)[0]


def test_a_step_has_no_exponent_either() -> None:
    """All that falls, falls at once: every exponent that is large enough is as good."""
    law = fitted(X_P, np.array([1.0, *[FLOOR] * 4])[:, None] + planted(0.0, 0.0, 0.0, seed=0))
    assert law.high == EXPONENT_LIMIT and not law.identified and np.isnan(law.exponent)


def test_a_last_point_that_breaks_the_law_fails_the_claims() -> None:
    regret_PS = planted(EXPONENT, FLOOR, SCALE, seed=0)
    law = fitted(X_P, regret_PS)
    assert claimed(law) == [True, True, True]
    regret_PS[-1] += regret_PS[-3].mean() - regret_PS[-1].mean()  # it fell no further, and spreads as before
    broken = fitted(X_P, regret_PS)
    for name in ("predicted", "predicted_low", "predicted_high", "constant"):  # the mean held out has no part in them
        assert getattr(broken, name) == pytest.approx(getattr(law, name))
    assert not claimed(broken)[1]
    regret_PS[-1] = regret_PS[:-1].mean()
    assert claimed(fitted(X_P, regret_PS))[1:] == [False, False]


def test_points_in_any_order_are_the_same_series() -> None:
    regret_PS = planted(EXPONENT, FLOOR, SCALE, seed=0)
    assert fitted(X_P[::-1], regret_PS[::-1]) == fitted(X_P, regret_PS)


@pytest.mark.parametrize(
    ("x_P", "seeds", "found"),
    [(X_P[: FEWEST_POINTS - 1], SEEDS, "3 points of 3 seeds"), (X_P, 1, "5 points of 1 seeds"), (X_P - 500.0, 3, "5")],
)
def test_a_series_that_tells_no_law_is_refused(x_P: np.ndarray, seeds: int, found: str) -> None:
    with pytest.raises(ValueError, match=f"{found}.*expected {FEWEST_POINTS} or more"):
        fitted(x_P, np.ones((len(x_P), seeds)))
