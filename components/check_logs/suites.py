"""What the logs must be, table by table, as Great Expectations suites.

Columns that the contract does not have (times_logged, days_late, ...) are derived once in prepare.py. Map expectations
skip nulls: a column that must not be null says so itself. `description` is what is expected, `notes` how to mend it.
"""

from __future__ import annotations

import sys

from great_expectations import expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from components.gate_limits import LATE_ROWS, SILENT_HOURS, VOLUME, Limit
from goalrank import schema

LARGEST = sys.float_info.max
"""Upper end of a range that only excludes infinity and NaN (NaN sorts above every number in Spark)."""

ACCEPT = "if the day is real: `goalrank day accept DATE --reason TEXT`, and run it again"


def partitions() -> list[Expectation]:
    """Files of each partition (partitions.survey)."""
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="files",
            min_value=1,
            severity=FailureSeverity.CRITICAL,
            description=f"a partition for every day of {' and '.join(schema.DAILY_TABLES)}, and items and users at all",
            notes="deliver the missing partition, or give --date a day that has one",
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="unreadable",
            severity=FailureSeverity.CRITICAL,
            description="every file to be readable Parquet",
            notes="write the file again under another name and move it into place whole",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="rows",
            min_value=1,
            severity=FailureSeverity.CRITICAL,
            description="no partition to be empty",
            notes="find out why nothing was logged that day, and deliver its rows",
        ),
        *_limited(
            VOLUME,
            "times_usual",
            "at most {limit:g} times more or fewer rows than the trailing days have",
            "compare with the traffic of that day; rows may be missing or delivered twice",
        ),
    ]


def days() -> list[Expectation]:
    """Freshness of each arrival day (freshness.of_days)."""
    return [
        *_limited(
            SILENT_HOURS,
            "silent_hours",
            "an event in the last {limit:g} hours of the day",
            "look for a delivery that stopped, or a partition under the name of another day",
        ),
        *_limited(
            LATE_ROWS,
            "late_share",
            "at most {limit:.0%} of the rows from earlier days",
            "look for a delivery that was held up or repeated",
        ),
    ]


def columns() -> list[Expectation]:
    """Columns of the files (partitions.columns)."""
    return [
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="found",
            column_B="expected",
            severity=FailureSeverity.CRITICAL,
            description="the columns and types of the data contract, no more and no less",
            notes="write the files with the columns of goalrank.schema.LOG_TABLES",
        )
    ]


def read() -> list[Expectation]:
    """Rows that Spark read against the rows that the files' footers promise, a row a table."""
    return [
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="read",
            column_B="promised",
            severity=FailureSeverity.CRITICAL,
            description="as many rows as the files' footers promise",
            notes="write the table's files again: what they say of themselves is not what is in them",
        )
    ]


def requests() -> list[Expectation]:
    """Requests (prepare.requests)."""
    return [
        *_not_null("requests"),
        _id("user_id"),
        _exactly(
            0,
            "request_id_malformed",
            f"each request_id to match {schema.REQUEST_ID_PATTERN}",
            "give requests such ids, in impressions too (`goalrank import csv` does): the service answers no other",
        ),
        _exactly(1, "times_logged", "each request_id once", "keep one row of each request_id"),
        gxe.ExpectColumnValuesToBeBetween(
            column="candidates_count",
            min_value=1,
            severity=FailureSeverity.CRITICAL,
            description="at least one candidate in each request",
            notes="leave out requests without candidates",
        ),
        _exactly(0, "candidates_null", "no null among the candidates", "leave null candidates out"),
        _id("smallest_candidate", "item ids of 1 and above among the candidates"),
        _exactly(0, "candidates_repeated", "distinct candidates", "keep each candidate of a request once"),
        _exactly(
            0,
            "scores_surplus",
            "as many candidate_scores as candidates",
            "log the score of every candidate, in the candidates' order",
        ),
        _exactly(
            0,
            "scores_not_finite",
            "finite candidate_scores (no null, NaN or infinity)",
            "mend the retriever that gave them, or leave the request out",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="days_late",
            min_value=0,
            severity=FailureSeverity.CRITICAL,
            description="event_time no later than the end of the arrival day dt",
            notes="check the clock and time zone (UTC) of the writer, or deliver the row in its own day's partition",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="days_late",
            max_value=schema.LATENESS_DAYS,
            severity=FailureSeverity.WARNING,
            description=f"requests to arrive within {schema.LATENESS_DAYS} days of their event_time",
            notes="look for a delivery that was held up; the rows count from tonight on",
        ),
    ]


