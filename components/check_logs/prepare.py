"""The columns the suites judge, derived from the logs once, in Spark.

Each function returns one narrow frame (no arrays) with a row per log row of tonight's days and `dt`, so that the suites
are plain column checks and the frame fits a small cache. A derived column is null where its inputs are: the not-null
checks name those rows, and no other check does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from components.check_logs.partitions import Reading
from components.extract_features.locations import for_spark
from goalrank import schema

REQUEST_ID = schema.REQUEST_ID_PATTERN.removesuffix("$") + r"\z"
"""The contract's pattern for Java, whose $ lets a line break follow."""


def read_logs(spark: SparkSession, logs: Path, reading: Reading, table: str, recent: bool = False) -> DataFrame:
    """Rows of one table of tonight's days (and of the recent days before), with their arrival day as `dt`."""
    stored = from_arrow_schema(schema.LOG_TABLES[table])
    # All nullable: told otherwise, Spark would answer the not-null checks from the schema without looking.
    fields = [StructField(column.name, column.dataType, True) for column in stored]
    declared = StructType([*fields, StructField("dt", StringType(), True)])
    reader = spark.read.option("basePath", for_spark(logs / table)).schema(declared)
    return reader.parquet(*(for_spark(file) for file in reading.files(table, recent)))


def requests(spark: SparkSession, logs: Path, reading: Reading) -> DataFrame:
    """Keys, times and counts of each request; times_logged counts the recent days too."""
    frame = read_logs(spark, logs, reading, "requests", recent=True)
    not_finite = sf.filter("candidate_scores", lambda score: score.isNull() | sf.isnan(score) | _infinite(score))
    derived = frame.select(
        "dt",
        "request_id",
        "user_id",
        "event_time",
        "policy",
        (~sf.col("request_id").rlike(REQUEST_ID)).cast("int").alias("request_id_malformed"),
        *_nullness("candidates", "candidate_scores"),
        sf.size("candidates").alias("candidates_count"),
        sf.size(sf.filter("candidates", lambda item: item.isNull())).alias("candidates_null"),
        sf.array_min("candidates").alias("smallest_candidate"),
        (sf.size("candidates") - sf.size(sf.array_distinct("candidates"))).alias("candidates_repeated"),
        (sf.size("candidate_scores") - sf.size("candidates")).alias("scores_surplus"),
        sf.size(not_finite).alias("scores_not_finite"),
        sf.datediff(sf.to_date("dt"), sf.to_date("event_time")).alias("days_late"),
    )
    times = sf.count("request_id").over(Window.partitionBy("request_id"))
    counted = derived.withColumn("times_logged", sf.when(sf.col("request_id").isNotNull(), times))
    return counted.where(sf.col("dt") >= reading.days[0])


