"""Columns of text as the values of the data contract, a batch at a time; what is no such value is told, not guessed.

Each function takes one column of strings and returns the values and which of them could not be read (``bad_R``, True
where the value at that place means nothing). Legend: R rows of a batch.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from goalrank.rating_files import EARLIEST_SECOND, LATEST_SECOND

Bad = npt.NDArray[np.bool_]

YES, NO = ("1", "true", "t", "yes", "y"), ("0", "false", "f", "no", "n", "")
NOTHING = ("nan", "null", "none", "\\n", "na")
"""What programs write into an optional column where there is nothing, in any case."""

TIME = "a time such as 2026-01-31T20:15:00Z, or seconds, milliseconds or microseconds since 1970, from 1990 to 2100"
FLAG = "0 or 1, true or false, yes or no, a count, or nothing"
WHOLE = "a whole number from 0 up"
SECONDS = "a number of at least 0, or nothing"
PROBABILITY = "a probability above 0, 1 at most, or nothing"

_SECOND = 1_000_000
_WITH_ZONE = r"(?:[zZ]|[+-][0-9]{2}:?[0-9]{2})$"


def stripped(column: pa.Array) -> pa.Array:
    """Without white space at both ends."""
    return pc.utf8_trim_whitespace(column)


def optional(column: pa.Array) -> pa.Array:
    """A column in which nothing may stand: "" where one of NOTHING does."""
    return pc.if_else(pc.is_in(pc.utf8_lower(column), pa.array(NOTHING)), "", column)


def numbers(column: pa.Array) -> tuple[npt.NDArray[np.float64], Bad]:
    """Floats; NaN where nothing stands, which is not bad."""
    empty = pc.equal(column, "")
    values = pc.if_else(empty, pa.scalar(None, pa.string()), column)
    try:
        read = values.cast(pa.float64())
    except pa.ArrowInvalid:  # one of them is no number: the slow way finds out which
        read = pa.array([number(value) for value in values.to_pylist()], pa.float64())
    value_R = read.to_numpy(zero_copy_only=False)
    bad_R = (np.isnan(value_R) | np.isinf(value_R)) & ~empty.to_numpy(zero_copy_only=False)
    return value_R, bad_R


def number(text: str | None) -> float | None:
    """One text as a float; None where it is none."""
    try:
        return None if text is None or "_" in text else float(text)
    except ValueError:
        return None


def whole_numbers(column: pa.Array) -> tuple[npt.NDArray[np.int64], Bad]:
    """Integers from 0 up; `3.0` is one."""
    value_R, bad_R = numbers(column)
    bad_R = bad_R | ~((value_R >= 0) & (value_R <= np.iinfo(np.int32).max) & (value_R == np.floor(value_R)))
    return np.where(bad_R, 0, value_R).astype(np.int64), bad_R


def flags(column: pa.Array) -> tuple[npt.NDArray[np.int8], Bad]:
    """0 and 1: words for yes and no, nothing (no), and counts (anything above 0 is yes)."""
    words = pc.utf8_lower(column)
    yes_R, no_R = (pc.is_in(words, pa.array(known)).to_numpy(zero_copy_only=False) for known in (YES, NO))
    rest = np.flatnonzero(~(yes_R | no_R))
    bad_R = np.zeros(len(words), dtype=bool)
    if len(rest):
        count_S, bad_R[rest] = whole_numbers(words.take(pa.array(rest)))
        yes_R[rest] = count_S > 0
    return yes_R.astype(np.int8), bad_R


def amounts(column: pa.Array, most: float = np.inf, above_zero: bool = False) -> tuple[npt.NDArray[np.float64], Bad]:
    """Floats from 0 (or above it) to `most`, NaN where nothing stands."""
    value_R, bad_R = numbers(column)
    outside_R = (value_R < 0) | (value_R > most) | ((value_R == 0) & above_zero)
    return value_R, bad_R | outside_R


def times(column: pa.Array, time_zone: str) -> tuple[npt.NDArray[np.int64], Bad]:
    """Microseconds since 1970 UTC. Times without a zone are of `time_zone`; numbers tell their unit by their size."""
    numeric_R = pc.match_substring_regex(column, r"^[0-9]+(?:\.[0-9]+)?$").to_numpy(zero_copy_only=False)
    micro_R = np.zeros(len(column), dtype=np.int64)
    bad_R = np.zeros(len(column), dtype=bool)
    for chosen_R, read in ((numeric_R, _epochs), (~numeric_R, lambda part: _dates(part, time_zone))):
        rows = np.flatnonzero(chosen_R)
        if len(rows):
            micro_R[rows], bad_R[rows] = read(column.take(pa.array(rows)))
    return micro_R, bad_R | (micro_R < EARLIEST_SECOND * _SECOND) | (micro_R > LATEST_SECOND * _SECOND)


def _epochs(column: pa.Array) -> tuple[npt.NDArray[np.int64], Bad]:
    value_R, bad_R = numbers(column)
    unit_R = np.select([value_R <= LATEST_SECOND, value_R <= LATEST_SECOND * 1e3], [1e6, 1e3], 1.0)
    micro_R = np.minimum(np.where(bad_R, 0.0, value_R * unit_R), 9e18)
    return np.round(micro_R).astype(np.int64), bad_R


def _dates(column: pa.Array, time_zone: str) -> tuple[npt.NDArray[np.int64], Bad]:
    zoned = pc.match_substring_regex(column, _WITH_ZONE)
    if pc.all(zoned).as_py():
        kind: pa.DataType | None = pa.timestamp("us", tz="UTC")
    elif not pc.any(zoned).as_py():
        kind = pa.timestamp("us")
    else:
        kind = None
    try:
        if kind is None:
            raise pa.ArrowInvalid("some with a zone, some without")
        read = column.cast(kind)
        if kind.tz is None:
            read = pc.assume_timezone(read, time_zone, ambiguous="earliest", nonexistent="earliest")
    except pa.ArrowInvalid:
        zone = ZoneInfo(time_zone)
        read = pa.array([_date(value, zone) for value in column.to_pylist()], pa.timestamp("us", tz="UTC"))
    bad_R = pc.is_null(read).to_numpy(zero_copy_only=False)
    return pc.fill_null(read.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), bad_R


def _date(text: str, zone: tzinfo) -> datetime | None:
    try:
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
