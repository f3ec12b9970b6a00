"""Users day by day: profile as it arrived, counters, topic clicks and click history, folded over a user's arrival days.

One fold per user instead of a loop over days: its value after each day is that day's row, its last value the state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812  (PySpark's own convention)

from goalrank import schema

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_TOTALS = ("impressions", "clicks", "likes", "watch_ms", "active_days")
_HISTORY = "array<struct<event_time: timestamp, request_id: string, position: int, item_id: bigint>>"
_HISTORY_KEY = ("event_time", "request_id", "position", "item_id")

STATE = (
    "user_id bigint, impressions bigint, clicks bigint, likes bigint, watch_ms bigint, active_days bigint, "
    f"topic_clicks array<bigint>, history {_HISTORY}"
)
"""One row per user with impressions; `history` is newest first, so that its head is what to keep."""


def profiles(users: DataFrame) -> DataFrame:
    """One row per (user_id, day) whose profile arrived then; of several the last to arrive, then the greatest."""
    newest = users.groupBy("user_id", "day").agg(F.max(F.struct("arrived", "created_at", "attributes")).alias("newest"))
    return newest.select("user_id", "day", F.col("newest.attributes").alias("attributes"))


def fold(seen: DataFrame, masks: DataFrame, state: DataFrame) -> DataFrame:
    """One row per user: `steps`, the user's STATE before the job's days and after each day with impressions.

    `masks` (item_id, day, topic_mask) says what was known of an item at the end of each day.
    """
    names = ("day", "impressions", "clicks", "likes", "watch_ms", "active_days", "topic_clicks", "clicked")
    days = _user_days(seen, masks).groupBy("user_id").agg(F.sort_array(F.collect_list(F.struct(*names))).alias("days"))
    start = F.struct(
        F.lit(None).cast("date").alias("day"),
        *(F.coalesce(F.col(name), F.lit(0).cast("bigint")).alias(name) for name in _TOTALS),
        F.coalesce("topic_clicks", F.array_repeat(F.lit(0).cast("bigint"), schema.TOPIC_BUCKETS)).alias("topic_clicks"),
        F.coalesce("history", F.array().cast(_HISTORY)).alias("history"),
    )

    def after(steps: Column, day: Column) -> Column:
        before = F.element_at(steps, -1)
        step = F.struct(
            day["day"].alias("day"),
            *((before[name] + day[name]).alias(name) for name in _TOTALS),
            F.zip_with(before["topic_clicks"], day["topic_clicks"], lambda one, other: one + other).alias(
                "topic_clicks"
            ),
            _newest(F.concat(before["history"], day["clicked"])).alias("history"),
        )
        return F.concat(steps, F.array(step))

    joined = state.join(days, "user_id", "full_outer")
    no_days = F.filter("days", lambda day: F.lit(False))
    return joined.select(
        "user_id", F.aggregate(F.coalesce("days", no_days, F.array()), F.array(start), after).alias("steps")
    )


def user_days(folded: DataFrame) -> DataFrame:
    """A row per user and day with impressions: STATE's columns and `day`."""
    return folded.select("user_id", F.inline(F.slice("steps", F.lit(2), F.size("steps"))))


def histories(days: DataFrame, masks: DataFrame) -> DataFrame:
    """Rows of the user_history view: the items of each history, oldest first, as known that night."""
    entries = days.select(
        "user_id", "day", F.posexplode_outer(F.reverse(F.col("history.item_id"))).alias("at", "item_id")
    )
    entry = F.struct("at", "item_id", F.coalesce("topic_mask", F.lit(0).cast("bigint")).alias("topic_mask"))
    rows = (
        entries.join(masks, ["item_id", "day"], "left")
        .groupBy("user_id", "day")
        .agg(F.sort_array(F.collect_list(F.when(F.col("at").isNotNull(), entry))).alias("entries"))
    )
    return rows.select(
        "user_id",
        "day",
        F.col("entries.item_id").alias("history_items"),
        F.col("entries.topic_mask").alias("history_topics"),
    )


def next_state(folded: DataFrame) -> DataFrame:
    """STATE after the last day, users without impressions in these days included."""
    return folded.select("user_id", F.element_at("steps", -1).alias("step")).select("user_id", "step.*").drop("day")


def _user_days(seen: DataFrame, masks: DataFrame) -> DataFrame:
    clicked = F.col("click") > 0
    mask = F.coalesce("topic_mask", F.lit(0).cast("bigint"))
    buckets = [
        F.sum(F.when(clicked, F.shiftright(mask, bucket).bitwiseAND(1)).otherwise(0).cast("bigint"))
        for bucket in range(schema.TOPIC_BUCKETS)
    ]
    return (
        seen.join(masks, ["item_id", "day"], "left")
        .groupBy("user_id", "day")
        .agg(
            F.count("*").alias("impressions"),
            F.sum(F.col("click").cast("bigint")).alias("clicks"),
            F.sum(F.col("like").cast("bigint")).alias("likes"),
            F.sum("watch_ms").alias("watch_ms"),
            F.lit(1).cast("bigint").alias("active_days"),
            F.array(*buckets).alias("topic_clicks"),
            _newest(F.collect_list(F.when(clicked, F.struct(*_HISTORY_KEY)))).alias("clicked"),
        )
    )


def _newest(history: Column) -> Column:
    return F.slice(F.sort_array(history, asc=False), 1, schema.HISTORY_LENGTH)
