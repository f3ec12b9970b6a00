"""Logs to a training set without Spark and Feast: the same features, worked out with numpy in memory.

The columns mean what components/extract_features makes them mean (tests/unit/test_quality_features.py holds the two
together, by way of the features worked out by hand). What a benchmark may choose is WHEN a row of features is taken:

    midnight      as a night would: everything that had arrived before the midnight that starts the request's day
    the request   what the user had done up to the request itself (docs/method.md, offline protocol)

and, for both, a day after which nothing enters an aggregate (`closed`): the end of the training period.

Legend: X impressions, E requests, U user rows, I items, D days, T topic buckets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from goalrank import schema

DAY = 86_400_000_000
"""Microseconds."""
WEEK = 7
"""Arrival days that the *_7d counters look back (components/extract_features/item_features.py)."""


@dataclass(frozen=True)
class Logs:
    """The tables of the data contract, each with `day`, its arrival day as days since 1970."""

    requests: pa.Table
    impressions: pa.Table
    items: pa.Table
    users: pa.Table

    @classmethod
    def read(cls, folder: Path) -> Logs:
        """All partitions under LOGS."""
        return cls(**{name: _partitions(folder / name) for name in schema.LOG_TABLES})

    @property
    def days(self) -> list[str]:
        """Arrival days with requests, oldest first."""
        return [_date(day) for day in np.unique(self.requests["day"].to_numpy())]


@dataclass(frozen=True)
class When:
    """When features are taken."""

    at_request: bool  # users: up to the request itself; else midnight. Items: always midnight.
    closed: str | None  # YYYY-MM-DD: what arrives on this day or later is in no aggregate (histories go on)
    every_impression: bool  # histories hold every item shown, not only clicked ones


AS_A_NIGHT = When(at_request=False, closed=None, every_impression=False)
"""What components/extract_features and materialize_features make."""


def training_tables(logs: Logs, when: When, kept: np.ndarray | None = None) -> tuple[pa.Table, pa.Table, pa.Table]:
    """examples, users and items of a training set (schema.TRAINING_EXAMPLES and training_rows_schema).

    Only requests with an impression that arrived on the request's own day become examples, as in a night.

    Args:
        logs: everything that happened.
        when: the moments at which features are taken.
        kept: request ids that are to become examples; None: all. The others still count in features.
    """
    examples = _examples(logs)
    if kept is not None:
        examples = examples.filter(pc.is_in(examples["request_id"], value_set=pa.array(kept)))
    time_E = _microseconds(examples["event_time"])
    midnight_E = time_E // DAY * DAY
    at_E = time_E if when.at_request else midnight_E
    closed = _microsecond_of(when.closed) if when.closed else np.iinfo(np.int64).max
    user_E = examples["user_id"].to_numpy()
    pairs, row_E = np.unique(np.stack([at_E, user_E]), axis=1, return_inverse=True)
    users = _user_rows(logs, pairs[1], pairs[0], closed, when)

    ids_I, as_of_D = _item_ids(logs), np.unique(np.minimum(midnight_E, closed))
    items = _item_rows(logs, ids_I, as_of_D // DAY)
    candidates = examples["candidates"].combine_chunks()
    flat = candidates.flatten().to_numpy()
    item_row = np.searchsorted(ids_I, flat)
    day_row_E = np.searchsorted(as_of_D, np.minimum(midnight_E, closed))
    day_row = np.repeat(day_row_E, pc.list_value_length(candidates).to_numpy())
    rows = pa.ListArray.from_arrays(candidates.offsets, pa.array(day_row * len(ids_I) + item_row, pa.int32()))
    examples = examples.append_column("user_row", pa.array(row_E, pa.int32())).append_column("candidate_rows", rows)
    return examples.select(schema.TRAINING_EXAMPLES.names).cast(schema.TRAINING_EXAMPLES), users, items


def windows(logs: Logs, closed: str, every_impression: bool) -> tuple[np.ndarray, np.ndarray]:
    """What pretraining on the next item reads: item ids and topic masks [W, H], right-padded with 0.

    Each user's items of before `closed`, in order of time, cut into windows of schema.HISTORY_LENGTH counted back from
    the newest; a window of one item is left out.
    """
    shown, request_X = _with_requests(logs.impressions, logs.requests)
    time_X, position_X = _microseconds(logs.requests["event_time"])[request_X], shown["position"].to_numpy()
    rank_X = _ranks(time_X, logs.requests["request_id"], request_X, position_X)
    user_X, item_X = logs.requests["user_id"].to_numpy()[request_X], shown["item_id"].to_numpy()
    belongs_X = shown["day"].to_numpy() * DAY < _microsecond_of(closed)
    belongs_X &= (shown["click"].to_numpy() > 0) | every_impression
    chosen = np.flatnonzero(belongs_X)
    chosen = chosen[np.lexsort((rank_X[chosen], user_X[chosen]))]
    user_X, item_X = user_X[chosen], item_X[chosen]
    end_X = np.append(np.flatnonzero(user_X[1:] != user_X[:-1]) + 1, len(user_X))
    left_X = np.repeat(end_X, np.diff(end_X, prepend=0)) - np.arange(len(user_X)) - 1  # items of the user still to come
    number_X = left_X // schema.HISTORY_LENGTH
    starts_X = np.append(True, (user_X[1:] != user_X[:-1]) | (number_X[1:] != number_X[:-1]))
    window_X = np.cumsum(starts_X) - 1
    place_X = np.arange(len(user_X)) - np.flatnonzero(starts_X)[window_X]
    items_WH = np.zeros((window_X.max(initial=-1) + 1, schema.HISTORY_LENGTH), dtype=np.int64)
    items_WH[window_X, place_X] = item_X
    items_WH = items_WH[(items_WH != 0).sum(axis=1) >= 2]
    ids_I = _item_ids(logs)
    masks_WH = _content(logs, ids_I)["mask_I"][np.minimum(np.searchsorted(ids_I, items_WH), len(ids_I) - 1)]
    return items_WH, np.where(items_WH != 0, masks_WH, 0)


# ------------------------------------------------------------------------------------------------------------ reading


def _partitions(folder: Path) -> pa.Table:
    parts = []
    for path in sorted(folder.glob("dt=*/*.parquet")):
        day = date.fromisoformat(path.parent.name.removeprefix("dt="))
        part = pq.read_table(path, partitioning=None)
        number = (day - date(1970, 1, 1)).days
        parts.append(part.append_column("day", pa.array(np.full(part.num_rows, number))))
    return pa.concat_tables(parts)


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=int(day))).isoformat()


def _microsecond_of(day: str) -> int:
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * DAY


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy()


# ----------------------------------------------------------------------------------------------------------- examples


def _examples(logs: Logs) -> pa.Table:
    """schema.EXAMPLES in order of time: requests beside the impressions that arrived on their day."""
    requests = logs.requests.sort_by([("event_time", "ascending"), ("request_id", "ascending")])
    shown, request_X = _with_requests(logs.impressions, requests)
    day_E = requests["day"].to_numpy()
    keep_X = np.flatnonzero(shown["day"].to_numpy() == day_E[request_X])
    keep_X = keep_X[np.lexsort((shown["position"].to_numpy()[keep_X], request_X[keep_X]))]
    shown, request_X = shown.take(pa.array(keep_X)), request_X[keep_X]
    found_E, length_E = np.unique(request_X, return_counts=True)
    offsets = pa.array(np.concatenate([[0], np.cumsum(length_E)]), pa.int32())
    first_E = offsets.to_numpy()[:-1]

    def lists(name: str) -> pa.Array:
        values = shown[name].combine_chunks()
        unknown_E = np.logical_and.reduceat(values.is_null().to_numpy(zero_copy_only=False), first_E)
        mask = pa.array(unknown_E) if unknown_E.any() else None
        return pa.ListArray.from_arrays(offsets, values, mask=mask)

    requests = requests.take(pa.array(found_E))
    columns = {name: requests[name] for name in schema.REQUESTS.names}
    columns["dt"] = pa.array([_date(day) for day in requests["day"].to_numpy()])
    columns["slate"] = lists("item_id")
    for name, source in (("propensities", "propensity"), ("clicks", "click"), ("likes", "like")):
        columns[name] = lists(source)
    columns["watch_seconds"] = lists("watch_seconds")
    return pa.table(columns)


def _with_requests(impressions: pa.Table, requests: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """The impressions whose request is known, and its row."""
    row = pc.index_in(impressions["request_id"], value_set=requests["request_id"].combine_chunks())
    known = row.is_valid()
    return impressions.filter(known), row.filter(known).to_numpy().astype(np.int64)


# -------------------------------------------------------------------------------------------------------------- items


def _item_ids(logs: Logs) -> np.ndarray:
    return np.unique(np.concatenate([logs.items["item_id"].to_numpy(), logs.impressions["item_id"].to_numpy()]))


def _content(logs: Logs, ids_I: np.ndarray) -> dict[str, np.ndarray | list]:
    """Of each item its last row: topic mask, duration, title, creation, and the day since when it is known."""
    items = logs.items.sort_by([("day", "ascending")])
    row_I = np.full(len(ids_I), -1)
    row_I[np.searchsorted(ids_I, items["item_id"].to_numpy())] = np.arange(items.num_rows)  # the last one stays
    topics = items["topics"].to_pylist()
    masks = [sum({1 << topic % schema.TOPIC_BUCKETS for topic in listed}) for listed in topics]
    never = np.iinfo(np.int64).max
    take = pa.array(np.where(row_I >= 0, row_I, 0))
    return {
        "mask_I": np.where(row_I >= 0, np.array(masks, dtype=np.int64)[row_I], 0),
        "since_I": np.where(row_I >= 0, items["day"].to_numpy()[row_I], never),
        "created_I": np.where(row_I >= 0, _microseconds(items["created_at"])[row_I] // DAY, 0),
        "duration": items["duration_seconds"].take(take),
        "title": items["title"].take(take),
    }


def _item_rows(logs: Logs, ids_I: np.ndarray, as_of_D: np.ndarray) -> pa.Table:
    """A row for every item at every midnight `as_of_D` (days since 1970), days first; null where nothing was known."""
    content = _content(logs, ids_I)
    item_X, day_X = np.searchsorted(ids_I, logs.impressions["item_id"].to_numpy()), logs.impressions["day"].to_numpy()
    begin = int(logs.requests["day"].to_numpy().min()) - WEEK
    span = int(as_of_D.max()) - begin + 1
    inside_X = day_X - begin < span
    known_DI = content["since_I"][None, :] < as_of_D[:, None]
    columns: dict[str, np.ndarray] = {}
    for name, values_X in _counted(logs).items():
        per_day_SI = np.zeros((span, len(ids_I)), dtype=np.int64)
        np.add.at(per_day_SI, (day_X[inside_X] - begin, item_X[inside_X]), values_X[inside_X])
        total_SI = np.concatenate([np.zeros((1, len(ids_I)), dtype=np.int64), np.cumsum(per_day_SI, axis=0)])
        at_D = as_of_D - begin  # total_SI[d]: before day begin + d
        columns[f"{name}_total"] = total_SI[at_D]
        columns[f"{name}_7d"] = total_SI[at_D] - total_SI[at_D - WEEK]
        if name == "impressions":
            counted_DI = known_DI | (columns["impressions_total"] > 0)
    flat_known, flat_counted = known_DI.ravel(), counted_DI.ravel()
    days = len(as_of_D)

    def tiled(values: pa.ChunkedArray) -> pa.Array:
        """An item's content at every midnight, null before it was known."""
        everywhere = values.combine_chunks().take(pa.array(np.tile(np.arange(len(ids_I)), days)))
        return pc.if_else(pa.array(flat_known), everywhere, pa.scalar(None, everywhere.type))

    made: dict[str, pa.Array] = {
        "item_id": pa.array(np.tile(ids_I, days)),
        "as_of": pa.array(np.repeat(as_of_D * DAY, len(ids_I))).cast(schema.TIMESTAMP),
        "topic_mask": pa.array(np.tile(content["mask_I"], days), mask=~flat_known),
        "duration_seconds": tiled(content["duration"]),
        "title": tiled(content["title"]),
        "age_days": pa.array((as_of_D[:, None] - content["created_I"]).ravel(), mask=~flat_known),
    }
    for name, values_DI in columns.items():
        made[name] = pa.array(values_DI.ravel(), mask=~flat_counted)
    wanted = schema.training_rows_schema("item_id")
    return pa.table({name: made[name] for name in wanted.names}).cast(wanted)


