"""The logs' gate on real Great Expectations and Spark: what passes, what is refused, what is only reported."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.check_logs import partitions
from components.check_logs.main import run
from components.data_gate import EXAMPLE_ROWS
from components.extract_features import day_decisions, version
from components.gate_limits import LATE_ROWS, SILENT_HOURS, VOLUME
from goalrank import schema
from goalrank.errors import DataRefused, UsageError

NAN, INFINITY = float("nan"), float("inf")
DAYS = [f"2026-01-0{day}" for day in range(1, 6)]
SHOWN = 3


def at(dt: str, hour: int = 12) -> datetime:
    return datetime.fromisoformat(dt).replace(tzinfo=UTC) + timedelta(hours=hour)


def a_request(dt: str, name: str, **other: Any) -> dict[str, Any]:
    return {
        "request_id": f"{dt}-{name}",
        "user_id": 1,
        "event_time": at(dt),
        "candidates": [11, 12, 13, 14, 15, 16],
        "candidate_scores": [0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
        "policy": "retriever",
        **other,
    }


def shown(request_id: str, position: int, **other: Any) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "position": position,
        "item_id": 10 + position,
        "propensity": 0.5,
        "click": 1,
        "like": 0,
        "watch_seconds": 4.0,
        **other,
    }


def a_list(request_id: str, changed: dict[int, dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    return [shown(request_id, position, **(changed or {}).get(position, {})) for position in range(1, SHOWN + 1)]


def an_item(item_id: int, **other: Any) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "created_at": at(DAYS[0], 0),
        "topics": [0, 3],
        "duration_seconds": 30.0,
        "title": f"item {item_id}",
        **other,
    }


def a_user(user_id: int, **other: Any) -> dict[str, Any]:
    return {"user_id": user_id, "created_at": at(DAYS[0], 0), "attributes": ["age=25"], **other}


def write(logs: Path, table: str, dt: str, rows: list[dict[str, Any]], columns: pa.Schema | None = None) -> Path:
    """One partition; nulls may be written into columns that must not have any."""
    columns = pa.schema([field.with_nullable(True) for field in columns or schema.LOG_TABLES[table]])
    path = logs / table / f"dt={dt}" / "part-0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=columns), path)
    return path


def clean_logs(logs: Path, days: list[str], names: str = "abcdef") -> None:
    """Six requests a day, a late one and a late last impression among them; items and users on the first day."""
    write(logs, "items", days[0], [an_item(item) for item in range(11, 17)])
    write(logs, "users", days[0], [a_user(1)])
    for number, dt in enumerate(days):
        requests = [a_request(dt, name) for name in names]
        impressions = [row for request in requests for row in a_list(request["request_id"])]
        if number + 1 < len(days):
            impressions = impressions[:-1]  # the last of the last list comes a day late
        if number:
            before = days[number - 1]
            requests.append(a_request(before, "late"))
            impressions += [shown(f"{before}-{names[-1]}", SHOWN), *a_list(f"{before}-late")]
        write(logs, "requests", dt, requests)
        write(logs, "impressions", dt, impressions)


def commit_snapshot(root: Path, days: list[str], requests: int = 7, **other: Any) -> Path:
    """A manifest saying that `days` are extracted already; where it lies."""
    logs = {"requests": requests, "impressions": requests * SHOWN}
    manifest = {
        "format": 1,
        "date": days[-1],
        "snapshot_id": "s",
        "code_version": version.code_version(),
        "config": version.configuration(window_days=30),
        "mode": "full",
        "previous": None,
        "chain": {"first": days[0], "digest": ""},
        "base": None,
        "state": "state",
        "state_rows": {},
        "days": [{"dt": dt, "path": dt, "rows": {}, "logs": logs} for dt in days],
        **other,
    }
    path = root / "manifests" / f"{days[-1]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path


def night(folder: Path, date: str, full_rebuild: bool = False, window_days: int = 30) -> dict[str, Any]:
    """Run the step on folder/logs and folder/snapshots; its outcome file. DataRefused goes through."""
    arguments = {"logs_uri": folder / "logs", "snapshots_uri": folder / "snapshots", "run_uri": folder / "run"}
    try:
        run(
            **{name: str(path) for name, path in arguments.items()},
            date=date,
            full_rebuild=full_rebuild,
            window_days=window_days,
            data_docs=str(folder / "docs"),
        )
    finally:
        outcome = outcome_of(folder)
    return outcome


def outcome_of(folder: Path) -> dict[str, Any]:
    path = folder / "run" / "outcomes" / "check_logs.json"
    return json.loads(path.read_text()) if path.exists() else {}


# ---------------------------------------------------------------------------------------------------- before Spark


def change_columns(logs: Path, change: str) -> None:
    rows = [row for name in "abcdef" for row in a_list(f"{DAYS[1]}-{name}")]
    fields = list(schema.IMPRESSIONS)
    if change == "missing":
        columns = [field for field in fields if field.name != "watch_seconds"]
    elif change == "renamed":
        columns = [pa.field("watch_secs", field.type) if field.name == "watch_seconds" else field for field in fields]
    elif change == "retyped":
        columns = [pa.field("position", pa.int64()) if field.name == "position" else field for field in fields]
    else:
        columns = [*fields, pa.field("dt", pa.string())]
    write(logs, "impressions", DAYS[1], rows, pa.schema(columns))


def damage(logs: Path) -> None:
    (logs / "requests" / f"dt={DAYS[1]}" / "part-0.parquet").write_bytes(b"PAR1 and no more")


def remove(logs: Path, table: str, dt: str) -> None:
    (logs / table / f"dt={dt}" / "part-0.parquet").unlink()


@pytest.mark.parametrize(
    ("defect", "told"),
    [
        pytest.param(
            lambda logs: write(logs, "requests", DAYS[1], []),
            ["no partition to be empty", f"table=requests dt={DAYS[1]}", "rows=0"],
            id="empty day",
        ),
        pytest.param(
            lambda logs: remove(logs, "impressions", DAYS[1]),
            ["a partition for every day", f"table=impressions dt={DAYS[1]}", "files=0"],
            id="missing day",
        ),
        pytest.param(
            lambda logs: remove(logs, "requests", DAYS[0]),
            ["a partition for every day", f"table=requests dt={DAYS[0]}"],
            id="gap in the window",
        ),
        pytest.param(
            lambda logs: remove(logs, "items", DAYS[0]),
            ["items and users at all", f"table=items dt={DAYS[0]}"],
            id="no items at all",
        ),
        pytest.param(damage, ["readable Parquet", "part-0.parquet"], id="truncated file"),
        pytest.param(
            lambda logs: change_columns(logs, "missing"),
            ["columns and types", "column=watch_seconds expected=double found=absent"],
            id="missing column",
        ),
        pytest.param(
            lambda logs: change_columns(logs, "renamed"),
            ["column=watch_seconds expected=double found=absent (renamed to watch_secs?)", "column=watch_secs"],
            id="renamed column",
        ),
        pytest.param(
            lambda logs: change_columns(logs, "retyped"),
            ["table=impressions", "column=position expected=int32 found=int64"],
            id="re-typed column",
        ),
        pytest.param(
            lambda logs: change_columns(logs, "extra"),
            ["column=dt expected=absent found=string"],
            id="extra column",
        ),
    ],
)
def test_files_that_break_the_contract_are_refused_before_spark(tmp_path: Path, defect: Any, told: list[str]) -> None:
    clean_logs(tmp_path / "logs", DAYS[:2])
    defect(tmp_path / "logs")
    with pytest.raises(DataRefused) as refused:
        night(tmp_path, DAYS[1])
    for part in (*told, "To mend:"):
        assert part in str(refused.value)
    outcome = outcome_of(tmp_path)
    assert (outcome["kind"], outcome["exit_code"]) == ("data_refused", 3)
    assert "pyspark" not in outcome["tool_seconds"]
    assert "index.html" in {path.name for path in (tmp_path / "docs").iterdir()}


def test_a_partition_folder_with_another_name_is_refused(tmp_path: Path) -> None:
    clean_logs(tmp_path / "logs", DAYS[:2])
    (tmp_path / "logs" / "requests" / "dt=2026-1-3").mkdir()
    with pytest.raises(DataRefused, match=r"dt=2026-1-3 found .* expected folders named dt=YYYY-MM-DD"):
        night(tmp_path, DAYS[1])


def test_a_date_that_is_no_day_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"date '\.\./2026' found, expected a day such as"):
        night(tmp_path, "../2026")


def test_no_logs_at_all_are_refused_by_the_date(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with pytest.raises(DataRefused, match=f"table=requests dt={DAYS[0]}"):
        night(tmp_path, DAYS[0])


SPOILT = {
    "manifest damaged": (lambda path: path.write_text("{"), {}),
    "another format": (lambda path: path.write_text('{"format": 0}'), {}),
    "code changed": (lambda path: commit_snapshot(path.parents[1], DAYS[:2], code_version="older"), {}),
    "window changed": (lambda path: None, {"window_days": 7}),
    "files gone": (lambda path: commit_snapshot(path.parents[1], DAYS[:2], state_rows={"users": 3}), {}),
    "rebuild asked for": (lambda path: path.write_text("{"), {"full_rebuild": True}),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_every_day_is_looked_at_where_extraction_will_read_every_day(tmp_path: Path, spoilt: str) -> None:
    """An old day is broken: found where the night is full, for whatever reason, and only there."""
    spoil, flags = SPOILT[spoilt]
    clean_logs(tmp_path / "logs", DAYS[:3])
    path = commit_snapshot(tmp_path / "snapshots", DAYS[:2])
    write(tmp_path / "logs", "requests", DAYS[0], [])
    spoil(path)
    with pytest.raises(DataRefused, match=f"no partition to be empty.*table=requests dt={DAYS[0]}"):
        night(tmp_path, DAYS[2], **flags)
    figures = outcome_of(tmp_path)["figures"]
    assert figures["days"] == [DAYS[0], DAYS[2]]
    assert figures["plan"].startswith("full: ")


def test_only_the_new_day_is_looked_at_where_extraction_goes_on(tmp_path: Path) -> None:
    clean_logs(tmp_path / "logs", DAYS[:3])
    commit_snapshot(tmp_path / "snapshots", DAYS[:2])
    write(tmp_path / "logs", "requests", DAYS[0], [])
    write(tmp_path / "logs", "requests", DAYS[2], [])
    with pytest.raises(DataRefused, match=f"found 1 of 2 rows otherwise.*table=requests dt={DAYS[2]}"):
        night(tmp_path, DAYS[2])
    assert outcome_of(tmp_path)["figures"]["days"] == [DAYS[2], DAYS[2]]


def test_writers_flavours_of_the_same_type_are_taken(tmp_path: Path) -> None:
    clean_logs(tmp_path, DAYS[:1])
    path = tmp_path / "requests" / f"dt={DAYS[0]}" / "part-0.parquet"
    table = pq.read_table(path)
    flavours = {"request_id": pa.large_string(), "candidates": pa.large_list(pa.int64()), "policy": pa.large_string()}
    table = table.cast(pa.schema([field.with_type(flavours.get(field.name, field.type)) for field in table.schema]))
    pq.write_table(table.set_column(5, "policy", table["policy"].cast(pa.string()).dictionary_encode()), path)
    frame = partitions.columns(partitions.tonights(tmp_path, DAYS[0], None))
    assert (frame.found == frame.expected).all()


# -------------------------------------------------------------------------------------------------------- with Spark


def test_clean_logs_pass_on_a_first_night(tmp_path: Path) -> None:
    clean_logs(tmp_path / "logs", DAYS[:3])
    outcome = night(tmp_path, DAYS[2])
    figures = outcome["figures"]
    assert (outcome["kind"], outcome["exit_code"]) == ("done", 0)
    assert figures["days"] == [DAYS[0], DAYS[2]]
    assert {table: figures["rows"][table] for table in schema.LOG_TABLES} == {
        "requests": 3 * 6 + 2,
        "impressions": (3 * 6 + 2) * SHOWN,
        "items": 6,
        "users": 1,
    }
    assert figures["warnings"] == figures["refused"] == []
    assert figures["not_judged"] == [f"the volume of {DAYS[2]} (fewer than 3 days before it)"]
    assert f"not judged: the volume of {DAYS[2]}" in outcome["reason"]
    pages = [path.name for path in (tmp_path / "docs" / "validations").rglob("*.html")]
    assert {f"{table}-{table}.html" for table in ("partitions", "columns", "days", *schema.LOG_TABLES)} <= set(pages)


def test_warnings_are_reported_and_do_not_stop_the_night(tmp_path: Path) -> None:
    """An incremental night: only the new day is read, late rows find their request on the days before."""
    clean_logs(tmp_path / "logs", DAYS)
    commit_snapshot(tmp_path / "snapshots", DAYS[:4], requests=7)
    last = DAYS[4]
    old = a_request(last, "old", event_time=at(DAYS[0]))
    write(tmp_path / "logs", "requests", last, [old, a_request(last, "b")])
    rows = [*a_list(old["request_id"]), *a_list(f"{last}-b"), shown(f"{DAYS[3]}-f", SHOWN)]
    write(tmp_path / "logs", "impressions", last, rows)
    outcome = night(tmp_path, last)
    assert outcome["kind"] == "done"
    assert outcome["figures"]["days"] == [last, last]
    assert outcome["figures"]["rows"]["requests"] == 2
    warnings = outcome["figures"]["warnings"]
    assert len(warnings) == 3
    assert "at most 2 times more or fewer rows" in warnings[0] and "table=impressions" in warnings[0]
    assert "within 3 days" in warnings[1] and f"request_id={last}-old" in warnings[1] and "days_late=4" in warnings[1]
    assert "at most 25% of the rows from earlier days" in warnings[2] and "late_share=0.5" in warnings[2]
    assert "3 of them with a warning" in outcome["reason"] and "not judged" not in outcome["reason"]


# ------------------------------------------------------------------------------------------------ volume, freshness


@pytest.mark.parametrize("usual", [600, 0.6], ids=["a tenth and less", "ten times and more"])
def test_a_volume_out_of_all_proportion_is_refused_before_spark(tmp_path: Path, usual: float) -> None:
    names = "abcdef" if usual > 1 else "abcdefghijkl"
    clean_logs(tmp_path / "logs", DAYS, names)
    logs = {"requests": 6, "impressions": 18} if usual > 1 else {"requests": 1, "impressions": 1}
    logs = {table: int(rows * max(usual / 6, 1)) for table, rows in logs.items()}
    commit_snapshot(tmp_path / "snapshots", DAYS[:4])
    path = tmp_path / "snapshots" / "manifests" / f"{DAYS[3]}.json"
    manifest = json.loads(path.read_text())
    for day in manifest["days"]:
        day["logs"] = logs
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataRefused, match=f"at most {VOLUME.critical:g} times more or fewer rows") as refused:
        night(tmp_path, DAYS[4])
    for told in (f"dt={DAYS[4]}", "rows=", f"usual_rows={float(logs['requests'])}", "`goalrank day accept DATE"):
        assert told in str(refused.value)
    outcome = outcome_of(tmp_path)
    assert outcome["exit_code"] == 3 and "pyspark" not in outcome["tool_seconds"]


def a_stale_day(logs: Path) -> None:
    """Tonight's partition holds what happened the day before."""
    clean_logs(logs, DAYS[:4])
    stale = [a_request(DAYS[4], name, event_time=at(DAYS[3], 5)) for name in "abcdef"]
    write(logs, "requests", DAYS[4], stale)
    write(logs, "impressions", DAYS[4], [row for request in stale for row in a_list(request["request_id"])])


