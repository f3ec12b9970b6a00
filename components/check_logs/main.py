"""Hold the log partitions that tonight's extraction reads against the data contract (docs/data-contract.md)."""

from __future__ import annotations

from pathlib import Path

from components.check_logs import partitions
from components.data_gate import Gate
from components.extract_features import locations, version
from components.extract_features.plan import plan
from components.extract_features.snapshots import Snapshot
from components.spark import spark_session
from components.step import Step, run_alone
from goalrank import schema

KEYS = {
    "requests": ["dt", "request_id", "event_time"],
    "impressions": ["dt", "request_id", "position", "item_id"],
    "items": ["dt", "item_id"],
    "users": ["dt", "user_id"],
}
"""What tells a person which row is meant."""

PRUNING_BY_STATISTICS = ("spark.sql.inMemoryColumnarStorage.partitionPruning", "spark.sql.parquet.filterPushdown")
"""Spark settings that skip blocks by their smallest and largest value: these leave NaN out, so a filter that looks for
values out of range would not find it."""


def run(
    logs_uri: str,
    snapshots_uri: str,
    date: str,
    full_rebuild: bool,
    data_docs: str,
    run_uri: str,
    spark_master: str = "local[2]",
    spark_memory: str = "1g",
    window_days: int = 30,
) -> None:
    """Check the arrival days tonight reads: all up to `date` on a first night or a rebuild, else the new ones.

    Which of the two it is, extraction's own plan says: a changed code or window makes it read every day again, too.

    Args:
        logs_uri: root of the logs (requests/, impressions/, items/, users/ with dt=YYYY-MM-DD folders).
        snapshots_uri: root of the snapshots; extraction's plan says which one it goes on from.
        date: tonight's arrival day, YYYY-MM-DD.
        full_rebuild: read every day again.
        data_docs: folder for Great Expectations' static site; written when the data are refused, too.
        run_uri: the run's folder.
        spark_master: where Spark runs.
        spark_memory: memory of Spark's driver.
        window_days: as extract_features is told.

    Raises:
        DataRefused: a critical check failed; names each one, what was found and how to mend it.
    """
    with Step("check_logs", run_uri) as step:
        locations.day(date)
        logs = locations.folder(logs_uri)
        configuration = version.configuration(window_days)
        planned = plan(locations.folder(snapshots_uri), date, full_rebuild, version.code_version(), configuration)
        earlier = planned.previous
        with step.tool("great_expectations"):
            gate = Gate("check_logs", data_docs)
            from components.check_logs import suites
        with gate:
            chain_first = earlier.manifest["chain"]["first"] if earlier else None
            reading = partitions.tonights(logs, date, earlier.date if earlier else None, chain_first)
            step.figures |= {"days": [reading.days[0], reading.days[-1]], "plan": f"{planned.mode}: {planned.reason}"}
            survey = partitions.survey(reading, _earlier_rows(earlier))
            gate.check("partitions", survey, suites.partitions(), ["table", "dt", "unreadable", "usual_rows"])
            columns = partitions.columns(reading)
            if len(columns):
                told = ["table", "dt", "file", "column", "expected", "found"]
                gate.check("columns", columns, suites.columns(), told, examples=len(columns))
            # Spark would crash or read nulls where a file or column is not what it should be.
            if not gate.refused:
                with_rows = [table for table in schema.LOG_TABLES if survey.rows[survey.table == table].sum()]
                _check_rows(step, gate, logs, reading, with_rows, spark_master, spark_memory)
        gate.decide(
            step, f"the logs of {reading.days[0]} to {date}" if len(reading.days) > 1 else f"the logs of {date}"
        )


def _check_rows(
    step: Step,
    gate: Gate,
    logs: Path,
    reading: partitions.Reading,
    tables: list[str],
    spark_master: str,
    spark_memory: str,
) -> None:
    """Every row of the given tables, prepared once in Spark and judged by Great Expectations."""
    with spark_session(step, spark_master, spark_memory) as spark:
        from components.check_logs import prepare, suites

        for pruning in PRUNING_BY_STATISTICS:
            spark.conf.set(pruning, "false")
        for number, table in enumerate(tables):
            step.progress(number, len(tables), table)
            frame = getattr(prepare, table)(spark, logs, reading).persist()
            gate.check(table, frame, getattr(suites, table)(), KEYS[table])
            frame.unpersist()
        step.progress(len(tables), len(tables))


def _earlier_rows(earlier: Snapshot | None) -> dict[str, dict[str, int]]:
    """table -> dt -> rows the logs had on the days that an earlier night read."""
    days = earlier.manifest["days"] if earlier is not None else []
    return {table: {day["dt"]: day["logs"][table] for day in days if "logs" in day} for table in schema.DAILY_TABLES}


if __name__ == "__main__":
    run_alone(run)