def _counted(logs: Logs) -> dict[str, np.ndarray]:
    """What is added up over impressions, [X] each."""
    shown = logs.impressions
    seconds = pc.fill_null(shown["watch_seconds"], 0.0).to_numpy()
    return {
        "impressions": np.ones(shown.num_rows, dtype=np.int64),
        "clicks": shown["click"].to_numpy().astype(np.int64),
        "likes": shown["like"].to_numpy().astype(np.int64),
        "watch_ms": np.rint(seconds * 1000).astype(np.int64),
    }


# -------------------------------------------------------------------------------------------------------------- users


def _user_rows(logs: Logs, user_U: np.ndarray, at_U: np.ndarray, closed: int, when: When) -> pa.Table:
    """A row for each user `user_U` at the moment `at_U` (microseconds)."""
    asked = logs.requests
    shown, request_X = _with_requests(logs.impressions, asked)
    counted = _counted(Logs(asked, shown, logs.items, logs.users))
    time_X = _microseconds(asked["event_time"])[request_X]
    arrived_X = shown["day"].to_numpy()
    # Known from this moment on: its own request's end, or the end of the day it arrived on.
    known_X = time_X + 1 if when.at_request else (arrived_X + 1) * DAY
    ids, code_X = np.unique(asked["user_id"].to_numpy()[request_X], return_inverse=True)
    rank_X = _ranks(time_X, asked["request_id"], request_X, shown["position"].to_numpy())
    order_X = np.lexsort((rank_X, known_X, code_X))
    code_X, known_X, arrived_X, rank_X = code_X[order_X], known_X[order_X], arrived_X[order_X], rank_X[order_X]

    code_U = np.searchsorted(ids, user_U)
    seen_U = (code_U < len(ids)) & (ids[np.minimum(code_U, len(ids) - 1)] == user_U)
    code_U = np.where(seen_U, code_U, len(ids))
    begin_U = np.searchsorted(code_X, code_U)
    end_U = _known_before(code_X, known_X, code_U, np.minimum(at_U, closed))
    history_end_U = _known_before(code_X, known_X, code_U, at_U)

    ids_I = _item_ids(logs)
    mask_I = _content(logs, ids_I)["mask_I"]
    item_X = np.searchsorted(ids_I, shown["item_id"].to_numpy()[order_X])
    clicked_X = counted["clicks"][order_X] > 0
    new_day_X = np.ones(len(code_X), dtype=np.int64)
    new_day_X[1:] = (code_X[1:] != code_X[:-1]) | (arrived_X[1:] != arrived_X[:-1])
    sums = {name: _between(values[order_X], begin_U, end_U) for name, values in counted.items()}
    sums["active_days"] = _between(new_day_X, begin_U, end_U)
    bits_XT = ((mask_I[item_X][:, None] >> np.arange(schema.TOPIC_BUCKETS)) & 1) * clicked_X[:, None]
    topic_UT = _between(bits_XT.astype(np.int32), begin_U, end_U)

    unknown_U = end_U == begin_U
    histories = _histories(rank_X, clicked_X | when.every_impression, begin_U, history_end_U, item_X)
    offsets = pa.array(np.concatenate([[0], np.cumsum([len(row) for row in histories])]), pa.int32())
    flat = np.concatenate(histories).astype(np.int64) if histories else np.zeros(0, dtype=np.int64)
    nothing = pa.array(history_end_U == begin_U)
    made: dict[str, pa.Array] = {
        "user_id": pa.array(user_U),
        "as_of": pa.array(at_U).cast(schema.TIMESTAMP),
        "attributes": _attributes(logs.users, user_U, np.minimum(at_U, closed)),
        **{name: pa.array(values, mask=unknown_U) for name, values in sums.items()},
        "topic_clicks": pa.ListArray.from_arrays(
            pa.array(np.arange(len(user_U) + 1) * schema.TOPIC_BUCKETS, pa.int32()),
            pa.array(topic_UT.ravel().astype(np.int64)),
            mask=pa.array(unknown_U),
        ),
        "history_items": pa.ListArray.from_arrays(offsets, pa.array(ids_I[flat]), mask=nothing),
        "history_topics": pa.ListArray.from_arrays(offsets, pa.array(mask_I[flat]), mask=nothing),
    }
    wanted = schema.training_rows_schema("user_id")
    return pa.table({name: made[name] for name in wanted.names}).cast(wanted)


