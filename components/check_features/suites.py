"""What a night's features must be, view by view, as Great Expectations suites.

A list column stands here by its length, and what is in it by counts of wrong entries (prepare.py). Map expectations
skip nulls: a column that must not be null says so itself. `description` is what is expected, `notes` how to mend it.
"""

from __future__ import annotations

from great_expectations import expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from components.gate_limits import FEWER_PROPENSITIES, UNKNOWN_ITEMS, UNKNOWN_USERS, VOLUME
from goalrank import schema

EXTRACTION = "run the night with --full-rebuild; if it stays, extract_features has a bug"
LOGS = "compare the day's logs with the day before"
ACCEPT = (
    f"{LOGS}; if the day is real: `goalrank day accept DATE --reason TEXT` and run it again, it then is what later "
    "nights are held against"
)
REQUEST_IDS = "a request_id may never come back: take the later request out of its day's logs, run with --full-rebuild"

COUNTS = {
    schema.USER_STATS.name: ("impressions", "clicks", "likes", "watch_ms", "active_days"),
    schema.ITEM_STATS.name: tuple(field.name for field in schema.ITEM_STATS.features if field.name != "age_days"),
}
"""Integer features that count something."""


def of_view(view: schema.FeatureView) -> list[Expectation]:
    """Suite of one feature view: keys and times as of every view, then its own ranges."""
    return [*_keys_and_times(view), *_RANGES[view.name]()]


def examples() -> list[Expectation]:
    """Suite of the examples (prepare.example_rows and example_ranges)."""
    surplus = [
        _exactly(0, f"{name}_surplus", f"one entry of {name} for each item shown")
        for name in ("propensities", "clicks", "likes", "watch_seconds")
    ]
    outside = [
        _exactly(0, column, expected)
        for column, expected in (
            ("candidates_outside", f"candidates to be item ids of {schema.SMALLEST_ID} and above, none null"),
            ("candidates_repeated", "distinct candidates"),
            ("scores_not_finite", "finite candidate_scores, none null"),
            ("slate_outside", "every item shown among the candidates"),
            ("slate_repeated", "distinct items in a slate"),
            ("clicks_outside", "clicks 0 or 1, none null"),
            ("likes_outside", "likes 0 or 1, none null"),
            ("propensities_outside", "propensities null or in (0, 1], never 0 or NaN"),
            ("watch_seconds_outside", "watch_seconds null or finite numbers of at least 0"),
        )
    ]
    return [
        *(_not_null(field.name) for field in schema.EXAMPLES if not field.nullable),
        _exactly(1, "rows_of_key", "one example for each request_id in all days of the snapshot", REQUEST_IDS),
        _at_least(schema.SMALLEST_ID, "user_id", f"user_id of {schema.SMALLEST_ID} and above"),
        _at_least(1, "slate", "at least one item shown"),
        _at_least(1, "candidates", "at least one candidate"),
        _exactly(0, "scores_surplus", "one score for each candidate"),
        *surplus,
        *outside,
    ]


def drift() -> list[Expectation]:
    """Suite of the shifts since the last good snapshot (drift.compare)."""
    return [
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=limit,
            column_B="psi",
            or_equal=True,
            severity=severity,
            description=f"population stability index since the last snapshot up to {limit}",
            notes=mend,
        )
        for limit, severity, mend in (
            ("critical_limit", FailureSeverity.CRITICAL, ACCEPT),
            ("warning_limit", FailureSeverity.WARNING, LOGS),
        )
    ]


def volume() -> list[Expectation]:
    """Suite of the newest day's row counts (prepare.volumes)."""
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=column,
            max_value=limit,
            severity=severity,
            description=f"at most {limit:g} times more or fewer rows than the trailing days have",
            notes=mend,
        )
        for column, limit, severity, mend in (
            ("times_usual_tonight", VOLUME.critical, FailureSeverity.CRITICAL, ACCEPT),
            ("times_usual", VOLUME.warning, FailureSeverity.WARNING, LOGS),
        )
    ]


def propensities() -> list[Expectation]:
    """Suite of the share of lists with propensities (prepare.propensities)."""
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="times_fewer",
            max_value=FEWER_PROPENSITIES.warning,
            severity=FailureSeverity.WARNING,
            description="propensities on the usual share of the rankers' lists (the trailing days' median), divided by "
            f"{FEWER_PROPENSITIES.warning:g} at most",
            notes="see whether whoever writes the impressions still logs the propensity of every item, and whether the "
            "service answered by its fallback; until then the off-policy comparison says less, or nothing",
        )
    ]