def impressions() -> list[Expectation]:
    """Impressions (prepare.impressions)."""
    return [
        *_not_null("impressions"),
        _id("item_id"),
        _exactly(
            1,
            "request_known",
            f"the request of each impression in the same partitions or at most {schema.LATENESS_DAYS} days before",
            "deliver the request, or drop impressions without one",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="without_request",
            min_value=0,
            max_value=0,
            severity=FailureSeverity.WARNING,
            description=f"a request in the logs for each impression of their first {schema.LATENESS_DAYS} days and of "
            "the days after a skipped one",
            notes="these impressions are left out; where the logs begin in the middle of traffic, or after a skipped "
            "day, there is nothing to do, else deliver their requests",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="position",
            min_value=1,
            severity=FailureSeverity.CRITICAL,
            description="positions counted from 1",
            notes="number the positions of a list from 1, not from 0",
        ),
        _exactly(1, "times_at_position", "each (request_id, position) once", "keep one row of each position"),
        _exactly(
            0,
            "positions_missing",
            "the positions of a request to be 1..k without a gap",
            "deliver the missing positions (a list's impressions belong together)",
        ),
        _exactly(1, "times_in_list", "each item at most once in a list", "log each shown item at one position"),
        _exactly(
            1,
            "item_among_candidates",
            "every shown item among the candidates of its request",
            "log all the candidates the ranker saw",
        ),
        _zero_or_one("click"),
        _zero_or_one("like"),
        gxe.ExpectColumnValuesToBeBetween(
            column="propensity",
            min_value=0,
            strict_min=True,
            max_value=1,
            severity=FailureSeverity.CRITICAL,
            description="propensity null or in (0, 1], never 0 or NaN",
            notes="log the probability the item had at its position given those before it, or null if unknown",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="watch_seconds",
            min_value=0,
            max_value=LARGEST,
            severity=FailureSeverity.CRITICAL,
            description="watch_seconds null or a finite number of at least 0",
            notes="log null where the watch time is unknown",
        ),
    ]


def items() -> list[Expectation]:
    """Items (prepare.items)."""
    return [
        *_not_null("items"),
        _id("item_id"),
        _exactly(1, "times_logged", "each item_id once in a partition", "keep the last row of each item_id"),
        _exactly(0, "topics_negative", "topics of 0 and above, none null", "number topics from 0"),
        gxe.ExpectColumnValuesToBeBetween(
            column="duration_seconds",
            min_value=0,
            max_value=LARGEST,
            severity=FailureSeverity.CRITICAL,
            description="duration_seconds null or a finite number of at least 0",
            notes="log null where the duration is unknown",
        ),
        _created(),
    ]


def users() -> list[Expectation]:
    """Users (prepare.users)."""
    return [
        *_not_null("users"),
        _id("user_id"),
        _exactly(1, "times_logged", "each user_id once in a partition", "keep the last row of each user_id"),
        _exactly(0, "attributes_malformed", "attributes written name=value", "write each attribute as name=value"),
        _created(),
    ]


def _limited(limit: Limit, column: str, expected: str, mend: str) -> list[Expectation]:
    """A figure against its two limits: `column` warns, `column`_tonight (null where a day may not be refused) stops."""
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=name,
            max_value=value,
            severity=severity,
            description=expected.format(limit=value),
            notes=notes,
        )
        for name, value, severity, notes in (
            (f"{column}_tonight", limit.critical, FailureSeverity.CRITICAL, f"{mend}; {ACCEPT}"),
            (column, limit.warning, FailureSeverity.WARNING, mend),
        )
        if value is not None
    ]


def _not_null(table: str) -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToNotBeNull(
            column=field.name,
            severity=FailureSeverity.CRITICAL,
            description=f"{field.name} never null",
            notes=f"fill {field.name}, or leave the row out",
        )
        for field in schema.LOG_TABLES[table]
        if not field.nullable
    ]


def _exactly(value: int, column: str, expected: str, mend: str) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=value,
        max_value=value,
        severity=FailureSeverity.CRITICAL,
        description=expected,
        notes=mend,
    )


def _id(column: str, expected: str = "") -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=1,
        severity=FailureSeverity.CRITICAL,
        description=expected or f"{column} of 1 and above",
        notes="number ids from 1: 0 stands for no item and no user in the models",
    )


def _zero_or_one(column: str) -> Expectation:
    return gxe.ExpectColumnValuesToBeInSet(
        column=column,
        value_set=[0, 1],
        severity=FailureSeverity.CRITICAL,
        description=f"{column} 0 or 1",
        notes=f"log {column} as 0 or 1, counts elsewhere",
    )


def _created() -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column="days_after_creation",
        min_value=0,
        severity=FailureSeverity.CRITICAL,
        description="created_at no later than the end of the arrival day dt",
        notes="check the clock and time zone (UTC) of the writer",
    )
