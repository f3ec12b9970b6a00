"""What a day's usual volume is, and that the limits' table in the documents is the one in the code."""

from __future__ import annotations

import math
from datetime import date, timedelta
from pathlib import Path

import pytest

from components.gate_limits import LIMITS, VOLUME, documented
from components.trailing_volume import FEWEST_TRAILING_DAYS, TRAILING_DAYS, against_usual

DAY = "2026-02-28"


def back(days: int) -> str:
    return (date.fromisoformat(DAY) - timedelta(days=days)).isoformat()


def days_before(*rows: int, today: int) -> dict[str, int]:
    """Rows of the days before DAY, the newest first, and of DAY."""
    return {DAY: today, **{back(number): count for number, count in enumerate(rows, start=1)}}


def test_the_median_of_the_trailing_days() -> None:
    volume = against_usual(days_before(90, 110, 100, today=50), DAY)
    assert (volume.usual, volume.factor, volume.days) == (100, 0.5, 3)
    assert volume.either_way == 2


def test_one_outlier_among_them_changes_nothing() -> None:
    assert against_usual(days_before(100, 100, 5000, 100, today=100), DAY).factor == 1


def test_a_weekly_season_is_no_fault() -> None:
    """Weekends at a twentieth of the weekdays: every day of a month is usual."""
    rows = {back(number): (100 if date.fromisoformat(back(number)).weekday() > 4 else 2000) for number in range(40)}
    judged = [against_usual(rows, back(number)) for number in range(25)]
    assert max(volume.either_way or math.inf for volume in judged) < (VOLUME.warning or 0)


def test_a_lost_weekday_is_a_fault_in_a_weekly_season_too() -> None:
    rows = {back(number): (100 if date.fromisoformat(back(number)).weekday() > 4 else 2000) for number in range(40)}
    weekday = next(back(n) for n in range(9) if date.fromisoformat(back(n)).weekday() == 2)
    assert (against_usual(rows | {weekday: 150}, weekday).either_way or 0) > (VOLUME.critical or 0)


@pytest.mark.parametrize("known", range(FEWEST_TRAILING_DAYS))
def test_too_few_days_are_not_judged(known: int) -> None:
    volume = against_usual(days_before(*[100] * known, today=1), DAY)
    assert volume.factor is volume.usual is volume.either_way is None and volume.days == known


def test_days_without_rows_and_days_long_ago_do_not_count() -> None:
    rows = days_before(0, 0, 0, 100, 100, today=1) | {back(TRAILING_DAYS + 1): 100}
    assert against_usual(rows, DAY).factor is None


def test_an_empty_day_is_infinitely_off() -> None:
    assert against_usual(days_before(10, 10, 10, today=0), DAY).either_way == math.inf


def test_the_documents_show_the_limits_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-contract.md").read_text(encoding="utf-8")
    assert documented() in page, "paste components.gate_limits.documented() into docs/data-contract.md"


@pytest.mark.parametrize("name", LIMITS)
def test_a_warning_comes_before_a_stop(name: str) -> None:
    limit = LIMITS[name]
    assert limit.reason and limit.of
    assert limit.warning is None or limit.critical is None or limit.warning < limit.critical
    assert limit.critical is None or (
        limit.beyond_critical(limit.critical + 1e-9) and not limit.beyond_critical(limit.critical)
    )
