"""Snapshots as readers see them, the plan of a night, partitions and paths: without Spark."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.extract_features import locations, store, version
from components.extract_features.log_partitions import LogPartitions
from components.extract_features.night import extract
from components.extract_features.plan import plan
from components.extract_features.snapshots import TABLES, Snapshot, dates, manifest_path, readable_before
from components.step import Step
from goalrank import schema
from goalrank.errors import DataRefused, TryAgain, UsageError
from tests.components.log_samples import Logs, at, plus

FIRST = "2026-01-01"
CONFIG = version.configuration(window_days=30)
STATE = {"requests": 0, "users": 0, "items": 0}


def committed(root: Path, date: str, parent: Snapshot | None = None, **other: Any) -> Snapshot:
    """A snapshot of one day without rows."""
    name = other.get("snapshot_id", f"id-{date}")
    for table, columns in TABLES.items():
        folder = root / "data" / name / "days" / date / table
        folder.mkdir(parents=True)
        pq.write_table(columns.empty_table(), folder / "part-00000.parquet")
    for table in STATE:
        folder = root / "data" / name / "state" / table
        folder.mkdir(parents=True)
        pq.write_table(schema.USERS.empty_table(), folder / "part-00000.parquet")
    day = {"dt": date, "path": f"data/{name}/days/{date}", "content": "", "rows": dict.fromkeys(TABLES, 0)}
    manifest = {
        "format": 1,
        "date": date,
        "snapshot_id": name,
        "code_version": "code",
        "config": CONFIG,
        "mode": "incremental" if parent else "full",
        "previous": {"date": parent.date, "snapshot_id": parent.snapshot_id} if parent else None,
        "chain": {"first": FIRST, "digest": ""},
        "days": [day],
        "base": None,
        "state": f"data/{name}/state",
        "state_rows": STATE,
        **other,
    }
    return store.commit_manifest(root, manifest)


def test_artifact_and_manifest_name_the_same_snapshot(tmp_path: Path) -> None:
    snapshot = committed(tmp_path, FIRST)
    snapshot.save(tmp_path / "artifact" / "snapshot.json")
    loaded = Snapshot.load(tmp_path / "artifact" / "snapshot.json")
    assert loaded == snapshot == Snapshot.read(tmp_path, FIRST)
    assert (loaded.date, loaded.snapshot_id, loaded.days) == (FIRST, f"id-{FIRST}", [FIRST])
    assert loaded.problem() == ""
    assert loaded.read_view("user_stats").schema.equals(schema.USER_STATS.schema)
    assert loaded.read_examples([FIRST]).schema.equals(schema.EXAMPLES)
    assert all(Path(file).is_file() for file in loaded.view_paths("item_stats") + loaded.examples_paths())


def test_readable_before_is_newest_first_without_the_damaged(tmp_path: Path) -> None:
    for number in (0, 1, 3):
        committed(tmp_path, plus(FIRST, number))
    assert dates(tmp_path) == [plus(FIRST, number) for number in (0, 1, 3)]
    assert list(readable_before(tmp_path, FIRST)) == []
    assert [found.date for found in readable_before(tmp_path, plus(FIRST, 3))] == [plus(FIRST, 1), FIRST]
    manifest_path(tmp_path, plus(FIRST, 1)).write_text('{"format": 0}')
    assert [found.date for found in readable_before(tmp_path, plus(FIRST, 3))] == [FIRST]


def test_what_a_snapshot_does_not_hold_is_refused(tmp_path: Path) -> None:
    snapshot = committed(tmp_path, FIRST)
    with pytest.raises(DataRefused, match="feature view 'user_stat' asked for, a snapshot holds user_profile"):
        snapshot.view_paths("user_stat")
    with pytest.raises(DataRefused, match=r"days \['2026-01-02'\] asked of snapshot id-2026-01-01"):
        snapshot.examples_paths(["2026-01-02"])
    with pytest.raises(DataRefused, match=r"no snapshot of 2026-01-02 .* found \['2026-01-01'\]; run extract_features"):
        Snapshot.read(tmp_path, "2026-01-02")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list, expected a JSON object"),
        ('{"format": 9}', "snapshot format 9 found, expected 1; run extract_features again"),
        ('{"format": 1, "date": "x"}', r"the manifest lacks \['days', 'snapshot_id'\]"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    manifest_path(tmp_path, FIRST).parent.mkdir()
    manifest_path(tmp_path, FIRST).write_text(text)
    with pytest.raises(DataRefused, match=message):
        Snapshot.read(tmp_path, FIRST)


def test_another_json_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"root": "r"}))
    with pytest.raises(DataRefused, match="expected root and manifest"):
        Snapshot.load(tmp_path / "x.json")


def _code(snapshot: Snapshot) -> dict[str, Any]:
    return {"code": "other"}


def _config(snapshot: Snapshot) -> dict[str, Any]:
    return {"config": version.configuration(window_days=7)}


def _truncated(snapshot: Snapshot) -> dict[str, Any]:
    file = Path(snapshot.view_paths("item_stats")[0])
    file.write_bytes(file.read_bytes()[:-7])
    return {}


def _state_gone(snapshot: Snapshot) -> dict[str, Any]:
    (snapshot.root / snapshot.manifest["state"] / "users" / "part-00000.parquet").unlink()
    return {}


def _manifest_of_another_make(snapshot: Snapshot) -> dict[str, Any]:
    del snapshot.manifest["config"]
    store.commit_manifest(snapshot.root, snapshot.manifest)
    return {}


def _manifest_damaged(snapshot: Snapshot) -> dict[str, Any]:
    manifest_path(snapshot.root, snapshot.date).write_text("{")
    return {}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_code, "the extraction's code changed"),
        (_config, "the configuration changed (window_days)"),
        (_truncated, "item_stats holds None rows, its manifest says 0"),
        (_state_gone, "state/users holds None rows, its manifest says 0"),
        (_manifest_damaged, "cannot be read as JSON"),
        (_manifest_of_another_make, "its manifest lacks 'config'"),
    ],
)
def test_a_night_is_full_where_it_cannot_go_on(tmp_path: Path, spoil: Any, reason: str) -> None:
    snapshot = committed(tmp_path, FIRST)
    tonight = {"root": tmp_path, "date": plus(FIRST, 1), "full_rebuild": False, "code": "code", "config": CONFIG}
    assert plan(**tonight).mode == "incremental"
    made = plan(**{**tonight, **spoil(snapshot)})
    assert made.mode == "full"
    assert made.reason.startswith(f"the snapshot of {FIRST} cannot be gone on from: ")
    assert reason in made.reason


def test_an_older_snapshot_is_gone_on_from_where_the_newest_is_damaged(tmp_path: Path) -> None:
    committed(tmp_path, FIRST)
    _truncated(committed(tmp_path, plus(FIRST, 1)))
    made = plan(tmp_path, plus(FIRST, 2), False, "code", CONFIG)
    assert made.previous is not None
    assert made.previous.date == FIRST


def test_a_snapshot_built_on_a_day_that_was_run_again_is_not_gone_on_from(tmp_path: Path) -> None:
    one = committed(tmp_path, FIRST)
    two = committed(tmp_path, plus(FIRST, 1), parent=one)
    committed(tmp_path, plus(FIRST, 2), parent=two)
    committed(tmp_path, FIRST, snapshot_id="fewer-rows")
    made = plan(tmp_path, plus(FIRST, 3), False, "code", CONFIG)
    assert made.previous is not None
    assert made.previous.snapshot_id == "fewer-rows"


def test_a_damaged_manifest_among_the_parents_makes_the_night_full(tmp_path: Path) -> None:
    one = committed(tmp_path, FIRST)
    two = committed(tmp_path, plus(FIRST, 1), parent=one)
    committed(tmp_path, plus(FIRST, 2), parent=two)
    _manifest_damaged(one)
    made = plan(tmp_path, plus(FIRST, 3), False, "code", CONFIG)
    assert made.mode == "full"
    assert "cannot be read as JSON" in made.reason
    committed(tmp_path, plus(FIRST, 3))
    assert plan(tmp_path, plus(FIRST, 4), False, "code", CONFIG).mode == "incremental"


def test_full_rebuild_on_demand(tmp_path: Path) -> None:
    committed(tmp_path, FIRST)
    made = plan(tmp_path, plus(FIRST, 1), True, "code", CONFIG)
    assert (made.mode, made.reason) == ("full", "a full rebuild was asked for")


def test_one_writer_at_a_time_and_leftovers_go(tmp_path: Path) -> None:
    left = tmp_path / "data" / "abc.partial-1"
    left.mkdir(parents=True)
    (left / "half.parquet").write_bytes(b"x")
    with store.only_writer(tmp_path):
        assert not left.exists()
        with pytest.raises(TryAgain, match="another extraction is writing"), store.only_writer(tmp_path):
            pass
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again


def test_id_depends_on_days_code_and_configuration_alone() -> None:
    days = [("2026-01-01", "aa"), ("2026-01-02", "bb")]
    whole = version.chained(version.EMPTY_CHAIN, days)
    assert whole == version.chained(version.chained(version.EMPTY_CHAIN, days[:1]), days[1:])
    assert whole != version.chained(version.EMPTY_CHAIN, days[::-1])
    found = version.snapshot_id(whole, "code", CONFIG)
    assert len(found) == 16
    assert found == version.snapshot_id(whole, "code", dict(reversed(CONFIG.items())))
    assert found != version.snapshot_id(whole, "other", CONFIG)
    assert found != version.snapshot_id(whole, "code", version.configuration(window_days=29))


def test_code_version_is_of_the_extraction_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = version.code_version()
    assert before == version.code_version()
    monkeypatch.setattr(version, "_DECIDES_ROWS", version._DECIDES_ROWS[:-1])
    assert version.code_version() != before
    folder = Path(version.__file__).parent
    assert {path.name for path in folder.glob("*.py")} - set(version._DECIDES_ROWS) <= {
        *("__init__.py", "component.py", "day_decisions.py", "locations.py", "main.py", "night.py", "plan.py"),
        *("snapshots.py", "store.py", "version.py", "window.py"),
    }, "a new file: does it decide rows? then it belongs into version._DECIDES_ROWS"


def logs_with(tmp_path: Path, numbers: list[int]) -> LogPartitions:
    logs = Logs()
    for number in numbers:
        logs.day(plus(FIRST, number))
    logs.item(plus(FIRST, -3), 1, [1], at(FIRST))
    return LogPartitions(logs.write(tmp_path / "logs"))


def test_arrival_days_are_the_daily_tables_own(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, [0, 1, 2])
    assert logs.arrival_days(None, plus(FIRST, 1)) == [FIRST, plus(FIRST, 1)]
    assert logs.arrival_days(plus(FIRST, 2), plus(FIRST, 2)) == [plus(FIRST, 2)]


def test_a_missing_night_is_refused_before_spark_starts(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, [0, 1])
    night = plus(FIRST, 2)
    with pytest.raises(DataRefused) as refused:
        extract(Step("x", str(tmp_path)), None, str(logs.logs), str(tmp_path / "s"), night, False, 30)  # type: ignore[arg-type]
    assert str(refused.value) == (
        f"no partition {logs.logs}/requests/dt={night}, found {FIRST} to {plus(FIRST, 1)} (2 days); "
        "let the day arrive, or run an earlier date"
    )
    empty = LogPartitions(tmp_path / "empty")
    with pytest.raises(DataRefused, match="found no day at all"):
        empty.arrival_days(None, night)


def test_spark_is_told_the_size_of_tonights_partitions_only(tmp_path: Path) -> None:
    logs, root = logs_with(tmp_path, [0, 1, 2]), tmp_path / "s"
    told = []

    def session(reads: int) -> Any:
        told.append(reads)
        raise TryAgain("as far as this test goes")

    for night in (FIRST, plus(FIRST, 1)):
        with pytest.raises(TryAgain, match="as far as"):
            extract(Step("x", str(tmp_path)), session, str(logs.logs), str(root), night, False, 30)
    files = [file for table in schema.LOG_TABLES for file in (logs.logs / table).glob("dt=*/*.parquet")]
    one, two = (
        sum(file.stat().st_size for file in files if file.parent.name <= f"dt={day}") for day in (FIRST, plus(FIRST, 1))
    )
    assert told == [one, two] and 0 < one < two  # the first night never ended, so the second reads its day too
    (logs.logs / "impressions" / f"dt={FIRST}" / "gone.parquet").symlink_to("nowhere")
    with pytest.raises(TryAgain, match="as far as"):  # what a link lacks is for the step to refuse, in words
        extract(Step("x", str(tmp_path)), session, str(logs.logs), str(root), FIRST, False, 30)
    assert told[-1] == one


def test_a_gap_is_refused_by_name(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, [0, 1, 3])
    (logs.logs / "impressions" / f"dt={plus(FIRST, 1)}" / "part-0.parquet").unlink()
    (logs.logs / "impressions" / f"dt={plus(FIRST, 1)}").rmdir()
    with pytest.raises(DataRefused) as refused:
        logs.arrival_days(None, plus(FIRST, 3))
    text = str(refused.value)
    assert "the logs have a gap: requests/dt=2026-01-03, impressions/dt=2026-01-02, impressions/dt=2026-01-03" in text


@pytest.mark.parametrize("date", ["", "2026-1-2", "2026-02-30", "../../x", "2026-01-01\n", "20260101"])
def test_a_date_is_a_date(tmp_path: Path, date: str) -> None:
    with pytest.raises(UsageError, match="expected a day as YYYY-MM-DD"):
        extract(Step("x", str(tmp_path)), None, str(tmp_path), str(tmp_path), date, False, 30)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uri", "message"),
    [("s3://bucket/x", "expected a local folder"), ("/logs/{a,b}", "which Spark reads as a pattern")],
)
def test_a_folder_is_a_local_folder(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        locations.folder(uri)


def test_file_uris_are_folders() -> None:
    assert locations.folder("file:///logs") == Path("/logs") == locations.folder("/logs")
