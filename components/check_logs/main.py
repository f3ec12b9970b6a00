"""Hold the log partitions that tonight's extraction reads against the data contract (docs/data-contract.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components import night_card
from components.check_logs import freshness, partitions
from components.data_gate import Gate
from components.extract_features import day_decisions, erasures, locations, version
from components.extract_features.plan import plan
from components.extract_features.snapshots import Snapshot
from components.spark import spark_session
from components.step import Step, run_alone
from components.the_night import day_of
from components.trailing_volume import FEWEST_TRAILING_DAYS
from goalrank import schema

if TYPE_CHECKING:
    import pandas as pd

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
    workspace_uri: str = "",
) -> None:
    """Check the arrival days tonight reads: all up to `date` on a first night or a rebuild, else the new ones.

    Which of the two it is, extraction's own plan says: a changed code or window makes it read every day again, too.

    Args:
        logs_uri: root of the logs (requests/, impressions/, items/, users/ with dt=YYYY-MM-DD folders).
        snapshots_uri: root of the snapshots; extraction's plan says which one it goes on from.
        date: tonight's arrival day, YYYY-MM-DD, `before YYYY-MM-DD`, or `auto` (components/the_night.py).
        full_rebuild: read every day again.
        data_docs: folder for Great Expectations' static site; written when the data are refused, too.
        run_uri: the run's folder.
        spark_master: where Spark runs.
        spark_memory: memory of Spark's driver.
        window_days: as extract_features is told.
        workspace_uri: on a cluster, the folder in which the night is to leave its card (components/night_card.py).

    Raises:
        DataRefused: a critical check failed; names each one, what was found and how to mend it.
        UsageError, TryAgain: as night_card.begin.
    """
    with Step("check_logs", run_uri) as step:
        date = day_of(date, run_uri)
        night_card.begin(workspace_uri, run_uri, date, logs_uri)
        logs = locations.folder(logs_uri)
        configuration = version.configuration(window_days, erasures.read(locations.folder(snapshots_uri)))
        root = locations.folder(snapshots_uri)
        planned = plan(root, date, full_rebuild, version.code_version(), configuration)
        decisions = day_decisions.read(root)
        earlier = planned.previous
        with step.tool("great_expectations"):
            gate = Gate("check_logs", data_docs)
            from components.check_logs import suites
        with gate:
            chain_first = earlier.manifest["chain"]["first"] if earlier else None
            reading = partitions.tonights(logs, date, earlier.date if earlier else None, chain_first, decisions.skipped)
            step.figures |= {
                "days": [reading.days[0], reading.days[-1]],
                "plan": f"{planned.mode}: {planned.reason}",
                "skipped": list(reading.skipped),
            }
            tonight = reading.days if earlier else reading.days[-1:]
            refusable = [day for day in tonight if day not in decisions.accepted]
            survey = partitions.survey(reading, _earlier_rows(earlier))
            _say_what_is_not_judged(gate, survey, refusable)
            survey = freshness.tonight_only(survey, ["times_usual"], refusable)
            gate.check("partitions", survey, suites.partitions(), ["table", "dt", "unreadable", "rows", "usual_rows"])
            columns = partitions.columns(reading)
            if len(columns):
                told = ["table", "dt", "file", "column", "expected", "found"]
                gate.check("columns", columns, suites.columns(), told, examples=len(columns))
            # Spark would crash or read nulls where a file or column is not what it should be.
            if not gate.refused:
                with_rows = [table for table in schema.LOG_TABLES if survey.rows[survey.table == table].sum()]
                promised = {table: int(survey.rows[survey.table == table].sum()) for table in with_rows}
                _check_rows(step, gate, logs, reading, promised, refusable, spark_master, spark_memory)
        what = f"the logs of {reading.days[0]} to {date}" if len(reading.days) > 1 else f"the logs of {date}"
        gate.decide(step, what, day_decisions.way_out(reading.days))


def _check_rows(
    step: Step,
    gate: Gate,
    logs: Path,
    reading: partitions.Reading,
    tables: dict[str, int],
    refusable: list[str],
    spark_master: str,
    spark_memory: str,
) -> None:
    """Every row of the given tables (with the rows their footers promise), prepared in Spark and judged there."""
    import pandas as pd

    reads = locations.bytes_of(file for part in (*reading.recent, *reading.partitions) for file in part.files)
    with spark_session(step, spark_master, spark_memory, reads) as spark:
        from components.check_logs import prepare, suites

        for pruning in PRUNING_BY_STATISTICS:
            spark.conf.set(pruning, "false")
        figures = {}
        for number, table in enumerate(tables):
            step.progress(number, len(tables), table)
            frame = getattr(prepare, table)(spark, logs, reading).persist()
            gate.check(table, frame, getattr(suites, table)(), KEYS[table])
            if table in schema.DAILY_TABLES and table not in gate.crashed:
                figures[table] = prepare.day_figures(frame)
            frame.unpersist()
        step.progress(len(tables), len(tables))
    read = pd.DataFrame(
        [{"table": table, "promised": rows, "read": gate.rows[table]} for table, rows in tables.items()]
    )
    gate.check("read", read, suites.read(), ["table", "promised", "read"])
    if figures:
        days = freshness.tonight_only(freshness.of_days(figures), ["silent_hours", "late_share"], refusable)
        gate.check("days", days, suites.days(), ["table", "dt", "newest_event", "late_rows", "rows"])


def _earlier_rows(earlier: Snapshot | None) -> dict[str, dict[str, int]]:
    """table -> dt -> rows the logs had on the days that an earlier night read."""
    days = earlier.manifest["days"] if earlier is not None else []
    return {table: {day["dt"]: day["logs"][table] for day in days if "logs" in day} for table in schema.DAILY_TABLES}


def _say_what_is_not_judged(gate: Gate, survey: pd.DataFrame, tonight: list[str]) -> None:
    judged = survey[survey.table.isin(schema.DAILY_TABLES) & survey.dt.isin(tonight)]
    without = judged[judged.times_usual.isna()]
    if len(without):
        gate.leave_unjudged(
            f"the volume of {', '.join(sorted(set(without.dt)))} (fewer than {FEWEST_TRAILING_DAYS} days before it)"
        )


if __name__ == "__main__":
    run_alone(run)
