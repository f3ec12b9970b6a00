"""How many rows a day usually has: the median of the trailing days, or the same weekday a week before.

A weekly season must not look like a fault, so a day is held against whichever of these is nearer to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import timedelta
from statistics import median

TRAILING_DAYS = 14
"""How far back the median looks: two of each weekday."""

FEWEST_TRAILING_DAYS = 3
"""With fewer known days than this there is no usual volume, and the day is not judged."""

WEEK = 7


@dataclass(frozen=True)
class Volume:
    """A day's rows beside the usual; `usual` and `factor` are None where too few days before it are known."""

    rows: int
    days: int
    usual: float | None
    factor: float | None

    @property
    def either_way(self) -> float | None:
        """The factor as one number of at least 1, more rows or fewer."""
        if self.factor is None:
            return None
        return math.inf if self.factor == 0 else max(self.factor, 1 / self.factor)


def against_usual(rows_of_day: Mapping[str, int], dt: str) -> Volume:
    """Hold the rows of `dt` against those of the TRAILING_DAYS before it.

    Args:
        rows_of_day: arrival day (YYYY-MM-DD) -> rows, `dt` among them; days without rows (skipped ones) do not count.
    """
    rows = rows_of_day[dt]
    known = {day: rows_of_day[day] for day in trailing(rows_of_day, dt) if rows_of_day[day] > 0}
    if len(known) < FEWEST_TRAILING_DAYS:
        return Volume(rows, len(known), None, None)
    usuals = [float(median(known.values()))]
    usuals += [float(known[day]) for day in (_back(dt, WEEK), _back(dt, 2 * WEEK)) if day in known]
    usual = min(usuals, key=lambda count: abs(math.log(max(rows, 0.5) / count)))
    return Volume(rows, len(known), usual, rows / usual)


def trailing(days: Iterable[str], dt: str) -> list[str]:
    """Those of the arrival days that lie in the TRAILING_DAYS before `dt`."""
    return [day for day in days if _back(dt, TRAILING_DAYS) <= day < dt]


def _back(dt: str, days: int) -> str:
    return (calendar_date.fromisoformat(dt) - timedelta(days=days)).isoformat()
