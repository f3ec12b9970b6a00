"""`goalrank day`: decisions about refused days, and the night that is run by default after them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.extract_features.day_decisions import FILE
from console.days import settled_until
from console.main import app
from console.workspace import Workspace, next_date
from goalrank.errors import DataRefused
from tests.unit.test_workspace import logs_with

DAY = "2026-01-05"


def day(workspace: Path, *arguments: str) -> tuple[int, dict]:
    """The command with --json; its exit code and its object."""
    result = CliRunner().invoke(app, ["day", *arguments, "--workspace", str(workspace), "--json"])
    return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1])


def test_a_decision_is_kept_with_its_reason(tmp_path: Path) -> None:
    code, done = day(tmp_path, "skip", DAY, "--reason", "counter broken")
    assert code == 0
    assert done == {
        "exit_code": 0,
        "day": DAY,
        "action": "skip",
        "reason": "counter broken",
        "skipped": {DAY: "counter broken"},
        "accepted": {},
    }
    assert day(tmp_path, "undo", DAY, "--reason", "restored")[1]["skipped"] == {}
    assert day(tmp_path, "accept", DAY, "--reason", "campaign")[1]["accepted"] == {DAY: "campaign"}
    code, listed = day(tmp_path, "list")
    assert [line["action"] for line in listed["history"]] == ["skip", "undo", "accept"]
    assert listed["accepted"] == {DAY: "campaign"}
    told = CliRunner().invoke(app, ["day", "list", "--workspace", str(tmp_path)]).stdout
    assert "counter broken" in told and "campaign" in told


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["skip", "yesterday", "--reason", "x"], 2, "expected a day such as"),
        (["skip", DAY, "--reason", " "], 2, "an empty reason found"),
        (["undo", DAY, "--reason", "x"], 2, "nothing to undo"),
    ],
)
def test_what_is_no_decision_is_usage(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    found, document = day(tmp_path, *arguments)
    assert (found, document["exit_code"], document["kind"]) == (code, code, "usage")
    assert said in document["reason"]
    assert not (tmp_path / "snapshots" / FILE).exists()


def test_a_folder_that_is_no_workspace_is_usage(tmp_path: Path) -> None:
    code, document = day(tmp_path / "typo", "skip", DAY, "--reason", "x")
    assert code == 2 and "holds no workspace" in document["reason"]
    assert not (tmp_path / "typo").exists()


def test_while_a_night_runs_nothing_is_decided(tmp_path: Path) -> None:
    with Workspace(tmp_path).one_at_a_time():
        code, document = day(tmp_path, "skip", DAY, "--reason", "x")
    assert code == 75 and "another night runs" in document["reason"]


def test_a_damaged_file_of_decisions_stops_the_night_before_it_begins(tmp_path: Path) -> None:
    day(tmp_path, "skip", DAY, "--reason", "x")
    with open(tmp_path / "snapshots" / FILE, "a") as file:
        file.write("{")
    logs = logs_with(tmp_path, DAY, "2026-01-06")
    flags = ["nightly", "--workspace", str(tmp_path), "--logs", str(logs), "--json"]
    result = CliRunner().invoke(app, flags)
    assert result.exit_code == 3
    assert "is no decision about a day" in json.loads(result.stdout.strip().splitlines()[-1])["reason"]


def test_a_night_of_a_skipped_date_is_usage(tmp_path: Path) -> None:
    day(tmp_path, "skip", DAY, "--reason", "counter broken")
    logs = logs_with(tmp_path, DAY, "2026-01-06")
    flags = ["nightly", "--date", DAY, "--workspace", str(tmp_path), "--logs", str(logs), "--json"]
    result = CliRunner().invoke(app, flags)
    assert result.exit_code == 2
    assert f"{DAY} is a skipped day (counter broken)" in json.loads(result.stdout.strip().splitlines()[-1])["reason"]


def test_the_next_date_passes_over_skipped_days(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, *(f"2026-01-0{number}" for number in range(1, 8)))
    assert next_date(logs, "2026-01-04", skipped=[DAY]) == "2026-01-06"
    assert next_date(logs, "2026-01-04", skipped=[DAY, "2026-01-06"]) == "2026-01-07"
    assert next_date(logs, "2026-01-04", skipped=["2026-01-03"]) == DAY


def test_before_any_good_night_a_skipped_day_gives_way(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, "2026-01-04", DAY)
    assert next_date(logs, None, DAY, skipped=[DAY]) == "2026-01-04"
    logs_with(tmp_path, "2026-01-06")
    assert next_date(logs, None, DAY, skipped=[DAY]) == "2026-01-06"
    with pytest.raises(DataRefused, match="every day of the logs is skipped"):
        next_date(logs, None, DAY, skipped=["2026-01-04", DAY, "2026-01-06"])


def test_the_simulated_world_lives_on_past_skipped_days() -> None:
    assert settled_until(None, [DAY]) is None
    assert settled_until("2026-01-04", [DAY]) == DAY
    assert settled_until("2026-01-04", [DAY, "2026-01-06", "2026-01-08"]) == "2026-01-06"
    assert settled_until("2026-01-03", [DAY]) == "2026-01-03"
