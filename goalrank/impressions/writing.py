"""The logs of an import of impressions, day by day, and what is told of them.

    LOGS/requests/ impressions/ items/ users/   the data contract's tables (goalrank.schema)
    LOGS/import.json                            columns, counts, what was dropped and mended
    LOGS/user_ids.parquet, item_ids.parquet     id, original: only where the file's ids had to be numbered
    LOGS/topic_ids.parquet                      id, original: where items have topics

A request's id is its day and the file's own (`2026-01-31:s17`), since services use ids again; a digest of that where it
is too long or has other characters than the ranking service takes. A day's rows arrive on that day. Items and users are
announced on the first day that shows them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank.errors import DataRefused
from goalrank.impressions import logged
from goalrank.impressions.adding import KIND, Earlier
from goalrank.impressions.columns import as_flag
from goalrank.impressions.completion import Completion
from goalrank.impressions.lists import IntArray, Lists, put_together
from goalrank.impressions.reading import DAY, Reader
from goalrank.impressions.tables import Item, topic_numbers
from goalrank.logs_writer import write_partition
from goalrank.schema import REQUEST_ID_PATTERN, TIMESTAMP


def day_text(day: int) -> str:
    """YYYY-MM-DD of a day since 1970."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def request_id_of(dt: str, original: str) -> str:
    """The logs' id of a list: DAY:ORIGINAL, or DAY:DIGEST where that is no id of the data contract."""
    whole = f"{dt}:{original}"
    if re.fullmatch(REQUEST_ID_PATTERN, whole):
        return whole
    return f"{dt}:{hashlib.sha256(original.encode()).hexdigest()[:32]}"


