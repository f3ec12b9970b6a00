"""The contracts of logs, features and training examples, in one place.

Spark, Great Expectations, Feast and torch all take their column names and types from here; docs/data-contract.md
explains them to people. Types are pyarrow's, times are UTC with microseconds.

Legend used all over the project: B requests in a batch, G lists in a group, N candidates of a request, L items in a
list, H items in a history, D model width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")

LIST_LENGTH = 6
"""L, the default number of items shown (docs/method.md: lists of 6 out of 50)."""

HISTORY_LENGTH = 50
"""H, how many clicked items a user's history keeps, oldest first."""

TOPIC_BUCKETS = 32
"""Topics are folded into this many buckets (topic % 32), so that a set of topics is one 64-bit mask."""

SMALLEST_ID = 1
"""User and item ids start here: the models read 0 as nobody."""

REQUEST_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
"""What a request_id may be: the ranking service answers no other, and smoke_serve asks it logged requests."""

SELF_SELECTED = "self_selected"
"""Value of requests.policy when no ranker chose: the user took these items out of the candidates on their own (rating
data sets). Candidates not taken then count as seen and not engaged (label 0)."""

# --------------------------------------------------------------------------------------------------------------- logs
# Parquet files under LOGS/<table>/dt=YYYY-MM-DD/, partitioned by ARRIVAL day. A closed partition never changes. A late
# row arrives in a later partition with an earlier event_time and counts from that night on.

REQUESTS = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("event_time", TIMESTAMP, nullable=False),
        pa.field("candidates", pa.list_(pa.int64()), nullable=False),
        pa.field("candidate_scores", pa.list_(pa.float64()), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
    ]
)
IMPRESSIONS = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),  # 1..L
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("propensity", pa.float64()),  # of the item at its position, given those before it
        pa.field("click", pa.int8(), nullable=False),
        pa.field("like", pa.int8(), nullable=False),
        pa.field("watch_seconds", pa.float64()),
    ]
)
ITEMS = pa.schema(
    [
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("topics", pa.list_(pa.int32()), nullable=False),
        pa.field("duration_seconds", pa.float64()),
        pa.field("title", pa.string(), nullable=False),
    ]
)
USERS = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("attributes", pa.list_(pa.string()), nullable=False),  # "name=value", e.g. "age=25"
    ]
)
LOG_TABLES = {"requests": REQUESTS, "impressions": IMPRESSIONS, "items": ITEMS, "users": USERS}
DAILY_TABLES = ("requests", "impressions")
"""Tables that must have a partition on every day; items and users only where somebody or something is new."""

LATENESS_DAYS = 3
"""An impression may arrive up to this many days after its request; later ones are orphans and refused."""


# ----------------------------------------------------------------------------------------------------------- features
# A feature row says what was known at the END of an arrival day: its event_timestamp is the next midnight. So a
# point-in-time join can never see the day it predicts, and training sees what a server can have by then.


@dataclass(frozen=True)
class FeatureView:
    """One Feast feature view: who it is about, its columns, and whether every day writes all its rows."""

    name: str
    entity: str
    features: tuple[pa.Field, ...]
    dense_days: bool
    """True: a row for every known entity every day. False: rows only for entities touched that day."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the view's Parquet files, in order."""
        return pa.schema(
            [
                pa.field(self.entity, pa.int64(), nullable=False),
                pa.field("event_timestamp", TIMESTAMP, nullable=False),
                pa.field("created_timestamp", TIMESTAMP, nullable=False),
                *self.features,
            ]
        )


def _integers(*names: str) -> tuple[pa.Field, ...]:
    return tuple(pa.field(name, pa.int64()) for name in names)


