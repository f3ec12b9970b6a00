"""Which night a run is: said once, the same to whoever asks later."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from components import the_night
from components.the_night import RUN_VARIABLE, day_of, decided, folder_of
from goalrank.errors import UsageError


def at(monkeypatch: pytest.MonkeyPatch, *moment: int, zone: timezone = UTC) -> None:
    monkeypatch.setattr(the_night, "_now", lambda: datetime(*moment, tzinfo=zone).astimezone(UTC))  # type: ignore[misc]


def test_a_day_that_is_said_is_meant(tmp_path: Path) -> None:
    assert day_of("2026-01-08", str(tmp_path)) == "2026-01-08"
    assert day_of("before 2026-01-01", str(tmp_path)) == "2025-12-31"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="expected a day such as"):
        day_of("[[ScheduledTime.2006-01-02]]", str(tmp_path))


def test_auto_is_the_newest_closed_day_and_stays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again after midnight, or days later, the step means what it meant first."""
    run = str(tmp_path / "scheduled" / "run")
    at(monkeypatch, 2026, 1, 8, 23, 59, 59)
    assert day_of("auto", run) == "2026-01-07"
    for later in ((2026, 1, 9, 0, 0, 1), (2026, 1, 12, 3)):
        at(monkeypatch, *later)
        assert day_of("auto", run) == decided(run) == "2026-01-07"
    assert day_of("auto", str(tmp_path / "scheduled" / "another")) == "2026-01-11"


@pytest.mark.parametrize(
    ("hour", "hours_ahead", "day"), [(1, 2, "2026-01-06"), (3, 2, "2026-01-07"), (18, -8, "2026-01-08")]
)
def test_days_are_those_of_utc_wherever_the_scheduler_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hour: int, hours_ahead: int, day: str
) -> None:
    """Partitions are UTC's days: at one in the morning of 8 January, two hours ahead, 7 January is not over there."""
    at(monkeypatch, 2026, 1, 8, hour, zone=timezone(timedelta(hours=hours_ahead)))
    assert day_of("auto", str(tmp_path)) == day


def test_two_tries_at_once_mean_one_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([datetime(2026, 1, day, tzinfo=UTC) for day in range(2, 30)])
    monkeypatch.setattr(the_night, "_now", lambda: next(moments))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: day_of("auto", str(tmp_path)), range(8)))
    assert len(found) == 1 and [path.name for path in tmp_path.iterdir()] == [the_night.DECIDED]


def test_a_folder_that_says_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / the_night.DECIDED).write_text("yesterday")
    with pytest.raises(UsageError, match="'yesterday' found, expected a day"):
        day_of("auto", str(tmp_path))


def test_the_folder_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_of("/workspace/nights/2026-01-08/mark") == "/workspace/nights/2026-01-08/mark"
    monkeypatch.setenv(RUN_VARIABLE, "0a1b-2c3d")
    assert folder_of("/workspace/nights/scheduled/auto") == "/workspace/nights/scheduled/0a1b-2c3d"
    for run, said in (("", "label the pods"), ("../2026", "expected letters, digits"), ("a/b", "expected letters")):
        monkeypatch.setenv(RUN_VARIABLE, run)
        with pytest.raises(UsageError, match=said):
            folder_of("/workspace/nights/scheduled/auto")
