"""THE job: a state and new arrival days in, the rows of each of those days and the state after the last one out.

An incremental night is advance(yesterday's state, [tonight]); a full rebuild advance(nothing, every day). Both run the
same code over whole frames, on integers and total orders, so their rows are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812  (PySpark's own convention)

from components.extract_features import erasures, examples, item_features, user_features
from components.extract_features.log_partitions import spark_columns
from components.extract_features.snapshots import EXAMPLES_TABLE
from goalrank import schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

STATE = {"requests": examples.STATE, "users": user_features.STATE, "items": item_features.STATE}
"""Columns of each state table, as Spark writes them."""

STATE_KEYS = {"requests": "request_id", "users": "user_id", "items": "item_id"}


@dataclass(frozen=True)
class Advanced:
    """What :func:`advance` made.

    Attributes:
        tables: the views of schema.FEATURE_VIEWS and the examples, each with its contract's columns and `day` (a date).
        state: the tables of STATE after the last day.
        counts: late impressions, and impressions left out since their request predates the logs.
        release: gives back what is held in memory; call it when everything is written.
    """

    tables: dict[str, DataFrame]
    state: dict[str, DataFrame]
    counts: dict[str, int]
    release: Callable[[], None]


def empty_state(spark: SparkSession) -> dict[str, DataFrame]:
    """The state before any day."""
    return {name: spark.createDataFrame([], columns) for name, columns in STATE.items()}


def advance(
    state: dict[str, DataFrame], logs: dict[str, DataFrame], first: date, last: date, incomplete: Collection[str]
) -> Advanced:
    """Rows of every day from `first` to `last`.

    Args:
        state: the tables of STATE at the end of the day before `first`.
        logs: schema.LOG_TABLES' columns, `arrived` and `day` (log_partitions), rows of these days only.
        first, last: the arrival days to make, none missing between them.
        incomplete: days (YYYY-MM-DD) on which impressions may arrive whose request nobody has read
            (log_partitions.incomplete_days).

    Raises:
        DataRefused: impressions that belong to no request, or to two.
    """
    attributed = examples.attribute(logs["impressions"], logs["requests"], state["requests"]).cache()
    counts = examples.check_attribution(attributed, logs["impressions"], incomplete)
    seen = attributed.where(F.col("user_id") != erasures.NOBODY)  # null, an orphan, is not unequal either

    versions = item_features.content_versions(logs["items"])
    shown = item_features.daily_counts(seen)
    item_days = item_features.item_days(versions, shown, state["items"], first, last).cache()
    masks = item_days.select("item_id", "day", "topic_mask")

    folded = user_features.fold(seen, masks, state["users"]).cache()
    user_days = user_features.user_days(folded)

    made = {
        "user_profile": user_features.profiles(logs["users"]),
        "user_stats": user_days,
        "user_history": user_features.histories(user_days, masks),
        "item_content": versions,
        "item_stats": item_features.item_stats(item_days),
    }
    tables = {name: _view_rows(frame, schema.FEATURE_VIEWS[name]) for name, frame in made.items()}
    tables[EXAMPLES_TABLE] = _typed(examples.examples(logs["requests"], seen), schema.EXAMPLES)
    after = {
        "requests": examples.next_state(logs["requests"], state["requests"], last),
        "users": user_features.next_state(folded),
        "items": item_features.next_state(item_days, shown, state["items"], last),
    }

    def release() -> None:
        for frame in (attributed, item_days, folded):
            frame.unpersist()

    return Advanced(tables, after, counts, release)


def _view_rows(frame: DataFrame, view: schema.FeatureView) -> DataFrame:
    """The view's columns; a row says what was known at the end of its day: the next midnight, UTC."""
    midnight = F.timestamp_seconds((F.unix_date("day") + 1) * F.lit(86400).cast("bigint"))
    stamped = frame.withColumn("event_timestamp", midnight).withColumn("created_timestamp", midnight)
    return _typed(stamped, view.schema)


def _typed(frame: DataFrame, contract: pa.Schema) -> DataFrame:
    """The contract's columns and `day`, all nullable: else nullability, and so the files' types, vary by day."""
    pattern = frame.sparkSession.createDataFrame([], f"{spark_columns(contract)}, day date")
    return pattern.unionByName(frame.select(*contract.names, "day"))