def test_a_partition_of_another_day_is_refused_and_can_be_accepted(tmp_path: Path) -> None:
    a_stale_day(tmp_path / "logs")
    commit_snapshot(tmp_path / "snapshots", DAYS[:4], requests=6)
    with pytest.raises(DataRefused, match=f"days: expected an event in the last {SILENT_HOURS.critical:g} hours") as no:
        night(tmp_path, DAYS[4])
    newest = f"table=requests dt={DAYS[4]} newest_event={DAYS[3]} 05:00:00 late_rows=6 rows=6 silent_hours_tonight=43.0"
    assert newest in str(no.value)
    assert f"at most {LATE_ROWS.critical:.0%} of the rows from earlier days" in str(no.value)
    assert "`goalrank day accept DATE --reason TEXT`" in str(no.value)
    assert f"`goalrank day skip {DAYS[4]} --reason TEXT`" in str(no.value)
    day_decisions.record(tmp_path / "snapshots", DAYS[4], day_decisions.ACCEPT, "delivered late by a holiday")
    outcome = night(tmp_path, DAYS[4])
    assert outcome["kind"] == "done"
    assert len(outcome["figures"]["warnings"]) == 2


def amid_traffic(logs: Path) -> None:
    """Five clean days, and lists of requests from before the logs: on the first day, and parts of one on the third."""
    clean_logs(logs, DAYS)
    for dt, rows in ((DAYS[0], a_list("before-a")), (DAYS[2], [shown("before-b", 2), shown("before-b", 3)])):
        append(logs, "impressions", dt, rows)


