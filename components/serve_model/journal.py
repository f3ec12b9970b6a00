"""The journal of what was served: append-only segments that outlive the process.

    JOURNAL/<segment>.jsonl     one line an event, written before the answer leaves; locked by the process that owns it
    JOURNAL/<segment>.damaged   lines of it that are no events, for whoever wants to look; nobody reads them

    {"request_id", "user_id", "event_time" (microseconds), "candidates", "candidate_scores", "policy", "items",
     "propensities" (or null)}                                           one answer
    {"feedback_on", "position", "click", "like", "watch_seconds"}        what the user did with one position of it

Lines reach the operating system before their answers leave, so a killed process loses nothing; segments are synced to
disk when they are closed. A process that starts finds the segments whose owners are gone (their locks are free). Only
request ids are kept in memory: what was served is read back from the file when its Parquet is made.
"""

from __future__ import annotations

import fcntl
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from pydantic_core import to_json

from goalrank import schema

SUFFIX = ".jsonl"
DAMAGED = ".damaged"
FLAGS = ("click", "like")

_log = logging.getLogger("goalrank.serve")

_LINES = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("user_id", pa.int64()),
        pa.field("event_time", pa.int64()),
        pa.field("candidates", pa.list_(pa.int64())),
        pa.field("candidate_scores", pa.list_(pa.float64())),
        pa.field("policy", pa.string()),
        pa.field("items", pa.list_(pa.int64())),
        pa.field("propensities", pa.list_(pa.float64())),
        pa.field("feedback_on", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("click", pa.int8()),
        pa.field("like", pa.int8()),
        pa.field("watch_seconds", pa.float64()),
    ]
)


@dataclass
class Segment:
    """One file of the journal, and which requests it holds."""

    path: Path
    opened_at: float
    closed_at: float | None = None
    shown: dict[str, int] = field(default_factory=dict)
    """Length of the list served to each request."""
    _descriptor: int = -1

    @property
    def name(self) -> str:
        """Unique for ever; the Parquet files made of the segment carry it."""
        return self.path.name.removesuffix(SUFFIX)

    @classmethod
    def create(cls, folder: Path, now: float) -> Segment:
        """A new, empty segment owned by this process."""
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            segment = cls(folder / f"{int(now * 1000)}-{uuid.uuid4().hex}{SUFFIX}", now)
            segment._descriptor = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(segment._descriptor, fcntl.LOCK_EX)
            if segment.path.exists():
                return segment
            # Another process started between the two calls and took the empty file for an orphan.
            segment.release()

    @classmethod
    def adopt(cls, path: Path, now: float) -> Segment | None:
        """A segment left by a process that is gone; None if its owner lives or it is gone too."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        if not path.exists():  # its owner ended between the listing and the lock
            os.close(descriptor)
            return None
        return cls(path, now, closed_at=now, _descriptor=descriptor)

    def append(self, events: Sequence[dict[str, Any]]) -> None:
        """Write events with one call to the operating system, then take them in.

        Raises:
            OSError: they could not be written (a full disk); nothing was taken in.
        """
        lines = b"".join(to_json(event) + b"\n" for event in events)
        end = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, lines)
            if written != len(lines):
                raise OSError(28, f"{written} of {len(lines)} bytes written to {self.path}")
        except OSError:
            os.ftruncate(self._descriptor, end)
            raise
        for event in events:
            if "request_id" in event:
                self.shown[event["request_id"]] = len(event["items"])

    def sync(self) -> None:
        """To disk, not only to the operating system."""
        os.fsync(self._descriptor)

    def remove(self) -> None:
        """Its rows are in the logs: forget it."""
        self.path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Let go of the file, leaving it for whoever starts next."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def tables(self) -> dict[str, pa.Table]:
        """Its rows of the log tables requests and impressions, in the order in which they were served.

        Told twice about one position, the stronger signal counts. Lines that are no events are set aside, and said.
        """
        lines, damaged = _read(self.path)
        if damaged:
            aside = self.path.with_suffix(DAMAGED)
            with open(aside, "wb") as file:
                file.write(b"".join(line + b"\n" for line in damaged))
                file.flush()
                os.fsync(file.fileno())
            _log.error(
                "%d lines of %s are damaged; they are set aside in %s and the other %d are written",
                *(len(damaged), self.path, aside.name, lines.num_rows),
            )
        asked = lines.filter(lines["request_id"].is_valid())
        told = lines.filter(lines["feedback_on"].is_valid())
        return {"requests": _requests(asked), "impressions": _impressions(asked, told)}


def _read(path: Path) -> tuple[pa.Table, list[bytes]]:
    """The lines as columns, and those that are no events. Parsed outside the interpreter's lock: answers go on."""
    content = path.read_bytes()
    # A line cut short by a kill belongs to an answer that never left.
    content = content[: content.rfind(b"\n") + 1]
    lines = _parsed(content)
    if lines is not None:
        return lines, []
    good, damaged = _sifted([line for line in content.split(b"\n") if line])
    return pa.concat_tables([_LINES.empty_table(), *good]).combine_chunks(), damaged


