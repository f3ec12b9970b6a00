"""The logged requests of the newest snapshot's last day: whose they were, what was offered, shown and clicked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import Any

import numpy as np
import pyarrow as pa

from components.extract_features import locations, snapshots
from goalrank.errors import DataRefused, UsageError

MOST = 50_000
"""Requests kept in memory; of a busier day the latest."""
COLUMNS = ["request_id", "user_id", "event_time", "candidates", "candidate_scores", "slate", "clicks"]
SUGGESTED, LISTED = 8, 50


@dataclass(frozen=True)
class Logged:
    """One request as it was logged."""

    request_id: str
    user_id: int
    event_time: str
    candidates: list[int]
    scores: list[float]
    shown: list[int]
    clicked: list[bool]


class LoggedRequests:
    """Found by user and by id."""

    def __init__(self, table: pa.Table, date: str, snapshot_id: str) -> None:
        """
        Args:
            table: columns COLUMNS.
        """
        self.date, self.snapshot_id = date, snapshot_id
        table = table.sort_by([("event_time", "ascending"), ("request_id", "ascending")])
        self._table = table.slice(max(0, table.num_rows - MOST))
        self._user_R = self._table["user_id"].to_numpy()
        self._row_of = {name: row for row, name in enumerate(self._table["request_id"].to_pylist())}
        users, counts = np.unique(self._user_R, return_counts=True)
        busiest = np.lexsort((users, -counts))
        self._users = [(int(users[at]), int(counts[at])) for at in busiest]

    @classmethod
    def newest(cls, snapshots_uri: str) -> LoggedRequests:
        """Those of the last day of the newest snapshot that has any.

        Raises:
            UsageError: no snapshot has.
        """
        root = locations.folder(snapshots_uri)
        for date in reversed(snapshots.dates(root)):
            try:
                snapshot = snapshots.Snapshot.read(root, date)
                table = snapshot.read_examples([snapshot.date]).select(COLUMNS)
            except (DataRefused, OSError, pa.ArrowException):
                continue
            if table.num_rows:
                return cls(table, snapshot.date, snapshot.snapshot_id)
        raise UsageError(f"no logged request found under {root}; run `goalrank nightly` first")

    def __len__(self) -> int:
        return self._table.num_rows

    def users(self, begins_with: str = "") -> list[dict[str, Any]]:
        """Users whose id begins so, the busiest first; an id typed in full comes first of all."""
        found = [(user, count) for user, count in self._users if str(user).startswith(begins_with)]
        found.sort(key=lambda pair: str(pair[0]) != begins_with)
        return [{"user_id": str(user), "requests": count} for user, count in found[:SUGGESTED]]

    def of_user(self, user_id: int) -> list[dict[str, Any]]:
        """A user's requests, the newest first."""
        rows = np.flatnonzero(self._user_R == user_id)[::-1][:LISTED]
        found = [self._logged(int(row)) for row in rows]
        return [
            {
                "request_id": one.request_id,
                "event_time": one.event_time,
                "candidates": len(one.candidates),
                "clicks": sum(one.clicked),
            }
            for one in found
        ]

    def find(self, request_id: str) -> Logged | None:
        """The request of that id."""
        row = self._row_of.get(request_id)
        return None if row is None else self._logged(row)

    def _logged(self, row: int) -> Logged:
        (found,) = self._table.slice(row, 1).to_pylist()
        return Logged(
            request_id=found["request_id"],
            user_id=found["user_id"],
            event_time=found["event_time"].astimezone(UTC).isoformat(sep=" ", timespec="seconds").partition("+")[0],
            candidates=found["candidates"],
            scores=found["candidate_scores"],
            shown=found["slate"],
            clicked=[bool(click) for click in found["clicks"]],
        )
