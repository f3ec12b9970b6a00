"""Feature rows, as Feast gives them, turned into the arrays that every model reads.

The same two functions serve training (rows of a training set) and the ranking service (rows read online), so the two
cannot drift apart. Nothing here is fitted to data: scales are constants, hence a row encodes to the same numbers
everywhere and for ever.

Legend: U user rows, I item rows, F dense features, T topic buckets, H history length, A attributes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from goalrank.errors import DataRefused
from goalrank.schema import HISTORY_LENGTH, ITEM_VIEWS, TOPIC_BUCKETS, USER_VIEWS

MAX_ATTRIBUTES = 8
"""A: attributes of a user beyond these are not read."""

USER_DENSE = (
    "log_impressions", "log_clicks", "log_likes", "log_watch_minutes", "click_logit", "like_logit", "log_active_days",
    "missing",
)  # fmt: skip
ITEM_DENSE = (
    "log_impressions_7d", "log_impressions", "log_clicks", "click_logit_7d", "click_logit", "like_logit_7d",
    "like_logit", "log_watch_seconds_per_click", "log_duration", "log_age_days", "duration_missing", "missing",
)  # fmt: skip

# A rate is smoothed towards these shares with the weight of PRIOR_COUNT impressions (or clicks, for likes).
PRIOR_COUNT = 20.0
PRIOR_CLICK_RATE = 0.2
PRIOR_LIKE_RATE = 0.1


@dataclass(frozen=True)
class UserRows:
    """Encoded user rows.

    Histories are right-padded: oldest click at index 0, the newest at the last index that is not padding.
    """

    dense_UF: np.ndarray  # float32, F = len(USER_DENSE)
    topics_UT: np.ndarray  # float32, share of the user's clicks in each topic bucket
    history_items_UH: np.ndarray  # int64, 0 = padding
    history_topics_UH: np.ndarray  # int64 topic masks, 0 where padded
    attributes_UA: np.ndarray  # int64 hashes, 0 = none


@dataclass(frozen=True)
class ItemRows:
    """Encoded item rows."""

    item_id_I: np.ndarray  # int64
    dense_IF: np.ndarray  # float32, F = len(ITEM_DENSE)
    topics_IT: np.ndarray  # float32, 1 for each topic bucket of the item


def encode_users(table: pa.Table) -> UserRows:
    """Arrays of user rows; a user nothing is known of gets zeros, the prior rates and the flag `missing`.

    Args:
        table: the features of schema.USER_VIEWS, a row each; other columns are not read.

    Raises:
        DataRefused: a feature column is absent or of another type.
    """
    column = _columns(table, USER_VIEWS)
    impressions, clicks, likes, watch_ms, active_days = (
        _number(column[name]) for name in ("impressions", "clicks", "likes", "watch_ms", "active_days")
    )
    missing = _is_null(column["impressions"])
    dense_UF = np.stack(
        [
            np.log1p(impressions) / 3,
            np.log1p(clicks) / 3,
            np.log1p(likes) / 3,
            np.log1p(watch_ms / 60_000) / 3,
            _rate_logit(clicks, impressions, PRIOR_CLICK_RATE),
            _rate_logit(likes, clicks, PRIOR_LIKE_RATE),
            np.log1p(active_days) / 2,
            missing,
        ],
        axis=1,
    ).astype(np.float32)
    counts_UT = _padded(column["topic_clicks"], TOPIC_BUCKETS, keep_last=False).astype(np.float64)
    topics_UT = counts_UT / np.maximum(counts_UT.sum(axis=1, keepdims=True), 1.0)
    return UserRows(
        dense_UF=dense_UF,
        topics_UT=topics_UT.astype(np.float32),
        history_items_UH=_padded(column["history_items"], HISTORY_LENGTH, keep_last=True),
        history_topics_UH=_padded(column["history_topics"], HISTORY_LENGTH, keep_last=True),
        attributes_UA=_padded(_hashed(column["attributes"]), MAX_ATTRIBUTES, keep_last=False),
    )


def encode_items(table: pa.Table) -> ItemRows:
    """Arrays of item rows; an item nothing is known of gets zeros, the prior rates and the flag `missing`.

    Args:
        table: `item_id` and the features of schema.ITEM_VIEWS, a row each; other columns are not read.

    Raises:
        DataRefused: a column is absent or of another type.
    """
    column = _columns(table, ITEM_VIEWS)
    number = {name: _number(column[name]) for name in column if name not in ("title", "topic_mask")}
    mask_I = _integer(column["topic_mask"])
    clicks = number["clicks_total"]
    dense_IF = np.stack(
        [
            np.log1p(number["impressions_7d"]) / 3,
            np.log1p(number["impressions_total"]) / 3,
            np.log1p(clicks) / 3,
            _rate_logit(number["clicks_7d"], number["impressions_7d"], PRIOR_CLICK_RATE),
            _rate_logit(clicks, number["impressions_total"], PRIOR_CLICK_RATE),
            _rate_logit(number["likes_7d"], number["clicks_7d"], PRIOR_LIKE_RATE),
            _rate_logit(number["likes_total"], clicks, PRIOR_LIKE_RATE),
            np.log1p(number["watch_ms_total"] / 1000 / np.maximum(clicks, 1)) / 3,
            np.log1p(number["duration_seconds"]) / 3,
            np.log1p(number["age_days"]) / 3,
            _is_null(column["duration_seconds"]),
            _is_null(column["impressions_total"]),
        ],
        axis=1,
    ).astype(np.float32)
    ids = _required(table, "item_id").cast(pa.int64())
    return ItemRows(item_id_I=_integer(ids), dense_IF=dense_IF, topics_IT=topic_bits(mask_I))


PROBE_DECIMALS = 3
"""Encodings are compared to this many decimals: machines differ in the last bits of a logarithm, not in the third."""


def encoding_probe() -> bytes:
    """What the encodings make of three fixed rows, as bytes: they change when an encoding does, and only then."""
    users, items = (_probe_rows(views) for views in (USER_VIEWS, ITEM_VIEWS))
    items = items.append_column("item_id", pa.array(range(1, items.num_rows + 1), pa.int64()))
    arrays = [*vars(encode_users(users)).values(), *vars(encode_items(items)).values()]
    whole = [a if a.dtype.kind == "i" else np.round(a.astype(np.float64) * 10**PROBE_DECIMALS) for a in arrays]
    return b"".join(array.astype("<i8").tobytes() for array in whole)


def _probe_rows(views: tuple) -> pa.Table:
    """A row of plausible values, one of large values and long lists, and one of nulls."""
    columns: dict[str, pa.Array] = {}
    for place, field in enumerate((field for view in views for field in view.features), start=1):
        values = [7 * place, 100_003 * place]
        if pa.types.is_list(field.type):
            lists = [list(range(1, length + 1)) for length in (place, HISTORY_LENGTH + place)]
            text = pa.types.is_string(field.type.value_type)
            filled: list = [[f"name={value}" for value in one] if text else one for one in lists]
        elif pa.types.is_string(field.type):
            filled = [f"title {value}" for value in values]
        else:
            filled = values
        columns[field.name] = pa.array([*filled, None], field.type)
    return pa.table(columns)


def topic_bits(masks: np.ndarray) -> np.ndarray:
    """Topic masks [...] int64 as bits [..., T] float32."""
    return ((masks[..., None] >> np.arange(TOPIC_BUCKETS)) & 1).astype(np.float32)


def stable_hash(text: str) -> int:
    """A positive 63-bit hash of a string, the same in every process (Python's own hash is salted)."""
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1) | 1