class LogsOfImpressions:
    """Logs being written into one folder; days in order."""

    def __init__(
        self,
        root: Path,
        reader: Reader,
        items: Mapping[str, Item],
        users: Mapping[str, list[str]],
        policy: str,
        earlier: Earlier,
    ) -> None:
        self.columns, self.written = reader.columns, {"requests": 0, "impressions": 0, "clicks": 0}
        self.dropped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._root, self._reader, self._policy = root, reader, policy
        self._known_items, self._known_users, self._earlier = items, users, earlier
        self._topics = topic_numbers(items, earlier.topics)
        self._user_id_U, self._users_numbered = reader.users.numbered("user", earlier.numbered("user"))
        self._item_id_I, self._items_numbered = reader.items.numbered("item", earlier.numbered("item"))
        self._users, self._items = reader.users.originals, reader.items.originals
        self._user_announced_U = np.isin(self._user_id_U, earlier.announced("users"))
        self._item_announced_I = np.isin(self._item_id_I, earlier.announced("items"))
        self._rows_of: dict[str, dict[str, int]] = {}
        self._late_lists = 0

    @property
    def item_ids(self) -> IntArray:
        """The number of each item's code."""
        return self._item_id_I

    def leave_out_closed_day(self, day: int, rows: pa.Table) -> None:
        """Count the whole lists of a day that is there already which it lacks; `rows` are reading.ROWS."""
        known, days = self._earlier.requests(), (day_text(day - 1), day_text(day))
        lists = put_together(rows, Counter(), Counter(), {})
        self._late_lists = sum(
            1 for request in lists.request_Q if not any(request_id_of(dt, request) in known for dt in days)
        )

    def write_day(self, day: int, lists: Lists, completion: Completion) -> None:
        """Write what happened on one day."""
        if not len(lists):
            return
        rate_I = completion.rates()
        texts = self._reader.candidate_texts
        if texts.seen:
            item_C, count_Q, score_C = logged.candidates(lists, texts, self._reader.items, rate_I, self.noted)
        else:
            item_C, count_Q = completion.candidates(lists, day)
            score_C = rate_I[item_C]
        completion.learn(lists)
        dt, midnight = date.fromisoformat(day_text(day)), day * DAY
        request_id = pa.array([request_id_of(dt.isoformat(), request) for request in lists.request_Q])
        offset_Q = pa.array(np.concatenate(([0], np.cumsum(count_Q))), pa.int32())
        requests = write_partition(
            self._root,
            "requests",
            dt,
            {
                "request_id": request_id,
                "user_id": self._user_id_U[lists.user_Q],
                "event_time": pa.array(lists.time_Q).cast(TIMESTAMP),
                "candidates": pa.ListArray.from_arrays(offset_Q, pa.array(self._item_id_I[item_C])),
                "candidate_scores": pa.ListArray.from_arrays(offset_Q, pa.array(score_C)),
                "policy": [policy or self._policy for policy in lists.policy_Q],
            },
        )
        impressions = write_partition(
            self._root,
            "impressions",
            dt,
            {
                "request_id": request_id.take(pa.array(lists.lists_of_shown)),
                "position": lists.places_of_shown + 1,
                "item_id": self._item_id_I[lists.item_S],
                "propensity": pa.array(lists.propensity_S, from_pandas=True),
                "click": lists.click_S,
                "like": lists.like_S,
                "watch_seconds": pa.array(lists.watch_S, from_pandas=True),
            },
        )
        self._announce_items(dt, midnight, np.unique(item_C))
        self._announce_users(dt, midnight, lists)
        users = len(np.unique(lists.user_Q))
        self._rows_of[dt.isoformat()] = {"requests": requests, "impressions": impressions, "users": users}
        for name, count in (("requests", requests), ("impressions", impressions), ("clicks", int(lists.click_S.sum()))):
            self.written[name] += count

    def _announce_items(self, dt: date, midnight: int, item_I: IntArray) -> None:
        new = item_I[~self._item_announced_I[item_I]]
        if not len(new):
            return
        self._item_announced_I[new] = True
        rows = [self._known_items.get(self._items[code]) or Item(self._items[code], (), None, None) for code in new]
        write_partition(
            self._root,
            "items",
            dt,
            {
                "item_id": self._item_id_I[new],
                # Not after the day that shows it, whatever the table says.
                "created_at": pa.array(
                    [midnight if row.created is None else min(row.created, midnight) for row in rows]
                ).cast(TIMESTAMP),
                "topics": [[self._topics[topic] for topic in row.topics] for row in rows],
                "duration_seconds": [row.duration for row in rows],
                "title": [row.title for row in rows],
            },
        )

    def _announce_users(self, dt: date, midnight: int, lists: Lists) -> None:
        user_U = np.unique(lists.user_Q)
        new = user_U[~self._user_announced_U[user_U]]
        if not len(new):
            return
        self._user_announced_U[new] = True
        write_partition(
            self._root,
            "users",
            dt,
            {
                "user_id": self._user_id_U[new],
                "created_at": pa.array(np.full(len(new), midnight)).cast(TIMESTAMP),
                "attributes": [self._known_users.get(self._users[code], []) for code in new],
            },
        )

    def write_rest(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Mappings of ids and import.json; returns what that holds.

        Raises:
            DataRefused: not one list was whole.
        """
        if not self.written["requests"]:
            raise DataRefused(
                "not one whole list found, expected some; look at what was dropped: "
                + ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
            )
        for name, numbered, numbers, originals in (
            ("user_ids", self._users_numbered, self._user_id_U, self._users),
            ("item_ids", self._items_numbered, self._item_id_I, self._items),
            ("topic_ids", bool(self._topics), np.array(list(self._topics.values())), list(self._topics)),
        ):
            if numbered:
                table = pa.table({"id": pa.array(numbers, pa.int64()), "original": originals})
                if self._earlier.logs is not None and (file := self._earlier.logs / f"{name}.parquet").exists():
                    table = pa.concat_tables([pq.read_table(file), table]).group_by(table.column_names).aggregate([])
                pq.write_table(table, self._root / f"{name}.parquet", compression="zstd")
        document = self._document(told)
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (self._root / "import.json").write_text(text, encoding="utf-8")
        return document

    def _document(self, told: Mapping[str, Any]) -> dict[str, Any]:
        reader = self._reader
        before = self._earlier.document
        rows_of = before.get("days", {}).get("rows", {}) | self._rows_of
        days = sorted(rows_of)
        bad = {f"unreadable {reason}": count for reason, count in reader.bad.counts.items()}
        outside = {"outside the days asked for": told["outside_days"]}
        dropped = {**bad, **outside, **self.dropped}
        return {
            "format": 1,
            "kind": KIND,
            "candidates": "logged" if reader.candidate_texts.seen else "drawn",
            "seed": told["seed"],
            "source": {path.name: _sha256(path) for path in told["source"]},
            "columns": as_flag(self.columns),
            "time_zone": told["time_zone"],
            "counts": {
                "rows_read": reader.rows,
                "users": int(self._user_announced_U.sum()),
                "items": int(self._item_announced_I.sum()),
                **self.written,
            },
            "dropped": {reason: count for reason, count in dropped.items() if count},
            "mended": {how: count for how, count in self.noted.items() if count},
            "items_without_a_row": self._unknown(self._item_announced_I, self._items, self._known_items),
            "users_without_a_row": self._unknown(self._user_announced_U, self._users, self._known_users),
            "first_unreadable": [f"line {line}: {what}" for line, what in reader.bad.first],
            "days": {"first": days[0], "last": days[-1], "count": len(days), "rows": rows_of},
            "late_lists": {"day": str(self._earlier.last), "lists": self._late_lists} if self._late_lists else None,
            "added_to": [*before.pop("added_to", []), before["counts"]] if before else [],
        }

    @staticmethod
    def _unknown(announced: np.ndarray, originals: list[str], known: Mapping[str, Any]) -> int | None:
        """How many that were announced the table beside does not know; None without a table."""
        if not known:
            return None
        return sum(1 for code in np.flatnonzero(announced).tolist() if originals[code] not in known)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
