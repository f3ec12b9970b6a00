"""Logs of the data contract made by hand, row by row, for tests that know what must come out."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from goalrank import schema


def at(day: str, seconds: float = 0.0) -> datetime:
    """A moment of a day, UTC."""
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=UTC) + timedelta(seconds=seconds)


def plus(day: str, days: int) -> str:
    return str(date.fromisoformat(day) + timedelta(days=days))


class Logs:
    """Rows per table and arrival day; `write` makes the partitions."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[dict[str, Any]]]] = {table: {} for table in schema.LOG_TABLES}

    def day(self, arrived: str) -> None:
        """Let a day exist, with or without traffic."""
        for table in schema.DAILY_TABLES:
            self.rows[table].setdefault(arrived, [])

    def request(self, arrived: str, request_id: str, user_id: int, when: datetime, candidates: Iterable[int]) -> None:
        self.day(arrived)
        offered = list(candidates)
        self.rows["requests"][arrived].append(
            {
                "request_id": request_id,
                "user_id": user_id,
                "event_time": when,
                "candidates": offered,
                "candidate_scores": [1.0 / (1 + place) for place in range(len(offered))],
                "policy": "retriever",
            }
        )

    def impression(
        self,
        arrived: str,
        request_id: str,
        position: int,
        item_id: int,
        click: int = 0,
        like: int = 0,
        watch_seconds: float | None = None,
        propensity: float | None = None,
    ) -> None:
        self.day(arrived)
        self.rows["impressions"][arrived].append(
            {
                "request_id": request_id,
                "position": position,
                "item_id": item_id,
                "propensity": propensity,
                "click": click,
                "like": like,
                "watch_seconds": watch_seconds,
            }
        )

    def item(self, arrived: str, item_id: int, topics: list[int], created: datetime, title: str = "a title") -> None:
        row = {"item_id": item_id, "created_at": created, "topics": topics, "duration_seconds": 60.0, "title": title}
        self.rows["items"].setdefault(arrived, []).append(row)

    def user(self, arrived: str, user_id: int, attributes: list[str]) -> None:
        row = {"user_id": user_id, "created_at": at(arrived), "attributes": attributes}
        self.rows["users"].setdefault(arrived, []).append(row)

    @property
    def days(self) -> list[str]:
        return sorted(self.rows["requests"])

    def write(self, root: Path, days: list[str] | None = None, shuffled: int | None = None, **options: Any) -> Path:
        """Partitions of `days` (all by default) under `root`; `shuffled` seeds another row order in two files."""
        for table, partitions in self.rows.items():
            for day, rows in partitions.items():
                if days is None or day in days:
                    write_partition(root / table / f"dt={day}", table, rows, shuffled, **options)
        return root


def write_partition(
    folder: Path, table: str, rows: list[dict[str, Any]], shuffled: int | None = None, **options: Any
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = [rows]
    if shuffled is not None:
        mixed = random.Random(shuffled).sample(rows, len(rows))
        parts = [mixed[::2], mixed[1::2]]
    for number, part in enumerate(parts):
        filled = pa.Table.from_pylist(part, schema=schema.LOG_TABLES[table])
        pq.write_table(filled, folder / f"part-{number}.parquet", **options)


def random_logs(seed: int, first: str, days: int, requests: int = 12, users: int = 7, items: int = 14) -> Logs:
    """Small logs in which everything late or odd that the contract allows happens often.

    Requests arrive up to 2 days after their event, impressions up to LATENESS_DAYS days after their request; some
    requests have none; items are shown before their content arrives, and some content changes.
    """
    rng, logs = random.Random(seed), Logs()
    last = plus(first, days - 1)
    for number in range(days):
        logs.day(plus(first, number))
    for item in range(1, items + 1):
        known = plus(first, rng.randrange(days) if item % 3 == 0 else 0)
        logs.item(known, item, rng.sample(range(70), rng.randrange(4)), at(known, -rng.random() * 3e5), f"item {item}")
        if item % 4 == 0 and plus(known, 3) <= last:
            logs.item(plus(known, 3), item, rng.sample(range(70), 2), at(known, 10), f"item {item}, renamed")
    for user in range(1, users + 1):
        logs.user(plus(first, rng.randrange(days)), user, [f"age={user}", "sex=f"][: user % 3])
    for number in range(days * requests):
        arrived = plus(first, number // requests)
        when = at(plus(arrived, -rng.choice([0, 0, 0, 1, 2])), round(rng.random() * 86399, 6))
        offered = rng.sample(range(1, items + 1), 8)
        name = f"r{rng.randrange(10**6):06d}-{number}"
        logs.request(arrived, name, rng.randrange(1, users + 1), when, offered)
        if rng.random() < 0.1:
            continue
        for position, item in enumerate(offered[: schema.LIST_LENGTH], start=1):
            seen = plus(arrived, rng.choice([0] * 12 + [1, 2, schema.LATENESS_DAYS]))
            click = int(rng.random() < 0.6)
            watch = round(rng.random() * 90, 4) if rng.random() < 0.8 else None
            propensity = round(rng.random(), 3) if number % 3 else None
            if seen <= last:
                logs.impression(seen, name, position, item, click, click and rng.randrange(2), watch, propensity)
    return logs
