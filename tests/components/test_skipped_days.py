"""Days that were refused and will never be mended: skipped, the nights go on without them and without their rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.check_logs import partitions
from components.check_logs.main import run as check_logs
from components.extract_features import day_decisions
from components.extract_features.day_decisions import ACCEPT, FILE, SKIP, UNDO
from components.extract_features.log_partitions import incomplete_days
from components.extract_features.plan import plan
from components.spark import spark_session
from components.step import Step
from goalrank import schema
from goalrank.errors import DataRefused, UsageError
from tests.components.log_samples import Logs, plus, random_logs
from tests.components.test_check_logs import a_list, a_request, an_item, at, outcome_of, shown, write
from tests.components.test_extract_features import assert_as_by_hand, assert_same_rows, extract
from tests.components.test_snapshots import CONFIG, committed

FIRST, WINDOW = "2026-01-01", 10
BAD = plus(FIRST, 3)


# ----------------------------------------------------------------------------------------------------------- decisions


def test_the_newest_decision_about_a_day_holds(tmp_path: Path) -> None:
    assert day_decisions.read(tmp_path) == day_decisions.DayDecisions({}, {})
    day_decisions.record(tmp_path, BAD, SKIP, "counter broken")
    day_decisions.record(tmp_path, FIRST, ACCEPT, "campaign")
    assert day_decisions.read(tmp_path) == day_decisions.DayDecisions({BAD: "counter broken"}, {FIRST: "campaign"})
    day_decisions.record(tmp_path, BAD, UNDO, "restored")
    day_decisions.record(tmp_path, FIRST, SKIP, "no campaign after all")
    assert day_decisions.read(tmp_path) == day_decisions.DayDecisions({FIRST: "no campaign after all"}, {})
    taken = [(line["day"], line["action"]) for line in day_decisions.history(tmp_path)]
    assert taken == [(BAD, SKIP), (FIRST, ACCEPT), (BAD, UNDO), (FIRST, SKIP)]


@pytest.mark.parametrize(
    ("day", "action", "reason", "said"),
    [
        ("2026-1-5", SKIP, "x", "expected a day as YYYY-MM-DD"),
        ("../../etc", SKIP, "x", "expected a day as YYYY-MM-DD"),
        (BAD, "forget", "x", "expected one of skip, accept, undo"),
        (BAD, SKIP, "  ", "an empty reason found"),
        (BAD, UNDO, "x", "nothing to undo"),
    ],
)
def test_what_is_no_decision_is_not_recorded(tmp_path: Path, day: str, action: str, reason: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        day_decisions.record(tmp_path, day, action, reason)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"day": "2026-01-04"}',
        b'{"day": "2026-01-04", "action": "forget", "reason": "x", "at": "y"}',
        b'{"day": "2026-01-04", "action": "skip", "reason": 1, "at": "y"}',
        b'{"day": "../x", "action": "skip", "reason": "x", "at": "y"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_stops_the_night_rather_than_bring_a_day_back(tmp_path: Path, line: bytes) -> None:
    day_decisions.record(tmp_path, BAD, SKIP, "counter broken")
    with open(tmp_path / FILE, "ab") as file:
        file.write(line)
    with pytest.raises(DataRefused, match="line 2 is no decision about a day"):
        day_decisions.read(tmp_path)
    with pytest.raises(DataRefused, match="is no decision"):
        plan(tmp_path, plus(BAD, 1), False, "code", CONFIG)


def test_a_skipped_day_has_no_night(tmp_path: Path) -> None:
    day_decisions.record(tmp_path, BAD, SKIP, "counter broken")
    with pytest.raises(UsageError, match=rf"{BAD} is a skipped day \(counter broken\).*goalrank day undo {BAD}"):
        plan(tmp_path, BAD, False, "code", CONFIG)


def test_a_snapshot_that_holds_a_skipped_day_is_not_gone_on_from(tmp_path: Path) -> None:
    """Refused by check_features, the day's snapshot is there: once skipped, the one before it is gone on from."""
    one = committed(tmp_path, FIRST)
    committed(tmp_path, plus(FIRST, 1), parent=one)
    tonight = plus(FIRST, 2)
    assert plan(tmp_path, tonight, False, "code", CONFIG).previous.date == plus(FIRST, 1)  # type: ignore[union-attr]
    day_decisions.record(tmp_path, plus(FIRST, 1), SKIP, "drift that is a fault")
    made = plan(tmp_path, tonight, False, "code", CONFIG)
    assert made.previous is not None and made.previous.date == FIRST
    day_decisions.record(tmp_path, FIRST, SKIP, "and this one too")
    made = plan(tmp_path, tonight, False, "code", CONFIG)
    assert made.mode == "full" and f"{FIRST} is a skipped day" in made.reason


def test_days_after_a_gap_may_miss_requests() -> None:
    days = [plus(FIRST, number) for number in range(9)]
    late = schema.LATENESS_DAYS
    assert incomplete_days(days, FIRST, ()) == days[:late]
    assert incomplete_days(days, FIRST, [days[4]]) == days[:late] + days[5 : 5 + late]
    assert incomplete_days(days, plus(FIRST, -30), [days[0]]) == days[1 : 1 + late]