USER_PROFILE = FeatureView("user_profile", "user_id", (pa.field("attributes", pa.list_(pa.string())),), False)
USER_STATS = FeatureView(
    "user_stats",
    "user_id",
    (
        *_integers("impressions", "clicks", "likes", "watch_ms", "active_days"),
        pa.field("topic_clicks", pa.list_(pa.int64())),  # TOPIC_BUCKETS counts: clicks on items of each bucket
    ),
    False,
)
USER_HISTORY = FeatureView(
    "user_history",
    "user_id",
    (
        # Clicked items by (event_time, request_id, position), oldest first, the last HISTORY_LENGTH. This view owns
        # histories: training, evaluation and serving all read them here and nowhere else.
        pa.field("history_items", pa.list_(pa.int64())),
        pa.field("history_topics", pa.list_(pa.int64())),  # topic masks of the same items
    ),
    False,
)
ITEM_CONTENT = FeatureView(
    "item_content",
    "item_id",
    (pa.field("topic_mask", pa.int64()), pa.field("duration_seconds", pa.float64()), pa.field("title", pa.string())),
    False,
)
ITEM_STATS = FeatureView(
    "item_stats",
    "item_id",
    _integers(
        "impressions_7d",
        "clicks_7d",
        "likes_7d",
        "impressions_total",
        "clicks_total",
        "likes_total",
        "watch_ms_total",
        "age_days",
    ),
    True,
)
USER_VIEWS = (USER_PROFILE, USER_STATS, USER_HISTORY)
ITEM_VIEWS = (ITEM_CONTENT, ITEM_STATS)
FEATURE_VIEWS = {view.name: view for view in (*USER_VIEWS, *ITEM_VIEWS)}

FEATURE_MEANING = 1
"""Raised by hand when a feature comes to mean something else under the same name and type (its extraction changed)."""


@cache
def feature_set() -> str:
    """16 hex digits: the same in two releases exactly if a model trained by one reads the other's features alike.

    Over names, entities and types of the feature views, FEATURE_MEANING, and what goalrank.features makes of fixed
    rows. A model registered under another feature set must not answer: it would read numbers it never learnt.
    """
    from goalrank.features import encoding_probe  # it imports this module

    digest = hashlib.sha256(f"meaning {FEATURE_MEANING}\n".encode())
    for view in FEATURE_VIEWS.values():
        columns = "".join(f"  {field.name}: {field.type}\n" for field in view.features)
        digest.update(f"{view.name} of {view.entity}\n{columns}".encode())
    digest.update(encoding_probe())
    return digest.hexdigest()[:16]


# ----------------------------------------------------------------------------------------------------------- examples
# What extraction makes of a request and its impressions: one row a request, arrays in list order (position 1 first).

_FEEDBACK = [
    pa.field("slate", pa.list_(pa.int64()), nullable=False),
    pa.field("propensities", pa.list_(pa.float64())),  # null where the log has none
    pa.field("clicks", pa.list_(pa.int8()), nullable=False),
    pa.field("likes", pa.list_(pa.int8()), nullable=False),
    pa.field("watch_seconds", pa.list_(pa.float64())),  # null where the log has none
]
EXAMPLES = pa.schema(
    [
        *REQUESTS,
        pa.field("dt", pa.string(), nullable=False),  # arrival day
        *_FEEDBACK,
    ]
)
"""Written by extract_features, read by materialize_features."""

TRAINING_EXAMPLES = pa.schema(
    [
        *EXAMPLES,
        pa.field("user_row", pa.int32(), nullable=False),  # row of users.parquet
        pa.field("candidate_rows", pa.list_(pa.int32()), nullable=False),  # rows of items.parquet, one a candidate
    ]
)
"""examples.parquet of a training set (sorted by event_time, request_id); beside it users.parquet and items.parquet:
one row per (entity, day) that any example needs, the key, `as_of` (the midnight it was joined at) and every feature of
USER_VIEWS or ITEM_VIEWS as Feast gave it, null where Feast knew nothing. Nothing is joined per (request, candidate)."""


def training_rows_schema(entity: str) -> pa.Schema:
    """Columns of users.parquet (entity 'user_id') or items.parquet (entity 'item_id') of a training set."""
    views = USER_VIEWS if entity == "user_id" else ITEM_VIEWS
    columns = [pa.field(entity, pa.int64(), nullable=False), pa.field("as_of", TIMESTAMP, nullable=False)]
    return pa.schema(columns + [field for view in views for field in view.features])


# ------------------------------------------------------------------------------------------------------------- reward


@dataclass(frozen=True)
class RewardWeights:
    """What one position's feedback is worth; a list's reward is the sum over its positions (method.md, the problem)."""

    click: float = 1.0
    like: float = 0.5
    watch_minute: float = 0.2
    """Per watched minute; counts 0 where the log has no watch time."""
