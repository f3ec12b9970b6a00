"""Requests and impressions brought together: whom an impression belongs to, and one example a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812  (PySpark's own convention)

from goalrank import schema
from goalrank.errors import DataRefused

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date

    from pyspark.sql import DataFrame

STATE = "request_id string, user_id bigint, event_time timestamp, day date"
"""Requests of the last LATENESS_DAYS days: impressions of theirs may still arrive."""


def attribute(impressions: DataFrame, requests: DataFrame, state: DataFrame) -> DataFrame:
    """Impressions with the user_id, event_time and arrival day of their request (null: no such request in reach)."""
    columns = [F.col(name) for name in ("user_id", "event_time", "request_id")]
    asked = state.select(*columns, F.col("day").alias("request_day")).unionByName(
        requests.select(*columns, F.col("day").alias("request_day"))
    )
    in_reach = (
        (impressions["request_id"] == asked["request_id"])
        & (F.col("request_day") <= F.col("day"))
        & (F.col("request_day") >= F.date_sub(F.col("day"), schema.LATENESS_DAYS))
    )
    watched = F.rint(F.col("watch_seconds") * 1000).cast("bigint")
    return impressions.join(asked, in_reach, "left").select(
        *(impressions[name] for name in schema.IMPRESSIONS.names),
        "day",
        "user_id",
        "event_time",
        "request_day",
        F.coalesce(watched, F.lit(0).cast("bigint")).alias("watch_ms"),
    )


def check_attribution(attributed: DataFrame, impressions: DataFrame, incomplete: Collection[str]) -> dict[str, int]:
    """Counts of late impressions and of those left out, in one Spark action.

    An impression without a request is left out on the `incomplete` days (YYYY-MM-DD): its request may have arrived
    before the logs begin or on a skipped day. On any other day it is refused.

    Raises:
        DataRefused: impressions whose request is missing or arrived more than LATENESS_DAYS days before, or two
            requests with one request_id.
    """
    orphan = F.col("user_id").isNull()
    excused = F.date_format("day", "yyyy-MM-dd").isin(list(incomplete))
    found = (
        attributed.agg(
            F.count("*").alias("rows"),
            F.count_if(orphan & excused).alias("left_out"),
            F.count_if(orphan & ~excused).alias("orphans"),
            F.min(F.when(orphan & ~excused, F.col("request_id"))).alias("example"),
            F.count_if(F.col("request_day") < F.col("day")).alias("late"),
        )
        .crossJoin(impressions.agg(F.count("*").alias("arrived")))
        .collect()[0]
    )
    if found["orphans"]:
        raise DataRefused(
            f"{found['orphans']} impressions have no request (request_id {found['example']!r} is one), expected one "
            f"that arrived on their day or up to {schema.LATENESS_DAYS} days before; bring the requests or drop them"
        )
    if found["rows"] != found["arrived"]:
        raise DataRefused(
            f"{found['rows'] - found['arrived']} impressions match two requests: a request_id arrived twice; "
            "request ids are unique over all days"
        )
    return {"late_impressions": found["late"], "impressions_before_logs": found["left_out"]}


def examples(requests: DataFrame, seen: DataFrame) -> DataFrame:
    """schema.EXAMPLES and `day`: requests with impressions that arrived the same day, arrays in list order."""
    row = F.struct("position", "item_id", "propensity", "click", "like", "watch_seconds")
    lists = (
        seen.where(F.col("request_day") == F.col("day"))
        .groupBy("request_id", "day")
        .agg(
            F.sort_array(F.collect_list(row)).alias("shown"),
            F.count("propensity").alias("propensities_known"),
            F.count("watch_seconds").alias("watch_known"),
        )
    )
    return requests.join(lists, ["request_id", "day"]).select(
        *schema.REQUESTS.names,
        F.date_format("day", "yyyy-MM-dd").alias("dt"),
        F.col("shown.item_id").alias("slate"),
        F.when(F.col("propensities_known") > 0, F.col("shown.propensity")).alias("propensities"),
        F.col("shown.click").alias("clicks"),
        F.col("shown.like").alias("likes"),
        F.when(F.col("watch_known") > 0, F.col("shown.watch_seconds")).alias("watch_seconds"),
        "day",
    )


def next_state(requests: DataFrame, state: DataFrame, last: date) -> DataFrame:
    """STATE as of `last`."""
    columns = ("request_id", "user_id", "event_time", "day")
    recent = state.select(*columns).unionByName(requests.select(*columns))
    return recent.where(F.col("day") > F.date_sub(F.lit(last), schema.LATENESS_DAYS))
