"""A day of the simulated world, written as logs of the data contract (goalrank.schema, LOG_TABLES).

LOGS/world.json holds the configuration, so that a later step can ask the world for the truth. Partitions are by
arrival: a few requests of day d arrive in the partition of day d + 1, and of a few lists the last impressions alone
do. Users and items that appear on day d + 1 are announced on day d; day 0 announces the first catalogue too. Items
seen by a user are not kept from being offered again, as long as the retriever believes in them. Who ranked the requests
is the world's own logging policy, unless `happened` says otherwise (`traffic.served`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank.errors import UsageError
from goalrank.schema import DAILY_TABLES, IMPRESSIONS, ITEMS, LOG_TABLES, REQUESTS, USERS
from goalrank.simulator.config import WorldConfig
from goalrank.simulator.titles import titles
from goalrank.simulator.traffic import Requests, day_requests
from goalrank.simulator.world import AGE_BANDS, DEVICES, FIRST_ITEM_ID, FIRST_USER_ID, stream, world_of

WORLD_FILE = "world.json"

Happened = Callable[[WorldConfig, int], Requests]
"""(config, day) -> that day's requests with what was shown and what came of it."""

_DAY_MICROSECONDS = 86_400_000_000
_LONGEST_TAIL = 3
_LAST_WRITTEN = "impressions"
"""Where this table has a partition, the day is whole."""


def load_world(logs_uri: str) -> WorldConfig | None:
    """The world these logs came from; None for logs that were not simulated.

    Raises:
        DataRefused: world.json is there and cannot be read.
    """
    path = Path(logs_uri) / WORLD_FILE
    return WorldConfig.from_json(path.read_text(encoding="utf-8")) if path.exists() else None