def impressions(spark: SparkSession, logs: Path, reading: Reading) -> DataFrame:
    """Each impression beside what its request and its list's other impressions say of it.

    Lists are taken as known tonight: positions that arrived on the recent days count as there. An impression whose
    request may have arrived before the logs begin or on a skipped day is `without_request`: extraction leaves it out,
    so nothing else is asked of its list. Nor are gaps asked for where a skipped day may hold the missing positions.
    """
    asked = (
        read_logs(spark, logs, reading, "requests", recent=True)
        .where(sf.col("request_id").isNotNull())
        .select("request_id", "candidates", sf.col("dt").alias("request_dt"))
        .dropDuplicates(["request_id"])
    )
    shown = read_logs(spark, logs, reading, "impressions", recent=True)
    whole_list = Window.partitionBy("request_id")
    counted = sf.when(sf.col("position") >= 1, sf.col("position"))  # a position of 0 has a check of its own
    placed = sf.col("request_id").isNotNull() & sf.col("position").isNotNull()
    judged = (
        shown.withColumn("times_at_position", sf.count("*").over(Window.partitionBy("request_id", "position")))
        .withColumn("times_in_list", sf.count("*").over(Window.partitionBy("request_id", "item_id")))
        .withColumn("last_arrival", sf.max("dt").over(whole_list))
        .withColumn("last_position", sf.max("position").over(whole_list))
        .withColumn("positions_seen", sf.size(sf.collect_set(counted).over(whole_list)))
        .where(sf.col("dt") >= reading.days[0])
        .join(asked, "request_id", "left")
    )
    days_late = sf.datediff(sf.to_date("dt"), sf.to_date("request_dt"))
    in_reach = sf.coalesce(days_late.between(0, schema.LATENESS_DAYS), sf.lit(False))  # as extraction has it
    unknown = sf.col("request_id").isNotNull() & ~in_reach
    without = unknown & sf.col("dt").isin(reading.incomplete)
    missing = sf.col("last_position") - sf.col("positions_seen")
    torn = sf.lit(False)
    for gap in reading.gaps:
        torn = torn | ((sf.col("request_dt") <= gap) & (sf.col("last_arrival") > gap))
    return judged.select(
        "dt",
        "request_id",
        "position",
        "item_id",
        "propensity",
        "click",
        "like",
        "watch_seconds",
        sf.when(placed, sf.col("times_at_position")).alias("times_at_position"),
        sf.when(placed & ~without & ~torn, missing).alias("positions_missing"),
        sf.when(placed & sf.col("item_id").isNotNull(), sf.col("times_in_list")).alias("times_in_list"),
        sf.when(sf.col("request_id").isNotNull() & ~without, in_reach.cast("int")).alias("request_known"),
        without.cast("int").alias("without_request"),
        days_late.alias("days_late"),
        sf.array_contains("candidates", sf.col("item_id")).cast("int").alias("item_among_candidates"),
    )


def day_figures(frame: DataFrame) -> dict[str, dict[str, Any]]:
    """By arrival day, of requests or impressions as prepared above: rows, late_rows and (requests) newest_event."""
    newest = [sf.max("event_time").alias("newest_event")] if "event_time" in frame.columns else []
    late = sf.count_if(sf.col("days_late") > 0).alias("late_rows")
    rows = frame.groupBy("dt").agg(sf.count("*").alias("rows"), late, *newest).collect()
    return {row["dt"]: row.asDict() for row in rows}


def items(spark: SparkSession, logs: Path, reading: Reading) -> DataFrame:
    """Items as they arrived; a later partition may replace an item, the same one may not."""
    frame = read_logs(spark, logs, reading, "items")
    bad_topics = sf.filter("topics", lambda topic: topic.isNull() | (topic < 0))
    return _arrivals(frame, "item_id").select(
        *("dt", "item_id", "created_at", "title", "duration_seconds", "times_logged", "days_after_creation"),
        *_nullness("topics"),
        sf.size(bad_topics).alias("topics_negative"),
    )


def users(spark: SparkSession, logs: Path, reading: Reading) -> DataFrame:
    """Users as they arrived; a later partition may replace a user, the same one may not."""
    frame = read_logs(spark, logs, reading, "users")
    malformed = sf.filter("attributes", lambda text: text.isNull() | ~text.rlike("^[^=]+="))
    return _arrivals(frame, "user_id").select(
        *("dt", "user_id", "created_at", "times_logged", "days_after_creation"),
        *_nullness("attributes"),
        sf.size(malformed).alias("attributes_malformed"),
    )


def _arrivals(frame: DataFrame, key: str) -> DataFrame:

    times = sf.count(key).over(Window.partitionBy("dt", key))
    return frame.withColumn("times_logged", sf.when(sf.col(key).isNotNull(), times)).withColumn(
        "days_after_creation", sf.datediff(sf.to_date("dt"), sf.to_date("created_at"))
    )


def _nullness(*arrays: str) -> list[Column]:
    """The arrays' own names, holding their length: enough for a not-null check, and narrow."""
    return [sf.size(name).alias(name) for name in arrays]


def _infinite(column: Column) -> Column:

    return sf.abs(column) == float("inf")
