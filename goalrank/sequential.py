"""Statistics that stay valid however often they are looked at: the A/B test's and the watch's.

An interval of fixed sample size holds at one look planned in advance; looked at daily until it excludes 0, it does so
for equal arms far more often than alpha. A confidence sequence holds at all looks at once.

lift: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals of Statistics
52(6), 2024, "Time-uniform central limit theory and asymptotic confidence sequences", section 2: the Gaussian mixture
boundary of Robbins with the estimated variance). Its promise is asymptotic: it holds as the first look moves to larger
samples, hence MINIMUM_UNITS.

sample_ratio: the Dirichlet-multinomial Bayes factor of Lindon and Malek (NeurIPS 2022, "Anytime-valid inference for
multinomial count data"), exact at every sample size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from goalrank.errors import DataRefused, UsageError

MINIMUM_UNITS = 50
"""Units each arm needs; with fewer the interval is infinite, since the central limit theorem has not set in."""

TUNED_FOR = 1_000
"""Units in both arms together at which the interval is narrowest (rho by the paper's approximation). It is valid
everywhere: at ten times as many 7% wider than one tuned for that, at a tenth 27% (alpha 0.05)."""

CONCENTRATION = 1_000.0
"""Of the Dirichlet prior around the planned shares: the test is quickest for splits that are off by about
sqrt(share * (1 - share) / 1000), that is 1.6 points of an even one."""


@dataclass(frozen=True)
class Lift:
    """What the treatment's mean is above the control's, with its anytime-valid interval."""

    mean: float
    low: float
    high: float
    treatment_n: int
    control_n: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class SampleRatio:
    """Whether units came to the arms in the planned shares."""

    p_value: float
    passed: bool


def lift(
    treatment: np.ndarray,
    control: np.ndarray,
    alpha: float = 0.05,
    *,
    tuned_for: float = TUNED_FOR,
    unit_variance: float | None = None,
) -> Lift:
    """Difference of the means of two independent arms, with an interval that covers at all looks with 1 - alpha.

    The boundary at effective size n is sigma sqrt(2 (n rho^2 + 1) / (n rho)^2 log(sqrt(n rho^2 + 1) / alpha)), with
    sigma^2 / n the estimated variance of the difference. There are two kinds of effective size:

    - by default n counts the units of both arms. Right where a unit's value is final when it enters.
    - with `unit_variance` n = 4 unit_variance / variance of the difference. Right where later looks also see more of
      the same units (a user's mean over the days so far): what was learnt then counts, not how many units there are.
      Give the same figure at every look: the variance of one unit's value at the first.

    Args:
        treatment: one value a unit (a user), any order.
        control: the same of the other arm.
        alpha: chance that any look, ever, has an interval without the true difference.
        tuned_for: effective size at which the interval is narrowest; choose it before looking.
        unit_variance: see above; more than 0.

    Raises:
        DataRefused: an arm is empty, a value is not finite, or all values of both arms are equal, so that the data say
            nothing about their own spread.
        UsageError: alpha, tuned_for or unit_variance is out of range.
    """
    _check_level(alpha)
    if not 0 < tuned_for < math.inf:
        raise UsageError(f"tuned_for {tuned_for} found, expected a positive number of units")
    if unit_variance is not None and not 0 < unit_variance < math.inf:
        raise UsageError(f"unit_variance {unit_variance} found, expected a positive number")
    arms = {"treatment": _values("treatment", treatment), "control": _values("control", control)}
    counts = {name: len(values) for name, values in arms.items()}
    mean = float(arms["treatment"].mean() - arms["control"].mean())
    if min(counts.values()) < MINIMUM_UNITS:
        return Lift(mean, -math.inf, math.inf, counts["treatment"], counts["control"])
    variance = sum(float(values.var(ddof=1)) / len(values) for values in arms.values())
    if variance <= 0:
        raise DataRefused(
            f"all {counts['treatment']} treatment values equal {arms['treatment'][0]:g} and all {counts['control']} "
            f"control values {arms['control'][0]:g}, expected values that differ between units; wait for more feedback"
        )
    size = float(sum(counts.values())) if unit_variance is None else 4 * unit_variance / variance
    radius = math.sqrt(variance) * _boundary(size, tuned_for, alpha)
    return Lift(mean, mean - radius, mean + radius, counts["treatment"], counts["control"])


def sample_ratio(
    counts: Mapping[str, int],
    shares: Mapping[str, float],
    alpha: float = 0.05,
    *,
    concentration: float = CONCENTRATION,
) -> SampleRatio:
    """Test that units came to the arms in these shares; valid when it is asked again after every unit.

    The p-value is 1 / e of the counts so far, e the Bayes factor of "some shares, Dirichlet around the plan" over "the
    planned shares" (the paper's test of a multinomial hypothesis). By Ville's inequality the chance that it ever is
    alpha or less is at most alpha where the plan holds. It can rise again; a running minimum over the looks is valid
    too.

    Args:
        counts: units seen by each arm so far, each unit counted once.
        shares: of the traffic, by the same names; they sum to 1.
        alpha: `passed` is False where the p-value is this or less.
        concentration: see CONCENTRATION.

    Raises:
        DataRefused: counts and shares name other arms, or a count is no whole number of at least 0.
        UsageError: fewer than two arms, shares that are not positive or do not sum to 1, or alpha out of range.
    """
    _check_level(alpha)
    share_A = np.array(list(shares.values()), dtype=np.float64)
    if len(share_A) < 2 or not (share_A > 0).all() or not math.isclose(share_A.sum(), 1.0, abs_tol=1e-9):
        raise UsageError(f"shares {dict(shares)} found, expected two or more positive shares that sum to 1")
    if set(counts) != set(shares):
        raise DataRefused(f"counts of {sorted(counts)} found, expected counts of {sorted(shares)}")
    count_A = np.array([counts[name] for name in shares], dtype=np.float64)
    if not (np.isfinite(count_A) & (count_A >= 0) & (count_A == np.floor(count_A))).all():
        raise DataRefused(f"counts {dict(counts)} found, expected whole numbers of at least 0")
    prior_A = concentration * share_A
    log_e = (
        gammaln(prior_A.sum())
        - gammaln(prior_A.sum() + count_A.sum())
        + (gammaln(prior_A + count_A) - gammaln(prior_A) - count_A * np.log(share_A)).sum()
    )
    p_value = min(1.0, math.exp(-max(float(log_e), 0.0)))
    return SampleRatio(p_value=p_value, passed=p_value > alpha)


def _boundary(size: float, tuned_for: float, alpha: float) -> float:
    """How many standard errors the interval reaches at an effective size; 3.0 at the best for alpha 0.05."""
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tuned_for
    x = size * rho2
    return math.sqrt(2 * (x + 1) / x * math.log(math.sqrt(x + 1) / alpha))


def _check_level(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha} found, expected a number between 0 and 1, such as 0.05")


def _values(arm: str, values: np.ndarray) -> np.ndarray:
    """One finite float a unit."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise DataRefused(f"{arm} has shape {array.shape}, expected one value a unit and at least one unit")
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise DataRefused(f"{wrong} of {len(array)} {arm} values are not finite; look for broken feedback")
    return array
