"""What was served becomes tomorrow's training data: requests and impressions in the logs' own contract.

A request is journalled before its answer leaves (journal.py), waits for feedback, and is then written to
LOGS/{requests,impressions}/dt=<arrival day>/served-<segment>.parquet, a new file each time, put in place by a rename.
The arrival day is the day of that writing: a partition of a past day is never touched.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.serve_model.bodies import ISSUED_PREFIX, FeedbackBody, RankBody
from components.serve_model.journal import SUFFIX, Segment
from components.serve_model.ranking import Ranked
from goalrank import schema
from goalrank.errors import GoalRankError

FEEDBACK_WINDOW_SECONDS = 1800.0
"""How long after its segment is closed a request still takes feedback."""
SEGMENT_SECONDS = 300.0
SEGMENT_REQUESTS = 10_000
JOURNAL = ".served"
"""Folder of the journal under LOGS; readers of logs look at <table>/dt=... only."""

_log = logging.getLogger("goalrank.serve")


class UnknownRequestError(GoalRankError):
    """Feedback on a request that was never served here, or whose window is over (HTTP 404)."""


class RepeatedRequestError(GoalRankError):
    """A request id that was used before: a log with it twice would be refused by the night (HTTP 409)."""


class ServedLog:
    """Journal and writer of one serving process."""

    def __init__(
        self,
        logs_uri: str | Path,
        window_seconds: float = FEEDBACK_WINDOW_SECONDS,
        segment_seconds: float = SEGMENT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens the log and writes out what a process that died before left behind."""
        self.logs = Path(logs_uri)
        self.window_seconds, self.segment_seconds = window_seconds, segment_seconds
        self.unlogged = 0
        """Requests that could not be journalled (a full disk); they were answered all the same."""
        self._clock = clock
        self._folder = self.logs / JOURNAL
        self._lock = threading.RLock()
        self._open: Segment | None = None
        self._waiting: list[Segment] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.recover()
        self._client_ids = self._recent_client_ids()

    # ------------------------------------------------------------------------------------------------------ recording

    def record(self, body: RankBody, ranked: Ranked) -> str:
        """Journal one answer; the request's id, made here if the client gave none.

        Raises:
            RepeatedRequestError: the client's id was used before.
        """
        request_id = body.request_id or f"{ISSUED_PREFIX}{uuid.uuid4().hex}"
        now = self._clock()
        request = {
            "request_id": request_id,
            "user_id": body.user_id,
            "event_time": int(now * 1_000_000),
            "candidates": [candidate.item_id for candidate in body.candidates],
            "candidate_scores": [float(candidate.score) for candidate in body.candidates],
            "policy": ranked.policy,
        }
        propensities: Sequence[float | None] = ranked.propensities or [None] * len(ranked.items)
        impressions = [
            {
                "request_id": request_id,
                "position": position,
                "item_id": item,
                "propensity": propensity,
                "click": 0,
                "like": 0,
                "watch_seconds": None,
            }
            for position, (item, propensity) in enumerate(zip(ranked.items, propensities, strict=True), start=1)
        ]
        with self._lock:
            if body.request_id is not None:
                if body.request_id in self._client_ids:
                    raise RepeatedRequestError(
                        f"request_id {body.request_id!r} was used before; send a new one or none"
                    )
                self._client_ids.add(body.request_id)
            try:
                if self._open is None:
                    self._open = Segment.create(self._folder, now)
                self._open.append({"served": {"request": request, "impressions": impressions}})
            except OSError as error:
                self.unlogged += 1
                _log.error("request %s is answered but not logged: %s", request_id, error)
        return request_id

    def feedback(self, body: FeedbackBody) -> None:
        """Journal what the user did.

        Raises:
            UnknownRequestError: no such request is waiting for feedback, or its list has no such position.
        """
        with self._lock:
            for segment in [self._open, *self._waiting]:
                if segment is not None and body.request_id in segment.served:
                    shown = len(segment.served[body.request_id].impressions)
                    if body.position > shown:
                        raise UnknownRequestError(
                            f"position {body.position} of request {body.request_id!r} found, its list has {shown}"
                        )
                    segment.append({"feedback": body.model_dump()})
                    return
        raise UnknownRequestError(
            f"request_id {body.request_id!r} is not waiting for feedback: it was not served here, or its window of "
            f"{self.window_seconds:.0f} seconds is over"
        )

    # -------------------------------------------------------------------------------------------------------- writing

    def start(self, every_seconds: float = 1.0) -> None:
        """Flush in the background what is due."""

        def work() -> None:
            while not self._stop.wait(every_seconds):
                try:
                    self.flush_due()
                except Exception:  # the segment stays in the journal: the next round, or the next start, tries again
                    _log.exception("the served log could not be written; it is tried again")

        self._thread = threading.Thread(target=work, name="served-log", daemon=True)
        self._thread.start()

    def flush_due(self) -> None:
        """Close the open segment if it is old or long, and write those whose feedback window is over."""
        with self._lock:
            now = self._clock()
            if self._open is not None and (
                now - self._open.opened_at >= self.segment_seconds or len(self._open.served) >= SEGMENT_REQUESTS
            ):
                self._rotate(now)
            due = [segment for segment in self._waiting if now - (segment.closed_at or now) >= self.window_seconds]
            for segment in due:
                self._write(segment)
                self._waiting.remove(segment)

    def close(self) -> None:
        """Stop, and write everything, waiting for feedback or not."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._open is not None:
                self._rotate(self._clock())
            while self._waiting:
                try:
                    self._write(self._waiting[0])
                except OSError as error:
                    _log.error("left in the journal for the next start: %s", error)
                    self._waiting[0].release()
                self._waiting.pop(0)

    def recover(self) -> int:
        """Write out the segments of processes that are gone; how many requests were in them."""
        recovered = 0
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            segment = Segment.adopt(path, self._clock())
            if segment is not None:
                recovered += len(segment.served)
                self._write(segment)
        return recovered

    def _rotate(self, now: float) -> None:
        if self._open is not None:
            self._open.close(now)
            self._waiting.append(self._open)
            self._open = None

    def _write(self, segment: Segment) -> None:
        served = list(segment.served.values())
        if served:
            # Requests first: an impression may follow its request by days, never precede it.
            self._write_table(segment.name, "requests", [_request_row(one.request) for one in served])
            self._write_table(segment.name, "impressions", [row for one in served for row in one.impressions])
        segment.remove()

    def _write_table(self, name: str, table: str, rows: list[dict[str, Any]]) -> None:
        file = f"served-{name}.parquet"
        if any((self.logs / table).glob(f"dt=*/{file}")):
            return  # a process died between the two tables, or before it could remove the segment
        aside = self._folder / f".{table}-{file}"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema.LOG_TABLES[table]), aside)
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        # The day is taken last: midnight may have passed while the file was written, and yesterday is closed.
        day = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        target = self.logs / table / f"dt={day}" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, target)

    def _recent_client_ids(self) -> set[str]:
        """Ids that clients chose in the days in which a repetition would still meet its first use."""
        today = datetime.fromtimestamp(self._clock(), UTC).date()
        days = [(today - timedelta(days=back)).isoformat() for back in range(schema.LATENESS_DAYS + 1)]
        found: set[str] = set()
        for day in days:
            for file in sorted((self.logs / "requests" / f"dt={day}").glob("served-*.parquet")):
                found.update(pq.read_table(file, columns=["request_id"])["request_id"].to_pylist())
        return {name for name in found if not name.startswith(ISSUED_PREFIX)}


def _request_row(request: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=request["event_time"])
    return {**request, "event_time": moment}