def append(logs: Path, table: str, dt: str, rows: list[dict[str, Any]]) -> None:
    path = logs / table / f"dt={dt}" / "part-0.parquet"
    write(logs, table, dt, [*pq.read_table(path).to_pylist(), *rows])


def test_logs_that_begin_amid_traffic_are_taken_with_a_warning(tmp_path: Path) -> None:
    """Extraction leaves these impressions out (examples.check_attribution); a first night and the second alike."""
    amid_traffic(tmp_path / "logs")
    outcome = night(tmp_path, DAYS[4])
    assert (outcome["kind"], outcome["figures"]["refused"]) == ("done", [])
    (warning,) = outcome["figures"]["warnings"]
    assert "a request in the logs for each impression of their first 3 days" in warning
    assert "found 5 of" in warning
    assert "request_id=before-" in warning
    commit_snapshot(tmp_path / "snapshots", DAYS[:2])
    outcome = night(tmp_path, DAYS[2])
    (warning,) = outcome["figures"]["warnings"]
    assert (outcome["kind"], outcome["figures"]["days"]) == ("done", [DAYS[2], DAYS[2]])
    assert "found 2 of" in warning


def test_later_than_that_an_impression_without_a_request_is_refused(tmp_path: Path) -> None:
    clean_logs(tmp_path / "logs", DAYS)
    append(tmp_path / "logs", "impressions", DAYS[3], a_list("nobody-asked"))
    with pytest.raises(DataRefused, match="the request of each impression .* found 3 of"):
        night(tmp_path, DAYS[4])


