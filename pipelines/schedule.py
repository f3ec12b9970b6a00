"""When the night runs on a cluster: a cron expression of six fields, checked before anything is submitted.

    second minute hour day-of-month month day-of-week      0 30 2 * * *   every day at 02:30:00

Kubeflow Pipelines counts seconds first. The five fields everybody knows are taken there without a word and mean
something else: `0 3 * * *` runs at second 0 of minute 3 of every hour, not at three in the morning. So five fields are
refused here, and so is whatever would start more than one night an hour.

The expression is read in the time zone of the cluster's scheduled-workflow controller (CRON_SCHEDULE_TIMEZONE, UTC
unless set); `time_zone` says which one that is, so that the next nights can be told in it. The controller's cron
library (robfig/cron 1.2) holds the fields against the zone's clock and knows nothing of daylight saving: a time that
the clock skips has no night that day, one that it repeats has two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from zoneinfo import ZoneInfo

from goalrank.errors import UsageError

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
FIELDS = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
)
"""Name, smallest and largest value, names of the values; after the cron library that Kubeflow Pipelines uses."""

FARTHEST_DAYS = 366 * 8
"""A schedule without a night in so many days (29 February needs eight years at worst) never has one."""

CHANGES_DAYS = 366
"""How far ahead changes of the clock are told."""

ALWAYS_ONCE = time(4, 30)
"""No zone's clock skips or repeats it: they are changed before."""

_PART = re.compile(r"(?P<range>\*|\?|[^-/]+(?:-[^-/]+)?)(?:/(?P<step>\d+))?")


