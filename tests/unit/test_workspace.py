"""Dates of nights, one night at a time, and logs that must not mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.workspace import Night, Workspace, arrival_days, next_date, parse_date
from goalrank.errors import DataRefused, TryAgain, UsageError


def logs_with(tmp_path: Path, *days: str) -> Path:
    for day in days:
        (tmp_path / "logs" / "requests" / f"dt={day}").mkdir(parents=True)
    return tmp_path / "logs"


def test_an_empty_workspace_starts_at_the_newest_day(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, "2026-01-02", "2026-01-01")
    assert arrival_days(logs) == ["2026-01-01", "2026-01-02"]
    assert next_date(logs, last_good=None) == "2026-01-02"


def test_the_day_after_the_last_good_night(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, "2026-02-28", "2026-03-01", "2026-03-02")
    assert next_date(logs, last_good="2026-02-28") == "2026-03-01"


def test_a_day_that_has_not_arrived_is_for_later(tmp_path: Path) -> None:
    with pytest.raises(TryAgain, match="2026-01-02 has not arrived"):
        next_date(logs_with(tmp_path, "2026-01-01"), last_good="2026-01-01")


def test_no_logs_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="expected folders dt="):
        next_date(tmp_path, last_good=None)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-1-1", "../2026-01-01", ""])
def test_a_date_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected a day such as"):
        parse_date(text)


def test_refused_and_interrupted_dates_are_tried_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for date, verdict in (("2026-01-01", "promoted"), ("2026-01-02", "kept"), ("2026-01-03", "refused")):
        night = workspace.new_night(date, {})
        Night(night.folder, date, verdict, night.parameters).write()
    workspace.new_night("2026-01-03", {})
    assert [(n.date, n.folder.name, n.verdict) for n in workspace.nights()][-2:] == [
        ("2026-01-03", "1", "refused"),
        ("2026-01-03", "2", "running"),
    ]
    assert workspace.last_good_date() == "2026-01-02"


def test_two_sources_of_logs_must_not_mix(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    first = workspace.claim_logs(str(tmp_path / "a"))
    assert workspace.claim_logs(None) == first
    with pytest.raises(UsageError, match="use another --workspace"):
        workspace.claim_logs(str(tmp_path / "b"))


def test_a_workspace_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text('{"format": 99, "logs": "x"}')
    with pytest.raises(UsageError, match="format 99"):
        Workspace(tmp_path).claim_logs(None)


def test_one_night_at_a_time(tmp_path: Path) -> None:
    with (
        Workspace(tmp_path).one_at_a_time(),
        pytest.raises(TryAgain, match="another night runs"),
        Workspace(tmp_path).one_at_a_time(),
    ):
        pass