def _required(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise DataRefused(
            f"feature column {name!r} is missing; found {', '.join(table.column_names) or 'no columns'}; "
            "check the feature service that the rows were read with"
        )
    column = table.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _columns(table: pa.Table, views: tuple) -> dict[str, pa.Array]:
    """The views' feature columns, each as one array of the contract's type."""
    found = {}
    for view in views:
        for field in view.features:
            array = _required(table, field.name)
            try:
                found[field.name] = array.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DataRefused(
                    f"feature column {field.name!r} is {array.type}, expected {field.type} ({error})"
                ) from error
    return found


def _is_null(array: pa.Array) -> np.ndarray:
    return array.is_null().to_numpy(zero_copy_only=False).astype(np.float64)


def _number(array: pa.Array) -> np.ndarray:
    """As float64, null, NaN and anything below 0 as 0 (every number here is a count or a duration)."""
    values = pc.fill_null(array.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
    return np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), 0.0)


def _integer(array: pa.Array) -> np.ndarray:
    return pc.fill_null(array, 0).to_numpy(zero_copy_only=False)


def _rate_logit(successes: np.ndarray, trials: np.ndarray, prior: float) -> np.ndarray:
    """Log-odds of the smoothed rate against the prior's: 0 where nothing was tried."""
    rate = (successes + PRIOR_COUNT * prior) / (np.maximum(trials, successes) + PRIOR_COUNT)
    rate = np.clip(rate, 1e-4, 1 - 1e-4)
    return np.log(rate / (1 - rate)) - np.log(prior / (1 - prior))


def _padded(lists: pa.Array, width: int, keep_last: bool) -> np.ndarray:
    """A list column as [rows, width] int64, right-padded with 0; longer rows keep their last or first values."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = _integer(lists.flatten())  # flatten skips null lists, so offsets follow from the lengths
    starts = np.cumsum(lengths) - lengths
    if keep_last:
        starts = starts + np.maximum(lengths - width, 0)
    inside = np.arange(width) < np.minimum(lengths, width)[:, None]
    padded = np.zeros((len(lengths), width), dtype=np.int64)
    padded[inside] = values[(starts[:, None] + np.arange(width))[inside]]
    return padded


def _hashed(lists: pa.Array) -> pa.Array:
    """A list<string> column with each string replaced by its stable hash."""
    encoded = pc.fill_null(lists.flatten(), "").dictionary_encode()
    hashes = np.array([stable_hash(text) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(hashes[codes] if len(codes) else hashes))
