"""Extraction's rows, on one real Spark session: against plain Python, incremental against full, late rows included."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.extract_features import night, store
from components.extract_features.advance import advance, empty_state
from components.extract_features.content import day_contents
from components.extract_features.item_features import STATS_DAYS
from components.extract_features.log_partitions import LogPartitions, incomplete_days
from components.extract_features.snapshots import TABLES, Snapshot, dates
from components.spark import spark_session
from components.step import Step
from goalrank import schema
from goalrank.errors import DataRefused
from tests.components.features_by_hand import features_by_hand
from tests.components.log_samples import Logs, at, plus, random_logs, write_partition

FIRST = "2026-01-01"
WINDOW = 5
DAYS = STATS_DAYS + 4  # the 7-day counters lose days again, and days leave the window


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    step = Step("test_extract_features", str(tmp_path_factory.mktemp("run")))
    with spark_session(step) as session:
        yield session


def extract(
    spark: Any, logs: Path, snapshots: Path, day: str, full: bool = False, window: int = WINDOW
) -> tuple[Snapshot, Step]:
    step = Step("extract_features", str(snapshots.parent / "run"))
    return night.extract(step, lambda _: nullcontext(spark), str(logs), str(snapshots), day, full, window), step


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return table.to_pylist()


def assert_same_rows(one: Snapshot, other: Snapshot) -> None:
    assert one.snapshot_id == other.snapshot_id
    assert one.days == other.days
    for view in schema.FEATURE_VIEWS:
        assert one.read_view(view).equals(other.read_view(view)), view
    assert one.read_examples().equals(other.read_examples())


def assert_as_by_hand(snapshot: Snapshot, logs: Logs) -> None:
    expected = features_by_hand(logs)
    for day in snapshot.days:
        for view in schema.FEATURE_VIEWS:
            assert rows(snapshot.read_view(view, [day])) == expected[view][day], (view, day)
        assert rows(snapshot.read_examples([day])) == expected["examples"][day], day
    before = [day for day in logs.days if day < snapshot.days[0]]
    for view in schema.FEATURE_VIEWS.values():
        newest = {row[view.entity]: row for day in before for row in expected[view.name][day]}
        base = snapshot.read_view(view.name).to_pylist()[: len(newest)]
        assert base == [newest[key] for key in sorted(newest)], view.name


@pytest.fixture(scope="module")
def world() -> Logs:
    return random_logs(seed=7, first=FIRST, days=DAYS, users=4)  # so few that histories fill up


@pytest.fixture(scope="module")
def rebuilt(spark: Any, world: Logs, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A full rebuild of all days."""
    folder = tmp_path_factory.mktemp("rebuilt")
    done, step = extract(spark, world.write(folder / "logs"), folder / "snapshots", world.days[-1])
    assert step.figures["mode"] == "full"
    assert step.reason == "full: no earlier snapshot"
    assert step.figures["late_impressions"] > 0
    assert step.figures["requests_without_impressions"] > 0
    return done


def test_full_rebuild_is_what_plain_python_says(rebuilt: Snapshot, world: Logs) -> None:
    assert rebuilt.days == world.days[-WINDOW:]
    assert_as_by_hand(rebuilt, world)


def test_nights_from_state_alone_equal_a_full_rebuild(
    spark: Any, world: Logs, rebuilt: Snapshot, tmp_path: Path
) -> None:
    """First night full, one incremental night, one that catches up the rest; older partitions are gone by then."""
    logs, snapshots = tmp_path / "logs", tmp_path / "snapshots"
    ends = [world.days[STATS_DAYS - 2], world.days[STATS_DAYS - 1], world.days[-1]]
    begin = FIRST
    for number, end in enumerate(ends):
        shutil.rmtree(logs, ignore_errors=True)
        new = [day for day in world.days if begin <= day <= end]
        world.write(logs, new)
        done, step = extract(spark, logs, snapshots, end)
        assert step.figures["mode"] == ("incremental" if number else "full")
        assert {entry.rsplit("=", 1)[1] for entry in step.figures["read"]} == set(new)
        assert done.manifest["read"] == step.figures["read"]
        begin = plus(end, 1)
    assert_same_rows(done, rebuilt)
    assert_as_by_hand(done, world)