def _sifted(lines: list[bytes]) -> tuple[list[pa.Table], list[bytes]]:
    """Events in their order, and the lines that are none: found by halving, a line at a time takes minutes."""
    whole = _parsed(b"\n".join(lines))
    if whole is not None:
        return [whole], []
    if len(lines) == 1:
        return [], lines
    half = len(lines) // 2
    (good, damaged), (more_good, more_damaged) = _sifted(lines[:half]), _sifted(lines[half:])
    return good + more_good, damaged + more_damaged


def _parsed(content: bytes) -> pa.Table | None:
    """The events of these lines; None where one of them is none."""
    if not content:
        return _LINES.empty_table()
    reading = pj.ReadOptions(use_threads=False)
    parsing = pj.ParseOptions(explicit_schema=_LINES, unexpected_field_behavior="error")
    try:
        lines = pj.read_json(pa.BufferReader(content), reading, parsing).select(_LINES.names).combine_chunks()
        lines.validate(full=True)  # text that is no UTF-8
    except pa.ArrowException:
        return None
    asked, told = lines.filter(lines["request_id"].is_valid()), lines.filter(lines["feedback_on"].is_valid())
    either = asked.num_rows + told.num_rows == lines.num_rows
    return lines if either and _answers_sound(asked) and _feedback_sound(told) else None


def _answers_sound(asked: pa.Table) -> bool:
    """Everything there, lists of lengths that fit, values within the contract's ranges."""
    needed = ("user_id", "event_time", "candidates", "candidate_scores", "policy", "items")
    if any(asked[name].null_count for name in needed):
        return False
    offered, shown = pc.list_value_length(asked["candidates"]), pc.list_value_length(asked["items"])
    known = asked.filter(asked["propensities"].is_valid())
    scores, propensities = pc.list_flatten(asked["candidate_scores"]), pc.list_flatten(known["propensities"])
    return (
        _all(pc.equal(offered, pc.list_value_length(asked["candidate_scores"])))
        and _all(pc.and_(pc.greater(shown, 0), pc.less_equal(shown, offered)))
        and _all(pc.equal(pc.list_value_length(known["items"]), pc.list_value_length(known["propensities"])))
        and _all(pc.greater_equal(asked["user_id"], schema.SMALLEST_ID))
        and all(
            _all(pc.greater_equal(pc.list_flatten(asked[name]), schema.SMALLEST_ID)) for name in ("candidates", "items")
        )
        and _all(pc.is_finite(scores))
        and _all(pc.and_(pc.greater(propensities, 0.0), pc.less_equal(propensities, 1.0)))
    )


def _feedback_sound(told: pa.Table) -> bool:
    watched = told["watch_seconds"].drop_null()
    return (
        _all(pc.greater_equal(told["position"], 1))
        and all(_all(pc.and_(pc.greater_equal(told[name], 0), pc.less_equal(told[name], 1))) for name in FLAGS)
        and _all(pc.and_(pc.is_finite(watched), pc.greater_equal(watched, 0.0)))
    )


def _all(holds: pa.ChunkedArray) -> bool:
    """True everywhere; null is not."""
    return holds.null_count == 0 and pc.all(holds, min_count=0).as_py()


def _requests(asked: pa.Table) -> pa.Table:
    times = asked["event_time"].cast(schema.TIMESTAMP)
    columns = asked.set_column(asked.column_names.index("event_time"), "event_time", times)
    return columns.select(schema.REQUESTS.names).cast(schema.REQUESTS)


def _impressions(asked: pa.Table, told: pa.Table) -> pa.Table:
    lengths = pc.list_value_length(asked["items"]).to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    row = np.repeat(np.arange(len(lengths)), lengths)
    known = np.repeat(asked["propensities"].is_valid().to_numpy().astype(bool), lengths)
    propensity = np.full(total, np.nan)
    propensity[known] = pc.list_flatten(asked["propensities"]).to_numpy()
    click, like, watch = np.zeros(total, np.int8), np.zeros(total, np.int8), np.full(total, -1.0)
    if told.num_rows and asked.num_rows:
        at = pc.index_in(told["feedback_on"], value_set=asked["request_id"].combine_chunks())
        at_row = pc.fill_null(at, -1).to_numpy().astype(np.int64)
        # Of a request that was damaged, or of a position that its list has not: nothing to write it to.
        placed = (at_row >= 0) & (told["position"].to_numpy() <= lengths[at_row])
        told, at_row = told.filter(pa.array(placed)), at_row[placed]
        place = starts[at_row] + told["position"].to_numpy() - 1
        np.maximum.at(click, place, told["click"].to_numpy())
        np.maximum.at(like, place, told["like"].to_numpy())
        np.maximum.at(watch, place, pc.fill_null(told["watch_seconds"], -1.0).to_numpy())
    columns = [
        asked["request_id"].take(pa.array(row)).combine_chunks(),
        pa.array((np.arange(total) - starts[row] + 1).astype(np.int32)),
        pc.list_flatten(asked["items"]).combine_chunks(),
        pa.array(propensity, mask=~known),
        pa.array(click),
        pa.array(like),
        pa.array(watch, mask=watch < 0),
    ]
    return pa.table(columns, names=schema.IMPRESSIONS.names).cast(schema.IMPRESSIONS)
