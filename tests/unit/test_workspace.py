"""Dates of nights, one night at a time, and logs that must not mix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from console.workspace import Workspace, arrival_days, next_date, parse_date
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
        replace(night, verdict=verdict).write()
    workspace.new_night("2026-01-03", {})
    assert [(n.date, n.folder.name, n.verdict) for n in workspace.nights()][-2:] == [
        ("2026-01-03", "1", "refused"),
        ("2026-01-03", "2", "running"),
    ]
    assert workspace.last_good_date() == "2026-01-02"


def test_two_sources_of_logs_must_not_mix(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.record_logs(workspace.logs(str(tmp_path / "a")))
    assert workspace.logs() == tmp_path / "a"
    with pytest.raises(UsageError, match="use another --workspace"):
        workspace.logs(str(tmp_path / "b"))


def test_reading_claims_nothing(tmp_path: Path) -> None:
    assert Workspace(tmp_path / "w").logs(str(tmp_path / "typo")) == tmp_path / "typo"
    assert Workspace(tmp_path / "w").logs() == tmp_path / "w" / "logs"
    assert not (tmp_path / "w").exists()


def test_a_moved_workspace_is_refused(tmp_path: Path) -> None:
    Workspace(tmp_path / "w").record_logs(tmp_path / "logs")
    (tmp_path / "w").rename(tmp_path / "v")
    with pytest.raises(UsageError, match="move it back there"):
        Workspace(tmp_path / "v").logs()


def test_without_a_good_night_the_last_tried_date_is_tried_again(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, "2026-01-08", "2026-01-09")
    assert next_date(logs, last_good=None, last_tried="2026-01-08") == "2026-01-08"


def test_the_newest_night_is_the_one_started_last(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.new_night("2026-01-09", {})
    older_date = workspace.new_night("2026-01-08", {})
    assert workspace.newest_night() == older_date


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("")
    with pytest.raises(UsageError, match="cannot be a folder"), Workspace(tmp_path / "w").one_at_a_time():
        pass


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ('{"format": 1, "logs": "x"}', "an older release's.* Run `goalrank migrate --workspace"),
        ('{"format": 99, "logs": "x"}', "format 99.* a newer release wrote it"),
        ('{"logs": "x"}', "format None.* restore its workspace.json"),
        ('{"format": "2"}', "format '2'.* restore its workspace.json"),
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
    ],
)
def test_a_workspace_of_another_format(tmp_path: Path, card: str, said: str) -> None:
    (tmp_path / "workspace.json").write_text(card)
    with pytest.raises(UsageError, match=said):
        Workspace(tmp_path).logs()


def test_one_night_at_a_time(tmp_path: Path) -> None:
    with (
        Workspace(tmp_path).one_at_a_time(),
        pytest.raises(TryAgain, match="another night runs"),
        Workspace(tmp_path).one_at_a_time(),
    ):
        pass