def test_a_skipped_day_is_not_among_what_is_read(tmp_path: Path) -> None:
    logs = Logs()
    for number in range(6):
        logs.day(plus(FIRST, number))
    logs.item(BAD, 7, [1], at(BAD))
    logs.item(FIRST, 8, [1], at(FIRST))
    logs.write(tmp_path)
    last = plus(FIRST, 5)
    whole = partitions.tonights(tmp_path, last, None, skipped=[BAD])
    assert BAD not in whole.days and {part.dt for part in whole.partitions} == set(whole.days)
    assert whole.skipped == (BAD,) and whole.gaps == [BAD]
    next_night = partitions.tonights(tmp_path, plus(BAD, 1), plus(BAD, -1), FIRST, [BAD])
    assert next_night.days == (plus(BAD, 1),)
    assert {part.dt for part in next_night.recent} == {FIRST, plus(FIRST, 1), plus(FIRST, 2)} - {FIRST}
    first_day = partitions.tonights(tmp_path, last, None, skipped=[FIRST])
    assert first_day.days[0] == first_day.chain_first == plus(FIRST, 1)


# ---------------------------------------------------------------------------------------------------------- extraction


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    step = Step("test_skipped_days", str(tmp_path_factory.mktemp("run")))
    with spark_session(step) as session:
        yield session


def without_day(world: Logs, day: str) -> Logs:
    """The same logs had nothing arrived on `day`, and nobody kept what needs it."""
    left = copy.deepcopy(world)
    asked = {row["request_id"] for row in world.rows["requests"][day]}
    for table in schema.LOG_TABLES:
        left.rows[table].pop(day, None)
    left.day(day)
    for dt, rows in left.rows["impressions"].items():
        left.rows["impressions"][dt] = [row for row in rows if row["request_id"] not in asked]
    return left


def test_nights_go_on_without_a_skipped_day_and_with_it_once_it_is_restored(spark: Any, tmp_path: Path) -> None:
    """A bad day, first extracted and then skipped; incremental and full give the rows of logs that never had it."""
    world = random_logs(seed=21, first=FIRST, days=7)
    logs, snapshots, last = world.write(tmp_path / "logs"), tmp_path / "snapshots", world.days[-1]
    extract(spark, logs, snapshots, plus(BAD, -1), window=WINDOW)
    extract(spark, logs, snapshots, BAD, window=WINDOW)
    files = [logs / table / f"dt={BAD}" / "part-0.parquet" for table in schema.DAILY_TABLES]
    for file in files:  # damaged beyond reading: nobody looks at it any more
        file.write_bytes(b"no Parquet")
    day_decisions.record(snapshots, BAD, SKIP, "counter broken")

    done, step = extract(spark, logs, snapshots, plus(BAD, 1), window=WINDOW)
    assert step.figures["mode"] == "incremental"
    assert done.manifest["previous"]["date"] == plus(BAD, -1)
    assert not any(BAD in entry for entry in step.figures["read"])
    assert step.figures["impressions_before_logs"] > 0, "no late impression of the skipped day: the test shows little"
    done, _ = extract(spark, logs, snapshots, last, window=WINDOW)
    assert done.manifest["skipped"] == [BAD]
    assert_as_by_hand(done, without_day(world, BAD))
    full, step = extract(spark, logs, snapshots, last, full=True, window=WINDOW)
    assert step.figures["mode"] == "full"
    assert_same_rows(full, done)

    world.write(logs, [BAD])
    day_decisions.record(snapshots, BAD, UNDO, "restored")
    back, step = extract(spark, logs, snapshots, last, window=WINDOW)
    assert (step.figures["mode"], back.manifest["previous"]["date"]) == ("incremental", BAD)
    assert_as_by_hand(back, world)


# ---------------------------------------------------------------------------------------------------------- check_logs


def test_check_logs_reads_around_a_skipped_day(tmp_path: Path) -> None:
    """Lists torn by the gap and impressions of its requests are no faults; the same without the skip are."""
    logs, days = tmp_path / "logs", [plus(FIRST, number) for number in range(3)]
    write(logs, "items", days[0], [an_item(item) for item in range(11, 17)])
    write(logs, "users", days[0], [{"user_id": 1, "created_at": at(days[0]), "attributes": ["age=25"]}])
    for dt in (days[0], days[2]):
        write(logs, "requests", dt, [a_request(dt, "a")])
    write(logs, "impressions", days[0], [shown(f"{days[0]}-a", 1)])
    # Position 2 arrived on the skipped day, position 3 today; and a list of a request that arrived on that day.
    torn = [shown(f"{days[0]}-a", 3), *a_list(f"{days[1]}-b"), *a_list(f"{days[2]}-a")]
    write(logs, "impressions", days[2], torn)
    snapshots = tmp_path / "snapshots"
    arguments = {
        "logs_uri": str(logs),
        "snapshots_uri": str(snapshots),
        "date": days[2],
        "full_rebuild": False,
        "data_docs": str(tmp_path / "docs"),
        "run_uri": str(tmp_path / "run"),
    }
    with pytest.raises(DataRefused, match=f"table=requests dt={days[1]}") as refused:
        check_logs(**arguments)
    assert str(refused.value).splitlines()[-1].startswith("To go on: mend the logs")
    assert "`goalrank day skip DATE --reason TEXT`" in str(refused.value)
    day_decisions.record(snapshots, days[1], SKIP, "never delivered")
    check_logs(**arguments)
    figures = outcome_of(tmp_path)["figures"]
    assert figures["skipped"] == [days[1]] and figures["refused"] == []
    assert figures["rows"]["impressions"] == 1 + len(torn)
    (warning,) = [text for text in figures["warnings"] if "a request in the logs" in text]
    assert f"request_id={days[1]}-b" in warning and "found 3 of" in warning