@dataclass(frozen=True)
class Schedule:
    """A checked cron expression; `values` of each of FIELDS, and whether the two day fields are open (* or ?)."""

    cron: str
    time_zone: ZoneInfo
    values: tuple[frozenset[int], ...]
    open_days: tuple[bool, bool]

    @classmethod
    def parse(cls, cron: str, time_zone: str = "UTC") -> Schedule:
        """Check an expression and a time zone.

        Raises:
            UsageError: not six fields, a value out of range, more than one night an hour, never a night, or no such
                time zone; nothing was submitted.
        """
        fields = cron.split()
        if len(fields) != len(FIELDS):
            raise UsageError(_wrong_number(cron, fields))
        values = tuple(_values(text, *field) for text, field in zip(fields, FIELDS, strict=True))
        for index in (0, 1):
            if len(values[index]) > 1:
                raise UsageError(
                    f"cron {cron!r} has {len(values[index])} {FIELDS[index][0]}s ({fields[index]}), expected one: a "
                    "night takes longer than that; for three in the morning write 0 0 3 * * *"
                )
        try:
            zone = ZoneInfo(time_zone)
        except (KeyError, OSError, ValueError) as error:
            raise UsageError(f"time zone {time_zone!r} found, expected a name such as Europe/Berlin") from error
        schedule = cls(" ".join(fields), zone, values, (fields[3] in "*?", fields[5] in "*?"))
        if schedule.next_after(datetime(2024, 1, 1, tzinfo=zone)) is None:
            raise UsageError(f"cron {cron!r} never comes: no month has that day; mend day of month or month")
        return schedule

    def next_after(self, moment: datetime) -> datetime | None:
        """The first night after a moment, in the schedule's time zone; None if there is none in eight years.

        Wall-clock times that do not exist are left out, and those that come twice are two nights.
        """
        begin = moment.astimezone(self.time_zone).date()
        for ahead in range(FARTHEST_DAYS):
            day = begin + timedelta(days=ahead)
            if self._on(day):
                for at in sorted(at for clock in self._clocks() for at in self._moments(day, clock)):
                    if at > moment:
                        return at.astimezone(self.time_zone)
        return None

    def clock_changes(self, moment: datetime) -> tuple[list[datetime], list[datetime]]:
        """Wall-clock times of nights within CHANGES_DAYS of a moment that are skipped, and those that come twice."""
        begin = moment.astimezone(self.time_zone).date()
        skipped: list[datetime] = []
        twice: list[datetime] = []
        for day in (begin + timedelta(days=ahead) for ahead in range(CHANGES_DAYS)):
            if self._on(day):
                for clock in self._clocks():
                    times = len(self._moments(day, clock))
                    if times != 1:
                        (twice if times else skipped).append(datetime.combine(day, clock))
        return skipped, twice

    def _clocks(self) -> list[time]:
        in_order = product(*(sorted(self.values[index]) for index in (2, 1, 0)))
        return [time(hour, minute, second) for hour, minute, second in in_order]

    def _moments(self, day: date, clock: time) -> list[datetime]:
        """When the zone's clock shows that time on that day, in UTC: once, never or twice."""
        shown = datetime.combine(day, clock)
        found = {shown.replace(tzinfo=self.time_zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        # Of a time that does not exist, Python makes one that the clock shows otherwise.
        return sorted(at for at in found if at.astimezone(self.time_zone).replace(tzinfo=None) == shown)

    def _on(self, day: date) -> bool:
        """Both day fields must fit if one is open, either if both are given: cron's own rule."""
        in_month, in_week = day.day in self.values[3], day.isoweekday() % 7 in self.values[5]
        fits = in_month and in_week if any(self.open_days) else in_month or in_week
        return fits and day.month in self.values[4]


def warning_of_clock_changes(schedule: Schedule, moment: datetime) -> str:
    """One line where the zone's clock skips or repeats a night within a year; else empty."""
    skipped, twice = schedule.clock_changes(moment)
    told = [
        f"{each} on {' and '.join(f'{at:%Y-%m-%d at %H:%M}' for at in times)}"
        for each, times in (("skips a night", skipped), ("may run one twice", twice))
        if times
    ]
    if not told:
        return ""
    return (
        f"Warning: when the clock of {schedule.time_zone.key} is changed, this schedule {' and '.join(told)}; an hour "
        f"that is never skipped or repeated, such as {ALWAYS_ONCE:%H:%M}, avoids it."
    )


def _wrong_number(cron: str, fields: list[str]) -> str:
    expected = "second minute hour day-of-month month day-of-week, such as 0 30 2 * * * for 02:30 every day"
    found = f"cron {cron!r} has {len(fields)} field{'' if len(fields) == 1 else 's'}, expected six: {expected}"
    if len(fields) == len(FIELDS) - 1:
        return f"{found}. Kubeflow Pipelines counts seconds first: did you mean {'0 ' + ' '.join(fields)!r}?"
    return found


def _values(text: str, name: str, smallest: int, largest: int, names: Sequence[str]) -> frozenset[int]:
    """The values that one field stands for."""
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise UsageError(f"cron {name} {text!r} found, expected *, values, ranges a-b, steps */n, with commas")
        first, _, last = match["range"].partition("-")
        step = int(match["step"] or 1)
        if first in ("*", "?"):
            begin, end = smallest, largest
        else:
            begin = _value(first, name, smallest, largest, names)
            # A step without an end goes on to the largest value.
            end = _value(last, name, smallest, largest, names) if last else largest if match["step"] else begin
        if step < 1 or begin > end:
            raise UsageError(f"cron {name} {part!r} found, expected a step of at least 1 and a range that goes up")
        found.update(range(begin, end + 1, step))
    return frozenset(found)


def _value(text: str, name: str, smallest: int, largest: int, names: Sequence[str]) -> int:
    if text.upper() in names:
        return smallest + list(names).index(text.upper())
    if not re.fullmatch(r"\d{1,2}", text, re.ASCII) or not smallest <= int(text) <= largest:
        known = f", or {names[0]} to {names[-1]}" if names else ""
        raise UsageError(f"cron {name} {text!r} found, expected {smallest} to {largest}{known}")
    return int(text)