def _ranks(time_X: np.ndarray, ids: pa.ChunkedArray, request_X: np.ndarray, position_X: np.ndarray) -> np.ndarray:
    """The place of each impression in the order (event_time, request_id, position)."""
    by_name_E = np.empty(len(ids), dtype=np.int64)
    by_name_E[pc.array_sort_indices(ids.combine_chunks()).to_numpy()] = np.arange(len(ids))
    rank_X = np.empty(len(time_X), dtype=np.int64)
    rank_X[np.lexsort((position_X, by_name_E[request_X], time_X))] = np.arange(len(time_X))
    return rank_X


def _known_before(code_X: np.ndarray, known_X: np.ndarray, code_U: np.ndarray, at_U: np.ndarray) -> np.ndarray:
    """For each row, where its user's impressions known by then end, in impressions sorted by user and moment."""
    moments, place = np.unique(np.concatenate([known_X, at_U]), return_inverse=True)
    stride = len(moments)
    return np.searchsorted(code_X * stride + place[: len(known_X)], code_U * stride + place[len(known_X) :], "right")


def _between(values_X: np.ndarray, begin_U: np.ndarray, end_U: np.ndarray) -> np.ndarray:
    """Sums over rows begin..end of each."""
    total = np.concatenate([np.zeros_like(values_X[:1]), np.cumsum(values_X, axis=0, dtype=values_X.dtype)])
    return total[end_U] - total[begin_U]