def references() -> list[Expectation]:
    """Suite of who is known (prepare.references): items and users of the examples among those ever announced."""
    announce = "announce new items and users in their own tables; compare the ids of the tables"
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=column,
            max_value=limit,
            severity=severity,
            description=f"at most {limit:.0%} of the {what} unknown",
            notes=mend,
        )
        for column, what, limit, severity, mend in (
            (
                "unknown_items_tonight",
                "items",
                UNKNOWN_ITEMS.critical,
                FailureSeverity.CRITICAL,
                f"{announce}; {ACCEPT}",
            ),
            ("unknown_items", "items", UNKNOWN_ITEMS.warning, FailureSeverity.WARNING, announce),
            ("unknown_users", "users", UNKNOWN_USERS.warning, FailureSeverity.WARNING, announce),
        )
    ]


def _keys_and_times(view: schema.FeatureView) -> list[Expectation]:
    return [
        _not_null(view.entity),
        _at_least(schema.SMALLEST_ID, view.entity, f"{view.entity} of {schema.SMALLEST_ID} and above"),
        _exactly(1, "rows_of_key", f"one row for each ({view.entity}, event_timestamp)"),
        _not_null("event_timestamp"),
        _exactly(0, "hours_off_midnight", "event_timestamp at the midnight that ends the arrival day"),
        _not_null("created_timestamp"),
    ]


def _user_profile() -> list[Expectation]:
    return [_not_null("attributes")]


def _user_stats() -> list[Expectation]:
    return [
        *_counts(schema.USER_STATS),
        _at_least(0, "not_clicked", "no more clicks than impressions"),
        _at_least(0, "not_liked", "no more likes than impressions"),
        _not_null("topic_clicks"),
        _exactly(schema.TOPIC_BUCKETS, "topic_clicks", f"{schema.TOPIC_BUCKETS} topic_clicks"),
        _exactly(0, "topic_clicks_negative", "no topic_clicks below 0, none null"),
    ]


def _user_history() -> list[Expectation]:
    return [
        _not_null("history_items"),
        _not_null("history_topics"),
        gxe.ExpectColumnValuesToBeBetween(
            column="history_items",
            min_value=0,
            max_value=schema.HISTORY_LENGTH,
            severity=FailureSeverity.CRITICAL,
            description=f"histories of at most {schema.HISTORY_LENGTH} items",
            notes=EXTRACTION,
        ),
        _exactly(0, "items_without_topics", "one topic mask for each item of a history"),
        _exactly(0, "history_items_outside", f"histories of item ids of {schema.SMALLEST_ID} and above, none null"),
        _exactly(0, "history_topics_outside", f"topic masks of {schema.TOPIC_BUCKETS} bits, none null"),
    ]


def _item_content() -> list[Expectation]:
    return [
        _not_null("topic_mask"),
        gxe.ExpectColumnValuesToBeBetween(
            column="topic_mask",
            min_value=0,
            max_value=2**schema.TOPIC_BUCKETS - 1,
            severity=FailureSeverity.CRITICAL,
            description=f"a topic_mask of {schema.TOPIC_BUCKETS} bits",
            notes=EXTRACTION,
        ),
        _not_null("title"),
        _exactly(0, "duration_outside", "duration_seconds null or a finite number of at least 0"),
    ]


def _item_stats() -> list[Expectation]:
    differences = {
        **{f"not_clicked_{span}": f"no more clicks_{span} than impressions_{span}" for span in ("7d", "total")},
        **{f"not_liked_{span}": f"no more likes_{span} than impressions_{span}" for span in ("7d", "total")},
        **{f"{name}_before_7d": f"no more {name}_7d than {name}_total" for name in ("impressions", "clicks", "likes")},
    }
    return [
        *_counts(schema.ITEM_STATS),
        _at_least(0, "age_days", "age_days of at least 0"),  # null for an item that was never announced
        *(_at_least(0, column, expected) for column, expected in differences.items()),
    ]


_RANGES = {
    schema.USER_PROFILE.name: _user_profile,
    schema.USER_STATS.name: _user_stats,
    schema.USER_HISTORY.name: _user_history,
    schema.ITEM_CONTENT.name: _item_content,
    schema.ITEM_STATS.name: _item_stats,
}


def _counts(view: schema.FeatureView) -> list[Expectation]:
    return [
        expectation
        for name in COUNTS[view.name]
        for expectation in (_not_null(name), _at_least(0, name, f"{name} of at least 0"))
    ]


def _not_null(column: str) -> Expectation:
    return gxe.ExpectColumnValuesToNotBeNull(
        column=column, severity=FailureSeverity.CRITICAL, description=f"{column} never null", notes=EXTRACTION
    )


def _exactly(value: int, column: str, expected: str, mend: str = EXTRACTION) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=value,
        max_value=value,
        severity=FailureSeverity.CRITICAL,
        description=expected,
        notes=mend,
    )


def _at_least(value: int, column: str, expected: str) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=value, severity=FailureSeverity.CRITICAL, description=expected, notes=EXTRACTION
    )
