"""Items day by day: content as it arrived, counters of arrival days, and the part of the state that is about items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F  # noqa: N812  (PySpark's own convention)

from goalrank import schema

if TYPE_CHECKING:
    from datetime import date

    from pyspark.sql import Column, DataFrame

STATS_DAYS = 7
"""Arrival days that the *_7d counters look back, the row's own day included."""

_COUNTS = ("impressions", "clicks", "likes")
_TOTALS = (*_COUNTS, "watch_ms")

STATE = (
    "item_id bigint, created_at timestamp, topic_mask bigint, impressions bigint, clicks bigint, likes bigint, "
    "watch_ms bigint, recent array<struct<day: date, impressions: bigint, clicks: bigint, likes: bigint>>"
)
"""One row per known item; `recent` holds the days with impressions among the last STATS_DAYS - 1."""


def topic_mask(topics: Column) -> Column:
    """A list of topics as one 64-bit mask: the OR of 1 << (topic % TOPIC_BUCKETS)."""

    def bit(topic: Column) -> Column:
        return F.call_function("shiftleft", F.lit(1).cast("bigint"), F.pmod(topic, F.lit(schema.TOPIC_BUCKETS)))

    return F.aggregate(topics, F.lit(0).cast("bigint"), lambda mask, topic: mask.bitwiseOR(bit(topic)))


def content_versions(items: DataFrame) -> DataFrame:
    """One row per (item_id, day) whose content arrived then; of several the last to arrive, then the greatest."""
    fields = ("arrived", "created_at", "duration_seconds", "title", "topic_mask")
    rows = items.withColumn("topic_mask", topic_mask(F.col("topics")))
    newest = rows.groupBy("item_id", "day").agg(F.max(F.struct(*fields)).alias("newest"))
    return newest.select("item_id", "day", *(F.col(f"newest.{name}").alias(name) for name in fields[1:]))


def daily_counts(seen: DataFrame) -> DataFrame:
    """Impressions, clicks, likes and watched milliseconds per (item_id, arrival day)."""
    return seen.groupBy("item_id", "day").agg(
        F.count("*").alias("impressions"),
        F.sum(F.col("click").cast("bigint")).alias("clicks"),
        F.sum(F.col("like").cast("bigint")).alias("likes"),
        F.sum("watch_ms").alias("watch_ms"),
    )


def item_days(versions: DataFrame, counts: DataFrame, state: DataFrame, first: date, last: date) -> DataFrame:
    """A row for every known item and every day from `first` to `last`: content as known that night, counters, totals.

    An item is known from its first content row or its first impression on; without content created_at and topic_mask
    are null.
    """
    ids = state.select("item_id").union(versions.select("item_id")).union(counts.select("item_id")).distinct()
    grid = ids.withColumn("day", F.explode(F.sequence(F.lit(first), F.lit(last))))
    before = state.withColumnsRenamed({name: f"state_{name}" for name in state.columns if name != "item_id"})
    rows = (
        grid.join(versions.select("item_id", "day", "created_at", "topic_mask"), ["item_id", "day"], "left")
        .join(counts, ["item_id", "day"], "left")
        .join(before, "item_id", "left")
        .withColumn("day_number", F.unix_date("day"))
    )
    until = Window.partitionBy("item_id").orderBy("day_number")
    week = until.rangeBetween(1 - STATS_DAYS, 0)
    known = F.last("created_at", ignorenulls=True).over(until).isNotNull() | (F.count("impressions").over(until) > 0)
    return rows.select(
        "item_id",
        "day",
        *(
            F.coalesce(F.last(name, ignorenulls=True).over(until), F.col(f"state_{name}")).alias(name)
            for name in ("created_at", "topic_mask")
        ),
        *((_zero(F.sum(name).over(until)) + _zero(F.col(f"state_{name}"))).alias(f"{name}_total") for name in _TOTALS),
        *((_zero(F.sum(name).over(week)) + _recent(name)).alias(f"{name}_7d") for name in _COUNTS),
        (known | F.col("state_impressions").isNotNull()).alias("known"),
    ).where("known")


def item_stats(days: DataFrame) -> DataFrame:
    """Rows of the item_stats view (without timestamps) of :func:`item_days`; age_days is null without content."""
    midnight_after = F.unix_date("day") + 1
    created = F.floor(F.unix_seconds("created_at") / F.lit(86400))
    return days.withColumn("age_days", (midnight_after - created).cast("bigint"))


def next_state(days: DataFrame, counts: DataFrame, state: DataFrame, last: date) -> DataFrame:
    """STATE as of `last`."""
    oldest = F.date_sub(F.lit(last), STATS_DAYS - 2)
    new = (
        counts.where(F.col("day") >= oldest)
        .groupBy("item_id")
        .agg(F.sort_array(F.collect_list(F.struct("day", *_COUNTS))).alias("new"))
    )
    kept = state.select("item_id", F.filter("recent", lambda row: row["day"] >= oldest).alias("kept"))
    rows = days.where(F.col("day") == F.lit(last)).join(kept, "item_id", "left").join(new, "item_id", "left")
    return rows.select(
        "item_id",
        "created_at",
        "topic_mask",
        *(F.col(f"{name}_total").alias(name) for name in _TOTALS),
        F.concat(F.coalesce("kept", F.array()), F.coalesce("new", F.array())).alias("recent"),
    )


def _zero(column: Column) -> Column:
    return F.coalesce(column, F.lit(0).cast("bigint"))


def _recent(name: str) -> Column:
    """What the state still knows of `name` for the days before the job's first that a row's week reaches back to."""
    inside = F.filter("state_recent", lambda row: row["day"] > F.date_sub(F.col("day"), STATS_DAYS))
    return _zero(F.aggregate(inside, F.lit(0).cast("bigint"), lambda total, row: total + row[name]))
