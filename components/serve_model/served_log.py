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
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.serve_model.bodies import ISSUED_PREFIX, FeedbackBody, RankBody
from components.serve_model.journal import SUFFIX, Segment
from goalrank import schema
from goalrank.errors import GoalRankError

if TYPE_CHECKING:
    from components.serve_model.ranking import Ranked  # torch: whoever brings the rows in need not have it

FEEDBACK_WINDOW_SECONDS = 1800.0
"""How long after its segment is closed a request still takes feedback."""
SEGMENT_SECONDS = 300.0
SEGMENT_REQUESTS = 20_000
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

    def claim(self, bodies: Sequence[RankBody], together: bool = False) -> list[RepeatedRequestError | None]:
        """Take the ids that clients chose, before anything is answered under them; an error for each used before.

        `together`: all of these or none. One repetition refuses them all, and takes none of their ids.
        """
        with self._lock:
            refused: list[RepeatedRequestError | None] = []
            taken: set[str] = set()
            for body in bodies:
                name = body.request_id
                if name is not None and (name in taken or any(name in ids for ids in self._client_ids.values())):
                    refused.append(RepeatedRequestError(f"request_id {name!r} was used before; send a new one or none"))
                    continue
                refused.append(None)
                if name is not None:
                    taken.add(name)
            first = next((error for error in refused if error is not None), None)
            if together and first is not None:
                return [first] * len(bodies)
            self._client_ids.setdefault(self._today(), set()).update(taken)
            return refused

    def give_back(self, bodies: Sequence[RankBody]) -> None:
        """Forget claimed ids: nothing was recorded under them, so they may be used again."""
        names = {body.request_id for body in bodies if body.request_id is not None}
        with self._lock:
            for ids in self._client_ids.values():
                ids -= names

    def record_all(self, answers: Sequence[tuple[RankBody, Ranked]]) -> list[str]:
        """Journal answers to claimed requests with one write; their ids, made here where the client gave none.

        What the disk does not take is answered all the same, and its ids are free again.
        """
        now = self._clock()
        names = [body.request_id or new_request_id() for body, _ in answers]
        events = [_event(name, now, body, ranked) for name, (body, ranked) in zip(names, answers, strict=True)]
        with self._lock:
            try:
                if events:
                    if self._open is None:
                        self._open = Segment.create(self._folder, now)
                    self._open.append(events)
            except OSError as error:
                self.unlogged += len(events)
                self.give_back([body for body, _ in answers])
                _log.error("%d requests are answered but not logged: %s", len(events), error)
        return names

    def record(self, body: RankBody, ranked: Ranked) -> str:
        """Journal one answer; the request's id.

        Raises:
            RepeatedRequestError: the client's id was used before.
        """
        (refused,) = self.claim([body])
        if refused is not None:
            raise refused
        return self.record_all([(body, ranked)])[0]

    def feedback(self, body: FeedbackBody) -> None:
        """Journal what the user did.

        Raises:
            UnknownRequestError: no such request is waiting for feedback, or its list has no such position.
        """
        with self._lock:
            for segment in [self._open, *self._waiting]:
                if segment is not None and body.request_id in segment.shown:
                    shown = segment.shown[body.request_id]
                    if body.position > shown:
                        raise UnknownRequestError(
                            f"position {body.position} of request {body.request_id!r} found, its list has {shown}"
                        )
                    event = body.model_dump()
                    segment.append([{"feedback_on": event.pop("request_id"), **event}])
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
        closed = None
        with self._lock:
            now = self._clock()
            if self._open is not None and (
                now - self._open.opened_at >= self.segment_seconds or len(self._open.shown) >= SEGMENT_REQUESTS
            ):
                closed = self._rotate(self._open, now)
            due = [segment for segment in self._waiting if now - (segment.closed_at or now) >= self.window_seconds]
            for segment in due:
                self._waiting.remove(segment)  # from here on, feedback on it comes too late
            self._forget_ids(due)
        # Without the lock: neither the disk nor Parquet may hold up an answer.
        if closed is not None:
            closed.sync()
        while due:
            try:
                self._write(due[0])
            except BaseException:
                with self._lock:
                    self._waiting = due + self._waiting
                raise
            arrived = {name for name in due.pop(0).shown if not name.startswith(ISSUED_PREFIX)}
            with self._lock:  # they count from the day of their partition on, as they will after a restart
                self._client_ids.setdefault(self._today(), set()).update(arrived)

    def close(self) -> None:
        """Stop, and write everything, waiting for feedback or not."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._open is not None:
                self._rotate(self._open, self._clock()).sync()
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
                recovered += self._write(segment)
        return recovered

    def _rotate(self, segment: Segment, now: float) -> Segment:
        """Close the open segment: no further requests; feedback on those it holds is still taken."""
        self._open = None
        segment.closed_at = now
        self._waiting.append(segment)
        return segment

    def _write(self, segment: Segment) -> int:
        tables = segment.tables()
        if tables["requests"].num_rows:
            # Requests first: an impression may follow its request by days, never precede it.
            for table in ("requests", "impressions"):
                self._write_table(segment.name, table, tables[table])
        segment.remove()
        return tables["requests"].num_rows

    def _write_table(self, name: str, table: str, rows: pa.Table) -> None:
        file = f"served-{name}.parquet"
        if self._arrivals(table, file):
            return  # a process died between the two tables, or before it could remove the segment
        aside = self._folder / f".{table}-{file}"
        pq.write_table(rows, aside)
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        # The day is taken last: midnight may have passed while the file was written, and yesterday is closed.
        today = self._today()
        for asked in self._arrivals("requests", file) if table == "impressions" else ():
            if (today - asked).days > schema.LATENESS_DAYS:
                _log.warning(
                    "%d impressions of %s are dropped: their requests arrived on %s, more than %d days ago; a night "
                    "would refuse them; the disk was full, or no server ran since then",
                    *(rows.num_rows, file, asked, schema.LATENESS_DAYS),
                )
                aside.unlink()
                return
        target = self.logs / table / f"dt={today}" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, target)

    def _arrivals(self, table: str, file: str) -> list[date]:
        """Days whose partition of the table holds the file; one at most."""
        found = (self.logs / table).glob(f"dt=*/{file}")
        return [date.fromisoformat(path.parent.name.removeprefix("dt=")) for path in found]

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    def _recent_client_ids(self) -> dict[date, set[str]]:
        """Ids that clients chose, by arrival day, as far back as a repetition would still meet its first use."""
        recent: dict[date, set[str]] = {}
        for back in range(schema.LATENESS_DAYS + 1):
            day = self._today() - timedelta(days=back)
            for file in sorted((self.logs / "requests" / f"dt={day}").glob("served-*.parquet")):
                found = pq.read_table(file, columns=["request_id"])["request_id"].to_pylist()
                recent.setdefault(day, set()).update(name for name in found if not name.startswith(ISSUED_PREFIX))
        return recent

    def _forget_ids(self, due: Sequence[Segment]) -> None:
        """Let go of the ids of days that no repetition can meet any more, those still to be written excepted."""
        unwritten = [*due, *self._waiting, *([self._open] if self._open is not None else [])]
        oldest = min([self._clock(), *(segment.opened_at for segment in unwritten)])
        kept_from = datetime.fromtimestamp(oldest, UTC).date() - timedelta(days=schema.LATENESS_DAYS)
        for day in [day for day in self._client_ids if day < kept_from]:
            del self._client_ids[day]


def new_request_id() -> str:
    """An id that no client may choose."""
    return f"{ISSUED_PREFIX}{uuid.uuid4().hex}"


def _event(request_id: str, now: float, body: RankBody, ranked: Ranked) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "user_id": body.user_id,
        "event_time": int(now * 1_000_000),
        "candidates": body.item_ids,
        "candidate_scores": body.scores,
        "policy": ranked.policy,
        "items": ranked.items,
        "propensities": ranked.propensities,
    }
