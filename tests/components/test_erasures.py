"""Erased users on a real Spark session: their rows are left out of every table, impressions that come later too."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from components.extract_features import erasures, night
from components.extract_features.snapshots import Snapshot
from components.spark import spark_session
from components.step import Step
from goalrank import schema
from goalrank.errors import DataRefused
from tests.components.log_samples import Logs, random_logs

ERASED = 3
WORLD = random_logs(seed=5, first="2026-01-01", days=5, users=5)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with spark_session(Step("test_erasures", str(tmp_path_factory.mktemp("run")))) as session:
        yield session


def extract(spark: Any, folder: Path, logs: Logs, date: str) -> tuple[Snapshot, Step]:
    step = Step("extract_features", str(folder / "run"))
    logs.write(folder / "logs", [day for day in logs.days if day <= date])
    return night.extract(
        step, lambda _: nullcontext(spark), str(folder / "logs"), str(folder / "snapshots"), date, False, 30
    ), step


def without_the_user() -> Logs:
    """The same logs, the user taken out by hand."""
    logs = copy.deepcopy(WORLD)
    theirs = {row["request_id"] for rows in logs.rows["requests"].values() for row in rows if row["user_id"] == ERASED}
    assert theirs
    for table, key, gone in (("users", "user_id", {ERASED}), ("requests", "user_id", {ERASED})):
        for day, rows in logs.rows[table].items():
            logs.rows[table][day] = [row for row in rows if row[key] not in gone]
    for day, rows in logs.rows["impressions"].items():
        logs.rows["impressions"][day] = [row for row in rows if row["request_id"] not in theirs]
    return logs


@pytest.fixture(scope="module")
def never_there(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return extract(spark, tmp_path_factory.mktemp("never"), without_the_user(), WORLD.days[-1])[0]


def assert_same_rows(one: Snapshot, other: Snapshot) -> None:
    for view in schema.FEATURE_VIEWS:
        assert one.read_view(view).equals(other.read_view(view)), view
    assert one.read_examples().equals(other.read_examples())


def test_the_night_after_rebuilds_without_the_user(spark: Any, tmp_path: Path, never_there: Snapshot) -> None:
    """A night with the user, the erasure, then a rebuild; and one night that goes on from it, late rows included."""
    before, _ = extract(spark, tmp_path, WORLD, WORLD.days[-3])
    assert ERASED in before.read_view("user_stats")["user_id"].to_pylist()
    erasures.add(tmp_path / "snapshots", ERASED)
    rebuilt, step = extract(spark, tmp_path, WORLD, WORLD.days[-2])
    assert step.figures["mode"] == "full" and "erased" in step.reason
    assert ERASED not in rebuilt.read_view("user_stats")["user_id"].to_pylist()
    last, step = extract(spark, tmp_path, WORLD, WORLD.days[-1])
    assert step.figures["mode"] == "incremental"
    assert step.figures["late_impressions"] > 0
    assert_same_rows(last, never_there)
    assert last.snapshot_id != never_there.snapshot_id


def test_nobody_erased_changes_no_snapshot_id() -> None:
    assert erasures.configuration([]) == {}
    assert erasures.configuration([1, 2]) == erasures.configuration([2, 1]) != erasures.configuration([1])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "users": []}', '{"format": 1, "users": [{"user_id": "7"}]}']
)
def test_a_damaged_list_refuses_the_night(tmp_path: Path, text: str) -> None:
    (tmp_path / erasures.FILE).write_text(text)
    with pytest.raises(DataRefused, match="restore it from a backup"):
        erasures.read(tmp_path)


def test_the_list_takes_a_user_once(tmp_path: Path) -> None:
    for user in (7, 3, 7):
        erasures.add(tmp_path, user)
    assert erasures.read(tmp_path) == [3, 7]
    assert len(json.loads((tmp_path / erasures.FILE).read_text())["users"]) == 2