WELL_FORMED = ("7", "a.b_c:d-e", "r" * 64)
MALFORMED = ("r" * 65, "two words", "line\n", "", "-begins", "caf\u00e9")


def test_the_services_pattern_is_that_of_the_gates_samples() -> None:
    assert all(re.fullmatch(schema.REQUEST_ID_PATTERN, name) for name in WELL_FORMED)
    assert not any(re.fullmatch(schema.REQUEST_ID_PATTERN, name) for name in MALFORMED)


def faulty_requests(dt: str) -> list[dict[str, Any]]:
    return [
        *(a_request(dt, name) for name in "abcdefghijklmnopq"),
        a_request(dt, "twice"),
        a_request(dt, "twice"),
        a_request(DAYS[0], "a"),  # logged two days ago
        a_request(dt, "nobody", user_id=None),
        a_request(dt, "none", candidates=[], candidate_scores=[]),
        a_request(dt, "null", candidates=[11, None], candidate_scores=[0.1, 0.2]),
        a_request(dt, "repeated", candidates=[11, 11], candidate_scores=[0.1, 0.2]),
        a_request(dt, "short", candidate_scores=[0.1]),
        a_request(dt, "nan", candidate_scores=[NAN, 0.5, 0.4, 0.3, 0.2, 0.1]),
        a_request(dt, "infinite", candidate_scores=[0.5, 0.5, 0.4, 0.3, -INFINITY, 0.1]),
        a_request(dt, "tomorrow", event_time=at(dt, 24)),
        a_request(dt, "padding", candidates=[11, 0, 13, 14, 15, 16]),
        a_request(dt, "user-0", user_id=0),
        *(a_request(dt, "", request_id=name) for name in MALFORMED),
        *(a_request(dt, "", request_id=name) for name in WELL_FORMED),
    ]