def test_many_rows_are_split_and_read_back_the_same(
    spark: Any, world: Logs, rebuilt: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on large days: several files a day in the same order, shuffles of more tasks, a night that goes on from it."""
    monkeypatch.setattr(store, "DAY_IMPRESSIONS_A_FILE", 20)
    monkeypatch.setattr(night, "IMPRESSIONS_A_PARTITION", 50)
    logs, snapshots = world.write(tmp_path / "logs"), tmp_path / "snapshots"
    extract(spark, logs, snapshots, world.days[-2])
    assert int(spark.conf.get("spark.sql.shuffle.partitions")) > night.SHUFFLE_PARTITIONS
    done, _ = extract(spark, logs, snapshots, world.days[-1])
    assert len(done.examples_paths([world.days[-1]])) > 1
    assert len(list((done.root / done.manifest["state"] / "items").glob("*.parquet"))) > 1
    assert_same_rows(done, rebuilt)
    assert_as_by_hand(done, world)


def test_files_hold_the_contracts_types(rebuilt: Snapshot) -> None:
    import pyarrow.parquet as pq

    for name, columns in TABLES.items():
        files = rebuilt.examples_paths() if name == "examples" else rebuilt.view_paths(name)
        for file in files:
            found = pq.read_schema(file)
            assert found.names == columns.names
            assert found.types == columns.types, name


def test_late_rows_by_hand(spark: Any, tmp_path: Path) -> None:
    """A late request lands in its place of the history; a late impression counts, and leaves its example as it was."""
    one, two, three = FIRST, plus(FIRST, 1), plus(FIRST, 2)
    logs = Logs()
    logs.item(one, 10, [1, 33, 40], at(one, -90000))
    logs.item(one, 11, [2], at(one))
    logs.user(one, 1, ["age=25"])
    logs.request(one, "a", 1, at(one, 100), [10, 11, 12])
    logs.impression(one, "a", 1, 10, click=1, like=1, watch_seconds=1.2345, propensity=0.5)
    logs.impression(one, "a", 2, 11)
    logs.impression(two, "a", 3, 12, click=1)  # late, of an item whose content never arrives
    logs.request(two, "b", 1, at(two, 50), [11])
    logs.impression(two, "b", 1, 11, click=1)
    logs.request(three, "c", 1, at(one, 200), [10])  # late: between "a" and "b"
    logs.impression(three, "c", 1, 10, click=1)

    root, snapshots = logs.write(tmp_path / "logs"), tmp_path / "snapshots"
    extract(spark, root, snapshots, two)
    first_examples = Snapshot.read(snapshots, two).read_examples([one])
    done, _ = extract(spark, root, snapshots, three)

    history = done.read_view("user_history").to_pylist()
    assert [row["history_items"] for row in history] == [[10], [10, 12, 11], [10, 12, 10, 11]]
    assert history[-1]["history_topics"] == [0b1_0000_0010, 0, 0b1_0000_0010, 0b100]
    assert history[-1]["event_timestamp"] == history[-1]["created_timestamp"] == at(plus(three, 1))

    stats = done.read_view("user_stats").to_pylist()
    assert [row["impressions"] for row in stats] == [2, 4, 5]
    assert [row["active_days"] for row in stats] == [1, 2, 3]
    assert [row["watch_ms"] for row in stats] == [1234, 1234, 1234]  # 1234.5: to the even, as NumPy rounds
    assert stats[-1]["topic_clicks"][:10] == [0, 2, 1, 0, 0, 0, 0, 0, 2, 0]

    items = {(row["item_id"], row["event_timestamp"]): row for row in done.read_view("item_stats").to_pylist()}
    assert items[10, at(two)]["age_days"] == 3  # created late on the second day before
    assert items[12, at(three)]["impressions_7d"] == 1
    assert items[12, at(three)]["age_days"] is None
    assert (12, at(two)) not in items

    examples = done.read_examples()
    assert examples["request_id"].to_pylist() == ["a", "b", "c"]
    assert examples["slate"].to_pylist() == [[10, 11], [11], [10]]
    assert examples["propensities"].to_pylist() == [[0.5, None], None, None]
    assert done.read_examples([one]).equals(first_examples)
    assert_as_by_hand(done, logs)


def test_a_failed_write_a_second_run_a_rebuild_and_fewer_rows(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = random_logs(seed=3, first=FIRST, days=2, requests=6)
    logs, snapshots = world.write(tmp_path / "logs"), tmp_path / "snapshots"
    one, two = world.days
    extract(spark, logs, snapshots, one)

    # A failing write leaves no trace for readers, and the next run clears what it left on disk.
    def full_disk(self: store.SnapshotWriter, name: str, *_: Any) -> None:
        raise OSError(28, "No space left on device", name)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(store.SnapshotWriter, "_write", full_disk)
        extract(spark, logs, snapshots, two)
    assert dates(snapshots) == [one]
    assert Snapshot.read(snapshots, one).problem() == ""
    before, _ = extract(spark, logs, snapshots, two)
    assert not list((snapshots / "data").glob("*.partial-*"))

    # The same rows in another order, in other files: taken from disk, nothing is made again.
    world.write(logs, [two], shuffled=1, compression="gzip")
    again, step = extract(spark, logs, snapshots, two)
    assert step.figures["reused"]
    assert list(step.figures["seconds"]) == ["digest"]
    assert again.manifest == before.manifest

    # Killed between the data's rename and the manifest's: the data are complete and get committed.
    (snapshots / "manifests" / f"{two}.json").unlink()
    again, step = extract(spark, logs, snapshots, two)
    assert step.figures["reused"]
    assert again.manifest == Snapshot.read(snapshots, two).manifest == before.manifest

    # A rebuild on demand writes beside, so that files named by a manifest never change.
    rebuilt, step = extract(spark, logs, snapshots, two, full=True)
    assert not step.figures["reused"]
    assert rebuilt.manifest["state"] != before.manifest["state"]
    assert_same_rows(rebuilt, before)
    assert before.problem() == ""

    # Fewer rows: one snapshot of the date, nothing of the dropped request left.
    dropped = world.rows["requests"][two].pop()["request_id"]
    shown = world.rows["impressions"][two]
    world.rows["impressions"][two] = [row for row in shown if row["request_id"] != dropped]
    for table in schema.DAILY_TABLES:
        shutil.rmtree(logs / table / f"dt={two}")
    world.write(logs, [two])
    fewer, step = extract(spark, logs, snapshots, two)
    assert fewer.snapshot_id != before.snapshot_id
    assert dates(snapshots) == [one, two]
    assert Snapshot.read(snapshots, two).snapshot_id == fewer.snapshot_id
    assert dropped not in fewer.read_examples()["request_id"].to_pylist()
    assert_as_by_hand(fewer, world)


def contents(spark: Any, folder: Path) -> dict[str, Any]:
    logs = LogPartitions(folder)
    days = logs.days("requests")
    frames = {name: logs.read(spark, name, logs.days(name), days[0]) for name in schema.LOG_TABLES}
    return day_contents(frames, days)


def test_day_content_is_of_rows_not_of_bytes(spark: Any, tmp_path: Path) -> None:
    world = random_logs(seed=5, first=FIRST, days=1, requests=5)
    found = contents(spark, world.write(tmp_path / "one"))
    assert found == contents(spark, world.write(tmp_path / "two", shuffled=9, compression="zstd", row_group_size=3))

    other = found[FIRST][0]
    for number, change in enumerate(_CHANGES):
        changed = random_logs(seed=5, first=FIRST, days=1, requests=5)
        change(changed.rows)
        digest = contents(spark, changed.write(tmp_path / f"changed-{number}"))[FIRST][0]
        assert digest not in (found[FIRST][0], other), number
        other = digest


def _move_null(rows: dict[str, Any]) -> None:
    row = rows["impressions"][FIRST][0]
    row["watch_seconds"], row["propensity"] = row["propensity"], row["watch_seconds"]


_CHANGES = [
    lambda rows: rows["requests"][FIRST][0].update(policy="other"),
    lambda rows: rows["users"][FIRST].append(rows["users"][FIRST][0]),
    lambda rows: rows["requests"][FIRST][0]["candidates"].reverse(),
    _move_null,
    lambda rows: rows["requests"][FIRST][0]["candidates"].insert(0, None),
    lambda rows: rows["requests"][FIRST][0]["candidates"].insert(1, None),  # hashing alone skips nulls
]


def test_only_the_named_partitions_are_read(spark: Any, world: Logs, tmp_path: Path) -> None:
    logs = LogPartitions(world.write(tmp_path / "logs"))
    for day in world.days[:-1]:
        for file in (tmp_path / "logs" / "requests" / f"dt={day}").iterdir():
            file.write_bytes(b"not Parquet")
    frame = logs.read(spark, "requests", [world.days[-1]], FIRST)
    assert [Path(file).parent.name for file in frame.inputFiles()] == [f"dt={world.days[-1]}"]
    assert frame.count() == len(world.rows["requests"][world.days[-1]])


def test_a_history_keeps_the_newest_and_is_cut_in_the_state(spark: Any, tmp_path: Path) -> None:
    logs, total, late = Logs(), schema.HISTORY_LENGTH + 8, plus(FIRST, 1)
    for number in range(total):
        arrived = FIRST if number < total - 5 else late
        logs.request(arrived, f"r{number:03d}", 1, at(FIRST, number), [number])
        logs.impression(arrived, f"r{number:03d}", 1, number, click=1)
    logs.request(late, "late", 1, at(FIRST, -10), [999])  # older than all 50: must not push anything out
    logs.impression(late, "late", 1, 999, click=1)
    first = advance_all(spark, logs, tmp_path, last=FIRST)
    kept = first.state["users"].collect()[0]["history"]
    assert [row["item_id"] for row in kept] == list(reversed(range(3, total - 5)))
    second = advance_all(spark, logs, tmp_path, begin=late, state=first.state)
    assert second.tables["user_history"].collect()[0]["history_items"] == list(range(8, total))


def _orphan(logs: Logs) -> None:
    logs.impression(plus(FIRST, 5), "nobody", 1, 3)


def _too_late(logs: Logs) -> None:
    logs.request(plus(FIRST, 1), "old", 1, at(FIRST), [3])
    logs.impression(plus(FIRST, 2 + schema.LATENESS_DAYS), "old", 1, 3)


def _before_its_request(logs: Logs) -> None:
    logs.impression(plus(FIRST, 4), "early", 1, 3)
    logs.request(plus(FIRST, 5), "early", 1, at(FIRST), [3])


def _twice(logs: Logs) -> None:
    for day in (4, 5):
        logs.request(plus(FIRST, day), "twice", 1, at(FIRST), [3])
    logs.impression(plus(FIRST, 5), "twice", 1, 3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_orphan, "1 impressions have no request (request_id 'nobody' is one), expected one that arrived on their day"),
        (_too_late, "1 impressions have no request (request_id 'old' is one)"),
        (_before_its_request, "1 impressions have no request (request_id 'early' is one)"),
        (_twice, "1 impressions match two requests: a request_id arrived twice"),
    ],
)
def test_impressions_without_one_request_are_refused(spark: Any, tmp_path: Path, spoil: Any, message: str) -> None:
    world = Logs()
    for number in range(6):
        world.day(plus(FIRST, number))
    spoil(world)
    with pytest.raises(DataRefused) as refused:
        advance_all(spark, world, tmp_path)
    assert message in str(refused.value)


def test_impressions_of_requests_from_before_the_logs_are_left_out(spark: Any, tmp_path: Path) -> None:
    world = Logs()
    for number in range(4):
        world.day(plus(FIRST, number))
    world.impression(plus(FIRST, schema.LATENESS_DAYS - 1), "before", 1, 3, click=1)
    made = advance_all(spark, world, tmp_path)
    assert made.counts == {"late_impressions": 0, "impressions_before_logs": 1}
    assert made.tables["item_stats"].count() == 0


def advance_all(
    spark: Any, world: Logs, folder: Path, begin: str = FIRST, last: str | None = None, state: Any = None
) -> Any:
    logs, last = LogPartitions(world.write(folder)), last or world.days[-1]
    frames = {name: logs.read(spark, name, logs.to_read(name, begin, last), begin) for name in schema.LOG_TABLES}
    first, end = (date.fromisoformat(day) for day in (begin, last))
    incomplete = incomplete_days([day for day in world.days if begin <= day <= last], FIRST, ())
    return advance(state or empty_state(spark), frames, first, end, incomplete)


_BAD_COLUMNS = [
    (lambda table: table.drop_columns(["policy"]), "column policy is missing", "expected policy: string"),
    (
        lambda table: table.rename_columns({"user_id": "uid"}),
        "column user_id is missing, found request_id, uid,",
        "expected user_id: int64",
    ),
    (
        lambda table: table.set_column(1, "user_id", table["user_id"].cast(pa.int32())),
        "column user_id has type int32, expected int64",
        "nothing is cast silently",
    ),
    (
        lambda table: table.set_column(2, "event_time", table["event_time"].cast(pa.timestamp("ns", "UTC"))),
        "column event_time has type timestamp[ns, tz=UTC], expected timestamp[us, tz=UTC]",
        "",
    ),
    (
        lambda table: table.set_column(2, "event_time", table["event_time"].cast(pa.timestamp("us"))),
        "column event_time has type timestamp[us], expected timestamp[us, tz=UTC]",
        "",
    ),
    (
        lambda table: table.set_column(3, "candidates", table["candidates"].cast(pa.list_(pa.string()))),
        "column candidates has type list<",
        "expected list<item: int64>",
    ),
]


@pytest.mark.parametrize(("spoil", "found", "expected"), _BAD_COLUMNS)
def test_columns_are_read_as_the_contract_says_or_refused(
    spark: Any, tmp_path: Path, spoil: Any, found: str, expected: str
) -> None:
    import pyarrow.parquet as pq

    folder = tmp_path / "requests" / f"dt={FIRST}"
    world = random_logs(seed=1, first=FIRST, days=1, requests=2)
    write_partition(folder, "requests", world.rows["requests"][FIRST])
    file = folder / "part-0.parquet"
    pq.write_table(spoil(pq.read_table(file, partitioning=None)), file)
    with pytest.raises(DataRefused) as refused:
        LogPartitions(tmp_path).read(spark, "requests", [FIRST], FIRST)
    assert str(file) in str(refused.value)
    assert found in str(refused.value)
    assert expected in str(refused.value)


def test_arrow_flavours_of_one_parquet_type_are_read(spark: Any, tmp_path: Path) -> None:
    """What polars or pandas write: large strings and lists, dictionaries."""
    import pyarrow.parquet as pq

    world = random_logs(seed=1, first=FIRST, days=1, requests=3)
    folder = tmp_path / "requests" / f"dt={FIRST}"
    write_partition(folder, "requests", world.rows["requests"][FIRST])
    file = folder / "part-0.parquet"
    table = pq.read_table(file, partitioning=None)
    table = table.set_column(0, "request_id", table["request_id"].cast(pa.large_string()))
    table = table.set_column(3, "candidates", table["candidates"].cast(pa.large_list(pa.int64())))
    table = table.set_column(5, "policy", table["policy"].dictionary_encode())
    pq.write_table(table, file)
    found = LogPartitions(tmp_path).read(spark, "requests", [FIRST], FIRST).collect()
    assert sorted(row["request_id"] for row in found) == sorted(table["request_id"].to_pylist())
