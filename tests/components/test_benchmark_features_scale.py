"""benchmarks/features_scale.py in small: DuckDB's rows are Spark's, a change is seen, and the claims' form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks import features_scale, report
from benchmarks.feature_logs import LogSize, days, write_logs
from benchmarks.features_duckdb import rebuild
from benchmarks.features_scale import FULL, NIGHT, RIVAL, SHORT_NIGHT, tables_that_differ
from benchmarks.features_scale_figure import draw
from components.extract_features import night
from components.extract_features.snapshots import TABLES, Snapshot, read_files
from components.spark import spark_session
from components.step import Step
from goalrank import schema
from tests.components.log_samples import random_logs

DAYS = 9


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with spark_session(Step("test_features_scale", str(tmp_path_factory.mktemp("run")))) as session:
        yield session


def made_twice(spark: Any, logs: Path, folder: Path, first: str, last: str) -> tuple[Snapshot, Path]:
    """The same full job by Spark and by DuckDB."""
    step = Step("extract_features", str(folder / "run"))
    snapshot = night.extract(
        step, lambda _: nullcontext(spark), str(logs), str(folder / "snapshots"), last, False, DAYS
    )
    read = rebuild(logs, folder / "duckdb", first, last, 2, "1GB")["impressions"]
    assert read == step.figures["log_rows"]["impressions"] > 0
    return snapshot, folder / "duckdb"


def of_duckdb(out: Path, day: str, table: str) -> pa.Table:
    return read_files([str(out / "days" / day / table / "part-00000.parquet")], TABLES[table])


@pytest.mark.parametrize("odd", [True, False])
def test_duckdbs_tables_are_sparks(spark: Any, tmp_path: Path, odd: bool) -> None:
    """On logs with everything odd that the contract allows (full histories too), and on the benchmark's own."""
    names = days(DAYS)
    if odd:
        logs = random_logs(seed=7, first=names[0], days=DAYS, users=3, requests=16).write(tmp_path / "logs")
    else:
        logs = tmp_path / "logs"
        list(write_logs(logs, LogSize(240), DAYS))
    snapshot, out = made_twice(spark, logs, tmp_path, names[0], names[-1])
    for day in snapshot.days:
        for table in TABLES:
            key = "request_id" if table == "examples" else schema.FEATURE_VIEWS[table].entity
            ours = snapshot.read_examples([day]) if table == "examples" else snapshot.read_view(table, [day])
            assert of_duckdb(out, day, table).sort_by(key).equals(ours.sort_by(key)), (day, table)
    assert tables_that_differ(snapshot, out) == 0

    file = out / "days" / names[-1] / "item_stats" / "part-00000.parquet"
    rows = pq.read_table(file)
    at = rows.schema.get_field_index("clicks_total")
    pq.write_table(rows.set_column(at, rows.schema.field(at), pc.add(rows["clicks_total"], 1)), file)
    assert tables_that_differ(snapshot, out) == 1
    if odd:
        assert max(map(len, snapshot.read_view("user_history")["history_items"].to_pylist())) == schema.HISTORY_LENGTH


def test_duckdb_refuses_what_spark_refuses(tmp_path: Path) -> None:
    world = random_logs(seed=1, first=days(1)[0], days=6)
    world.impression(world.days[-1], "nobody", 1, 3)
    with pytest.raises(ValueError, match="1 impressions without a request, 0 with two"):
        rebuild(world.write(tmp_path / "logs"), tmp_path / "out", world.days[0], world.days[-1], 1, "1GB")


def test_the_logs_keep_the_contract(tmp_path: Path) -> None:
    size = LogSize(600)
    shown = sum(write_logs(tmp_path, size, 5))
    requests = read_files(sorted(map(str, tmp_path.glob("requests/*/*.parquet"))), schema.REQUESTS)
    impressions = read_files(sorted(map(str, tmp_path.glob("impressions/*/*.parquet"))), schema.IMPRESSIONS)
    assert len(impressions) == shown
    assert len(set(requests["request_id"].to_pylist())) == len(requests) == 5 * size.requests
    assert 5 * 600 * 0.97 < shown < 5 * 600  # the last days' late ones never arrive
    candidates = {row["request_id"]: row["candidates"] for row in requests.to_pylist()}
    assert all(len(set(offered)) == 50 and min(offered) >= schema.SMALLEST_ID for offered in candidates.values())
    assert all(row["item_id"] in candidates[row["request_id"]] for row in impressions.to_pylist())


def rows_of_one(impressions: int, full: float, night_s: float, differ: int, memory: float) -> list[dict[str, Any]]:
    found = [(FULL, full), (RIVAL, full / 2), (NIGHT, night_s), (SHORT_NIGHT, night_s / 1.1)]
    rows = [{"impressions": impressions, "job": job, "job_s": took, "peak_mb": memory} for job, took in found]
    rows[1]["tables_that_differ"] = differ
    return rows


def test_claims_figure_and_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {
        1_000_000: rows_of_one(1_000_000, 40.0, 20.0, 1, 1000.0),
        50_000_000: rows_of_one(50_000_000, 500.0, 40.0, 0, 1300.0),
    }
    asked = []

    def rows_for(case: features_scale.Case, folder: Path) -> list[dict[str, Any]]:
        asked.append(case.impressions)
        return made[case.impressions]

    monkeypatch.setattr(features_scale, "rows_for", rows_for)
    flags = ["--sizes", "1,50", "--keep", str(tmp_path / "kept"), "--json", str(tmp_path / "f.json")]
    for _ in range(2):
        report.run("features_scale", features_scale.rows_of, argv=flags, figure=draw, options=features_scale.OPTIONS)
    assert asked == [1_000_000, 50_000_000]  # the second time both were there
    document = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert document["complete"] and (tmp_path / "f.png").stat().st_size > 10_000
    found = {one["name"]: (round(one["value"], 3), one["target"], one["holds"]) for one in document["claims"]}
    assert found == {
        "1 M: tables that differ from DuckDB's": (1, "at most 0", False),
        "1 M: a night over 30 days over one over 7": (1.1, f"at most {features_scale.WINDOW_GROWTH:g}", True),
        "50 M: tables that differ from DuckDB's": (0, "at most 0", True),
        "50 M: a night over 30 days over one over 7": (1.1, f"at most {features_scale.WINDOW_GROWTH:g}", True),
        f"50 M: {FULL} over a night": (12.5, f"at least {features_scale.OVER_FULL:g}", True),
        f"50 M: {RIVAL} over a night": (6.25, f"at least {features_scale.OVER_DUCKDB:g}", True),
        "memory of the full job, 50 M over 1 M": (1.3, f"at most {features_scale.MEMORY_GROWTH:g}", False),
    }