def faulty_impressions(dt: str) -> list[dict[str, Any]]:
    return [
        *a_list(f"{dt}-a"),
        shown(f"{dt}-a", 2, item_id=14),
        *(row for row in a_list(f"{dt}-b") if row["position"] != 2),
        *a_list(f"{dt}-c", {1: {"item_id": 99}}),
        *a_list(f"{dt}-d", {1: {"watch_seconds": -0.5}}),
        *a_list(f"{dt}-e", {1: {"watch_seconds": NAN}}),
        *a_list(f"{dt}-f", {1: {"click": 2}}),
        *a_list(f"{dt}-g", {1: {"like": -1}}),
        *a_list(f"{dt}-h", {1: {"propensity": 0.0}}),
        *a_list(f"{dt}-i", {1: {"propensity": NAN}}),
        *a_list(f"{dt}-j", {1: {"propensity": 1.5}}),
        *a_list(f"{dt}-k", {2: {"item_id": 11}}),
        *a_list(f"{dt}-l", {1: {"item_id": None}}),
        *a_list(f"{dt}-padding", {2: {"item_id": 0}}),
        *a_list("nobody-asked"),
        *[shown(f"{dt}-m", position, item_id=12 + position) for position in (0, 1, 2)],
        shown(f"{DAYS[0]}-b", 1),  # arrived two days ago already
    ]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """One incremental night with every row defect at once: the refusal, the outcome, the folder."""
    folder = tmp_path_factory.mktemp("faulty")
    dt = DAYS[2]
    clean_logs(folder / "logs", DAYS[:2])
    commit_snapshot(folder / "snapshots", DAYS[:2], chain={"first": "2025-12-01", "digest": ""})
    write(folder / "logs", "requests", dt, faulty_requests(dt))
    write(folder / "logs", "impressions", dt, faulty_impressions(dt))
    write(
        folder / "logs",
        "items",
        dt,
        [
            an_item(21, topics=[-1]),
            an_item(22, duration_seconds=NAN),
            an_item(23),
            an_item(23, title="other"),
            an_item(24, title=None),
            an_item(0),
        ],
    )
    write(
        folder / "logs",
        "users",
        dt,
        [a_user(2, attributes=["age"]), a_user(3, created_at=at(dt, 24)), a_user(None), a_user(-1)],
    )
    with pytest.raises(DataRefused) as refused:
        night(folder, dt)
    return str(refused.value), outcome_of(folder), folder