def write_days(
    config: WorldConfig,
    first: int,
    count: int,
    logs_uri: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write days `first` to `first + count - 1`; `progress(done, total)` is called after each. Returns their dates."""
    dates = []
    for done, day in enumerate(range(first, first + count), start=1):
        dates.append(write_day(config, day, logs_uri))
        if progress is not None:
            progress(done, count)
    return dates


def write_day(config: WorldConfig, day: int, logs_uri: str, happened: Happened = day_requests) -> str:
    """Write the partitions of `day` (0 is config.first_day) and return its date; one that exists is left as it is.

    Days before it that are missing or were cut short are written first. `happened` is asked for `day`, and for the one
    before it too, whose late rows arrive with it.

    Raises:
        UsageError: the folder holds logs of another world, or `day` is before the first.
    """
    logs = Path(logs_uri)
    if day < 0:
        raise UsageError(f"day {day} found, expected 0 or more: the world begins on {config.first_day}")
    _claim(config, logs)
    first = day
    while first > 0 and not _partition(config, logs, _LAST_WRITTEN, first - 1).exists():
        first -= 1
    for missing in range(first, day + 1):
        _complete_day(config, missing, logs, happened)
    return config.date_of(day).isoformat()


def _complete_day(config: WorldConfig, day: int, logs: Path, happened: Happened) -> None:
    """Write the partitions of a day that do not exist yet."""
    tables: dict[str, Callable[[WorldConfig, int], pa.Table]] = {
        "users": _users_announced,
        "items": _items_announced,
        "requests": partial(_requests_arrived, happened=happened),
        _LAST_WRITTEN: partial(_impressions_arrived, happened=happened),
    }
    for name, build in tables.items():
        partition = _partition(config, logs, name, day)
        if not partition.exists():
            table = build(config, day)
            if table.num_rows or name in DAILY_TABLES:
                _write_partition(table, partition)


def _partition(config: WorldConfig, logs: Path, table: str, day: int) -> Path:
    return logs / table / f"dt={config.date_of(day).isoformat()}"


def _claim(config: WorldConfig, logs: Path) -> None:
    """Make the folder this world's, or refuse it."""
    found = load_world(str(logs))
    if found == config:
        return
    if found is not None:
        differing = [name for name in vars(config) if getattr(config, name) != getattr(found, name)]
        raise UsageError(f"{logs} holds another world (other {', '.join(differing)}): use another folder")
    taken = [name for name in LOG_TABLES if (logs / name).exists()]
    if taken:
        raise UsageError(f"{logs} holds logs that were not simulated ({', '.join(taken)}): use another folder")
    logs.mkdir(parents=True, exist_ok=True)
    aside = logs / f".{WORLD_FILE}.{os.getpid()}"
    aside.write_text(config.to_json(), encoding="utf-8")
    os.replace(aside, logs / WORLD_FILE)


def _write_partition(table: pa.Table, partition: Path) -> None:
    """Write aside, then rename: a reader sees the whole partition or none."""
    partition.parent.mkdir(parents=True, exist_ok=True)
    for left_over in partition.parent.glob(f".{partition.name}.*"):
        shutil.rmtree(left_over)
    aside = partition.parent / f".{partition.name}.{os.getpid()}"
    aside.mkdir()
    pq.write_table(table, aside / "part-00000.parquet", compression="zstd")
    os.rename(aside, partition)


def _requests_arrived(config: WorldConfig, day: int, happened: Happened) -> pa.Table:
    parts = [_request_rows(happened(config, day), ~_late(config, day))]
    if day > 0:
        parts.insert(0, _request_rows(happened(config, day - 1), _late(config, day - 1)))
    return pa.concat_tables(parts)


def _impressions_arrived(config: WorldConfig, day: int, happened: Happened) -> pa.Table:
    on_time_RL = ~_late(config, day)[:, None] & ~_late_tail(config, day)
    parts = [_impression_rows(happened(config, day), on_time_RL)]
    if day > 0:
        late_RL = _late(config, day - 1)[:, None] | _late_tail(config, day - 1)
        parts.insert(0, _impression_rows(happened(config, day - 1), late_RL))
    return pa.concat_tables(parts)


def _late(config: WorldConfig, day: int) -> np.ndarray:
    """Requests of `day` that arrive a day late with all their impressions, (R,) bool."""
    return stream(config, "late", day).random(config.requests_per_day) < config.late_requests


def _late_tail(config: WorldConfig, day: int) -> np.ndarray:
    """Impressions of `day` that arrive a day after their request, (R, L) bool: the last few of a list, never all."""
    generator, length = stream(config, "late_tails", day), config.list_length
    tail_R = generator.random(config.requests_per_day) < config.late_tails
    kept_R = length - np.minimum(generator.integers(1, _LONGEST_TAIL + 1, config.requests_per_day), length - 1)
    return (tail_R & ~_late(config, day))[:, None] & (np.arange(length) >= kept_R[:, None])


def _request_rows(requests: Requests, chosen_R: np.ndarray) -> pa.Table:
    config, rows_R = requests.world.config, np.flatnonzero(chosen_R)
    return _table(
        REQUESTS,
        request_id=requests.request_id_R[rows_R],
        user_id=requests.user_R[rows_R] + FIRST_USER_ID,
        event_time=_midnight(config, requests.world.day) + requests.microseconds_R[rows_R],
        candidates=_lists(requests.item_RN[rows_R] + FIRST_ITEM_ID, pa.int64()),
        candidate_scores=_lists(requests.score_RN[rows_R], pa.float64()),
        policy=requests.policy_R[rows_R],
    )


def _impression_rows(requests: Requests, chosen_RL: np.ndarray) -> pa.Table:
    rows_X, places_X = np.nonzero(chosen_RL)
    return _table(
        IMPRESSIONS,
        request_id=requests.request_id_R[rows_X],
        position=places_X + 1,
        item_id=requests.item_RN[rows_X, requests.slate_RL[rows_X, places_X]] + FIRST_ITEM_ID,
        propensity=requests.propensity_RL[rows_X, places_X],
        click=requests.feedback.click[rows_X, places_X],
        like=requests.feedback.like[rows_X, places_X],
        watch_seconds=np.round(requests.feedback.watch_seconds[rows_X, places_X], 3),
    )


def _items_announced(config: WorldConfig, day: int) -> pa.Table:
    world = world_of(config, day + 1)
    first = 0 if day == 0 else config.item_count(day)
    rows_I = np.arange(first, world.items)
    # What is new on a day was made at some time of the day before, when it was announced.
    within_I = stream(config, "items_made").integers(0, _DAY_MICROSECONDS, world.items)[rows_I]
    return _table(
        ITEMS,
        item_id=rows_I + FIRST_ITEM_ID,
        created_at=_midnight(config, 0) + (world.born_I[rows_I] - 1) * _DAY_MICROSECONDS + within_I,
        topics=[np.flatnonzero(world.topics_IT[row]) for row in rows_I],
        duration_seconds=world.duration_seconds_I[rows_I],
        title=titles(config, world.topics_IT)[first:],
    )


def _users_announced(config: WorldConfig, day: int) -> pa.Table:
    world = world_of(config, day + 1)
    first = 0 if day == 0 else config.user_count(day)
    rows_U = np.arange(first, world.users)
    later_U = np.maximum(rows_U - config.users, -1) // max(config.new_users_per_day, 1)  # -1: before day 0
    within_U = stream(config, "users_made").integers(0, _DAY_MICROSECONDS, world.users)[rows_U]
    return _table(
        USERS,
        user_id=rows_U + FIRST_USER_ID,
        created_at=_midnight(config, 0) + later_U * _DAY_MICROSECONDS + within_U,
        attributes=[[f"age={AGE_BANDS[world.age_U[row]]}", f"device={DEVICES[world.device_U[row]]}"] for row in rows_U],
    )


def _table(schema: pa.Schema, **columns: Any) -> pa.Table:
    """A table of exactly this schema."""
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, type=field.type)
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _lists(values_RN: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Rows of a matrix as lists."""
    rows, width = values_RN.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(values_RN.ravel(), type=kind))


def _midnight(config: WorldConfig, day: int) -> int:
    """Microseconds since 1970, UTC, at which `day` begins."""
    begin = datetime(config.first_day.year, config.first_day.month, config.first_day.day, tzinfo=UTC)
    return (begin - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) + day * _DAY_MICROSECONDS
