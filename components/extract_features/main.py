"""Logs to a snapshot of features, examples and state; incremental where last night's snapshot can be gone on from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from components.extract_features.night import extract
from components.spark import spark_session
from components.step import Step, run_alone

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(
    logs_uri: str,
    snapshots_uri: str,
    date: str,
    full_rebuild: bool,
    window_days: int,
    snapshot: str,
    run_uri: str,
    spark_master: str = "local[2]",
    spark_memory: str = "1g",
) -> None:
    """Extract the arrival days up to `date` and commit them as that date's snapshot.

    Args:
        logs_uri: root of the logs (requests/, impressions/, items/, users/ with dt=YYYY-MM-DD folders).
        snapshots_uri: root of the snapshots.
        date: tonight's arrival day, YYYY-MM-DD.
        full_rebuild: make every day of the logs again instead of going on from the last snapshot.
        window_days: how many days the snapshot names; at least 1.
        snapshot: where the snapshot artifact (JSON) is written.
        run_uri: the run's folder.
        spark_master: where Spark runs.
        spark_memory: memory of Spark's driver.

    Raises:
        DataRefused: a day is missing, a column is not the contract's, an impression belongs to no request.
        UsageError: a parameter makes no sense.
        TryAgain: another extraction is writing there, or Spark does not start.
    """
    with Step("extract_features", run_uri) as step:

        def session(reads: int) -> AbstractContextManager[SparkSession]:
            return spark_session(step, spark_master, spark_memory, reads)

        extract(step, session, logs_uri, snapshots_uri, date, full_rebuild, window_days).save(snapshot)


if __name__ == "__main__":
    run_alone(run)