@pytest.mark.parametrize(
    ("check", "rows"),
    [
        ("requests: expected user_id never null", ["03-nobody"]),
        ("requests: expected each request_id to match", [f"found {len(MALFORMED)} of", "request_id_malformed=1"]),
        ("requests: expected each request_id once", ["03-twice", "01-a"]),
        ("requests: expected at least one candidate", ["03-none"]),
        ("requests: expected no null among the candidates", ["03-null"]),
        ("requests: expected distinct candidates", ["03-repeated"]),
        ("requests: expected as many candidate_scores", ["03-short", "scores_surplus=-5"]),
        ("requests: expected finite candidate_scores", ["03-nan", "03-infinite", "found 2 of"]),
        ("requests: expected item ids of 1 and above", ["03-padding", "smallest_candidate=0", "found 1 of"]),
        ("requests: expected user_id of 1 and above", ["03-user-0", "found 1 of"]),
        ("impressions: expected item_id of 1 and above", ["03-padding", "found 1 of"]),
        ("items: expected item_id of 1 and above", ["item_id=0", "found 1 of"]),
        ("users: expected user_id of 1 and above", ["user_id=-1", "found 1 of"]),
        ("requests: expected event_time no later", ["03-tomorrow", "days_late=-1", "2026-01-04"]),
        ("impressions: expected item_id never null", ["03-l"]),
        ("impressions: expected the request of each impression", ["nobody-asked", "found 3 of"]),
        ("impressions: expected positions counted from 1", ["03-m", "position=0"]),
        ("impressions: expected each (request_id, position) once", ["03-a", "position=2", "01-b"]),
        ("impressions: expected the positions of a request to be 1..k", ["03-b", "positions_missing=1"]),
        ("impressions: expected each item at most once in a list", ["03-k", "item_id=11"]),
        ("impressions: expected every shown item among the candidates", ["03-c", "item_id=99", "found 1 of"]),
        ("impressions: expected click 0 or 1", ["03-f", "click=2"]),
        ("impressions: expected like 0 or 1", ["03-g", "like=-1"]),
        ("impressions: expected propensity null or in (0, 1]", ["03-h", "03-i", "03-j", "found 3 of"]),
        ("impressions: expected watch_seconds null or a finite", ["03-d", "03-e", "found 2 of"]),
        ("items: expected title never null", ["item_id=24"]),
        ("items: expected each item_id once", ["item_id=23"]),
        ("items: expected topics of 0 and above", ["item_id=21"]),
        ("items: expected duration_seconds null or a finite", ["item_id=22"]),
        ("users: expected user_id never null", ["dt=2026-01-03"]),
        ("users: expected attributes written name=value", ["user_id=2"]),
        ("users: expected created_at no later", ["user_id=3"]),
    ],
)
def test_a_row_defect_is_named_with_its_rows_and_how_to_mend_it(
    faulty: tuple[str, dict[str, Any], Path], check: str, rows: list[str]
) -> None:
    message, outcome, _ = faulty
    named = [line for line in outcome["figures"]["refused"] if line.startswith(check)]
    assert len(named) == 1
    for row in (*rows, "for example", "To mend:"):
        assert row in named[0]
    assert named[0] in message


def test_three_malformed_request_ids_are_quoted(faulty: tuple[str, dict[str, Any], Path]) -> None:
    message, _, _ = faulty
    _, _, told = message.partition("each request_id to match")
    quoted = told.partition("To mend:")[0]
    assert quoted.count("request_id_malformed=1") == EXAMPLE_ROWS == 3
    assert sum(f"request_id={name}" in quoted for name in MALFORMED if name) >= EXAMPLE_ROWS - 1


def test_a_refusal_lists_nothing_else_and_keeps_its_data_docs(faulty: tuple[str, dict[str, Any], Path]) -> None:
    message, outcome, folder = faulty
    assert message.startswith(f"the logs of {DAYS[2]} break the data contract: requests: expected")
    assert (outcome["kind"], outcome["exit_code"]) == ("data_refused", 3)
    assert len(outcome["figures"]["refused"]) == 32  # one a row of the table above
    assert not outcome["figures"]["warnings"]
    assert (folder / "docs" / "index.html").is_file()
