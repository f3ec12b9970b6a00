"""What an estimator may divide by: propensities that are probabilities, and rewards that are numbers.

A propensity of 0 says that what was logged cannot have happened; one above 1, or NaN, is no probability. An estimator
would turn each of them into a number that looks like an answer, so they are refused. Logs that have no propensities
at all are another matter: off-policy evaluation does not apply to them (goalrank.off_policy.result).

Legend: R requests (or logged rows), L positions of a list.
"""

from __future__ import annotations

import numpy as np

from goalrank.errors import DataRefused, UsageError


def require_propensities(propensity: np.ndarray, what: str = "propensities") -> np.ndarray:
    """The same array as float64.

    Args:
        propensity: of what was shown, any shape; of an item at its position given the items before it.
        what: how an error calls them.

    Raises:
        DataRefused: one is NaN, zero or negative, above 1, or there are none at all.
    """
    values = np.asarray(propensity, dtype=np.float64)
    if not values.size:
        raise DataRefused(f"no {what} found, expected one for each shown item; an estimate needs at least one request")
    faults = {
        "NaN or infinite": ~np.isfinite(values),
        "zero or negative": np.isfinite(values) & (values <= 0),
        "above 1": np.isfinite(values) & (values > 1),
    }
    found = []
    for name, wrong in faults.items():
        if wrong.any():
            first = np.unravel_index(int(np.argmax(wrong)), values.shape)
            place = ", ".join(str(int(index)) for index in first)
            found.append(f"{int(wrong.sum())} {name} (first at [{place}]: {values[first]:g})")
    if found:
        raise DataRefused(
            f"{what}: {'; '.join(found)} among {values.size}, expected probabilities in (0, 1]; log the probability "
            "the item had at its position given those before it, or null if it is unknown"
        )
    return values


def require_finite(values: np.ndarray, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """The same array as float64, of this shape.

    Raises:
        UsageError: another shape.
        DataRefused: one is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise UsageError(f"{what} of shape {array.shape} found, expected {shape}: one for each logged propensity")
    wrong = int(np.count_nonzero(~np.isfinite(array)))
    if wrong:
        raise DataRefused(
            f"{wrong} of {array.size} {what} are not finite; leave these requests out or mend their source"
        )
    return array


def require_probabilities(values: np.ndarray, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """As `require_finite`, and within 0..1: what a target policy gives to what was logged.

    Raises:
        UsageError: another shape, or not within 0..1.
        DataRefused: one is NaN or infinite.
    """
    array = require_finite(values, what, shape)
    if array.size and (array.min() < 0 or array.max() > 1 + 1e-9):
        raise UsageError(f"{what} between {array.min():g} and {array.max():g} found, expected probabilities in 0..1")
    return array
