"""Logs of the data contract of any size, written by whole columns, a partition at a time: for timing, not for learning.

What costs extraction work is there: 50 candidates a request, lists of 6, a skewed popularity, late requests and late
impressions, items and users that come and change. Clicks are drawn without regard to taste, so nothing can be learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from goalrank.logs_writer import write_partition
from goalrank.schema import LATENESS_DAYS, LIST_LENGTH, TIMESTAMP

FIRST_DAY = date(2026, 1, 1)
CANDIDATES = 50
DAY_US = 86_400_000_000
_SCRAMBLE = np.uint64(0x9E3779B97F4A7C15)  # odd: a number times it, modulo 2**64, is another for every other
_STEP = 1_000_000_000  # requests a day at most


@dataclass(frozen=True)
class LogSize:
    """How much there is: users and items grow with the traffic, as they do where it grows."""

    impressions_a_day: int

    @property
    def requests(self) -> int:
        """A day."""
        return max(1, self.impressions_a_day // LIST_LENGTH)

    @property
    def users(self) -> int:
        """One for 0.8 requests a day."""
        return max(10, self.requests * 5 // 4)

    @property
    def items(self) -> int:
        """One for 33 impressions a day."""
        return max(4 * CANDIDATES, self.impressions_a_day // 33)


def days(count: int) -> list[str]:
    """The first `count` arrival days, YYYY-MM-DD."""
    return [(FIRST_DAY + timedelta(days=at)).isoformat() for at in range(count)]


def write_logs(logs: Path, size: LogSize, count: int, seed: int = 0) -> Iterator[int]:
    """Write `count` arrival days under `logs`; yields each day's impressions as its partitions are written."""
    late: list[list[pa.Table]] = [[] for _ in range(count + LATENESS_DAYS)]
    for at in range(count):
        random = np.random.default_rng([seed, at])
        day = FIRST_DAY + timedelta(days=at)
        requests, shown_RL = _requests(random, size, at)
        write_partition(logs, "requests", day, requests)
        impressions = _impressions(random, requests["request_id"], shown_RL)
        delay = random.choice(LATENESS_DAYS + 1, len(impressions), p=[0.97] + [0.03 / LATENESS_DAYS] * LATENESS_DAYS)
        for days_late in range(LATENESS_DAYS + 1):
            late[at + days_late].append(impressions.filter(pa.array(delay == days_late)))
        arrived = pa.concat_tables(late[at])
        late[at] = []
        write_partition(
            logs, "impressions", day, {name: arrived[name].combine_chunks() for name in arrived.schema.names}
        )
        write_partition(logs, "items", day, _items(random, size, at))
        write_partition(logs, "users", day, _users(random, size, at))
        yield arrived.num_rows


def _requests(random: np.random.Generator, size: LogSize, at: int) -> tuple[dict[str, Any], np.ndarray]:
    count = size.requests
    numbers = np.arange(count, dtype=np.uint64) + np.uint64(at * _STEP)
    start_R = (size.items * random.random(count) ** 3).astype(np.int64)  # a third of the shows go to 4% of the items
    step_R = random.integers(1, size.items // CANDIDATES, count, endpoint=True)  # 50 of them do not go round
    candidates_RN = 1 + (start_R[:, None] + np.arange(CANDIDATES) * step_R[:, None]) % size.items
    scores_RN = -np.sort(-random.integers(0, 4096, (count, CANDIDATES)), axis=1) / 4096
    early_R = random.choice([0, 1, 2], count, p=[0.98, 0.01, 0.01])  # arrived after their day
    moment_R = (np.datetime64(FIRST_DAY, "us").astype(np.int64) + (at - early_R) * DAY_US) + random.integers(
        0, DAY_US, count
    )
    columns = {
        "request_id": pa.array(numbers * _SCRAMBLE).cast(pa.string()),
        "user_id": 1 + (size.users * random.random(count) ** 1.5).astype(np.int64),
        "event_time": pa.array(moment_R).cast(TIMESTAMP),
        "candidates": _lists(candidates_RN.ravel(), CANDIDATES),
        "candidate_scores": _lists(scores_RN.ravel(), CANDIDATES),
        "policy": pa.array(["retriever"]).take(pa.array(np.zeros(count, np.int64))),
    }
    return columns, candidates_RN[:, :LIST_LENGTH]


def _impressions(random: np.random.Generator, request_id: pa.Array, shown_RL: np.ndarray) -> pa.Table:
    count = shown_RL.size
    click = (random.random(count) < 0.18).astype(np.int8)
    watched = np.round(random.exponential(20.0, count) * click, 3)
    return pa.table(
        {
            "request_id": request_id.take(pa.array(np.repeat(np.arange(len(shown_RL)), LIST_LENGTH))),
            "position": np.tile(np.arange(1, LIST_LENGTH + 1, dtype=np.int32), len(shown_RL)),
            "item_id": shown_RL.ravel(),
            "propensity": pa.array(random.integers(1, 1025, count) / 1024, mask=random.random(count) < 0.01),
            "click": click,
            "like": click * (random.random(count) < 0.2).astype(np.int8),
            "watch_seconds": pa.array(watched, mask=random.random(count) < 0.1),
        }
    )


def _items(random: np.random.Generator, size: LogSize, at: int) -> dict[str, Any]:
    """Nine of ten on the first day, the others over the days that follow, shown before that; 1 in 200 changes a day."""
    first = np.arange(1, size.items + 1)
    known = first % 10 > 0
    ids = first[known] if at == 0 else first[(~known & (first // 10 % 30 == at)) | (random.random(size.items) < 0.005)]
    topics_IK = random.integers(0, 64, (len(ids), 2))
    age = random.integers(0, 60 * DAY_US, len(ids))
    return {
        "item_id": ids,
        "created_at": pa.array(np.datetime64(FIRST_DAY, "us").astype(np.int64) + at * DAY_US - age).cast(TIMESTAMP),
        "topics": _lists(topics_IK.astype(np.int32).ravel(), 2),
        "duration_seconds": np.round(random.uniform(10, 300, len(ids)), 1),
        "title": [f"item {item}" for item in ids.tolist()],
    }


def _users(random: np.random.Generator, size: LogSize, at: int) -> dict[str, Any]:
    """All on the first day; 1 in 200 changes a day."""
    ids = np.arange(1, size.users + 1)
    if at:
        ids = ids[random.random(size.users) < 0.005]
    attributes = [text for user in ids.tolist() for text in (f"age={user % 50 + 18}", f"device={user % 4}")]
    return {
        "user_id": ids,
        "created_at": pa.array(np.full(len(ids), np.datetime64(FIRST_DAY, "us").astype(np.int64))).cast(TIMESTAMP),
        "attributes": _lists(pa.array(attributes), 2),
    }


def _lists(values: Any, length: int) -> pa.Array:
    offsets = np.arange(0, len(values) + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
