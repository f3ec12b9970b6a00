"""The journal of what was served: append-only segments that outlive the process.

    JOURNAL/<segment>.jsonl     one line an event, written before the answer leaves; locked by the process that owns it

    {"request_id", "user_id", "event_time" (microseconds), "candidates", "candidate_scores", "policy", "items",
     "propensities" (or null)}                                           one answer
    {"feedback_on", "position", "click", "like", "watch_seconds"}        what the user did with one position of it

Lines reach the operating system before their answers leave, so a killed process loses nothing; segments are synced to
disk when they are closed. A process that starts finds the segments whose owners are gone (their locks are free). Only
request ids are kept in memory: what was served is read back from the file when its Parquet is made.
"""

from __future__ import annotations

import fcntl
import json
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

        Told twice about one position, the stronger signal counts.
        """
        lines = _read(self.path)
        asked = lines.filter(lines["request_id"].is_valid())
        told = lines.filter(lines["feedback_on"].is_valid())
        return {"requests": _requests(asked), "impressions": _impressions(asked, told)}


def _read(path: Path) -> pa.Table:
    """The lines as columns. Parsed outside the interpreter's lock, so that answers go on meanwhile."""
    content = path.read_bytes()
    # A line cut short by a kill belongs to an answer that never left.
    content = content[: content.rfind(b"\n") + 1]
    if not content:
        return _LINES.empty_table()
    try:
        return _parsed(content)
    except pa.ArrowInvalid:
        return _parsed(b"".join(line + b"\n" for line in content.split(b"\n") if _is_event(line)))


def _parsed(content: bytes) -> pa.Table:
    if not content:
        return _LINES.empty_table()
    reading = pj.ReadOptions(use_threads=False)
    parsing = pj.ParseOptions(explicit_schema=_LINES, unexpected_field_behavior="error")
    return pj.read_json(pa.BufferReader(content), reading, parsing).select(_LINES.names).combine_chunks()


def _is_event(line: bytes) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and event.keys() <= set(_LINES.names)


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
    if told.num_rows:
        at = pc.index_in(told["feedback_on"], value_set=asked["request_id"].combine_chunks())
        told = told.filter(at.is_valid())
        at_row = at.drop_null().to_numpy().astype(np.int64)
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