def _histories(
    rank_X: np.ndarray, belongs_X: np.ndarray, begin_U: np.ndarray, end_U: np.ndarray, item_X: np.ndarray
) -> list[np.ndarray]:
    """The newest schema.HISTORY_LENGTH items of each row that belong to a history, oldest first."""
    chosen = np.flatnonzero(belongs_X)
    ranks, items = rank_X[chosen], item_X[chosen]
    first_U, last_U = np.searchsorted(chosen, begin_U), np.searchsorted(chosen, end_U)
    made = []
    for first, last in zip(first_U.tolist(), last_U.tolist(), strict=True):
        # By arrival they are sorted already, but for the late ones.
        made.append(items[first:last][np.argsort(ranks[first:last], kind="stable")[-schema.HISTORY_LENGTH :]])
    return made


def _attributes(users: pa.Table, user_U: np.ndarray, at_U: np.ndarray) -> pa.Array:
    """The last profile that had arrived by then, null where none had."""
    users = users.sort_by([("user_id", "ascending"), ("day", "ascending")])
    code_X, known_X = users["user_id"].to_numpy(), (users["day"].to_numpy() + 1) * DAY
    ids, code_X = np.unique(code_X, return_inverse=True)
    code_U = np.minimum(np.searchsorted(ids, user_U), len(ids) - 1)
    at = _known_before(code_X, known_X, code_U, at_U) - 1
    known_U = (at >= 0) & (ids[code_X[np.maximum(at, 0)]] == user_U)
    found = users["attributes"].combine_chunks().take(pa.array(np.maximum(at, 0)))
    return pc.if_else(pa.array(known_U), found, pa.scalar(None, found.type))
