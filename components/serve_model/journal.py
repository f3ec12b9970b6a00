"""The journal of what was served: append-only segments that outlive the process.

    JOURNAL/<segment>.jsonl     one line an event, written before the answer leaves; locked by the process that owns it

A line reaches the operating system before the answer leaves, so a killed process loses nothing; segments are synced to
disk when they are closed. A process that starts finds the segments whose owners are gone (their locks are free).
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUFFIX = ".jsonl"


@dataclass
class Served:
    """One served request: its rows-to-be of the tables requests and impressions."""

    request: dict[str, Any]
    impressions: list[dict[str, Any]]

    def merge(self, feedback: dict[str, Any]) -> None:
        """Take in feedback on one position; told twice, the stronger signal counts."""
        row = self.impressions[feedback["position"] - 1]
        row["click"] = max(row["click"], feedback["click"])
        row["like"] = max(row["like"], feedback["like"])
        if feedback["watch_seconds"] is not None:
            row["watch_seconds"] = max(row["watch_seconds"] or 0.0, feedback["watch_seconds"])


@dataclass
class Segment:
    """One file of the journal and what it says."""

    path: Path
    opened_at: float
    closed_at: float | None = None
    served: dict[str, Served] = field(default_factory=dict)
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
        """A segment left by a process that is gone, its events read; None if its owner lives or it is gone too."""
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
        segment = cls(path, now, closed_at=now, _descriptor=descriptor)
        for line in path.read_bytes().split(b"\n"):
            # A line cut short by a kill belongs to an answer that never left.
            try:
                event = json.loads(line)
            except ValueError:
                continue
            segment._take(event)
        return segment

    def append(self, event: dict[str, Any]) -> None:
        """Write one event, then take it in. `event` is {"served": {...}} or {"feedback": {...}}.

        Raises:
            OSError: it could not be written (a full disk); nothing was taken in.
        """
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        end = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(28, f"{written} of {len(line)} bytes written to {self.path}")
        except OSError:
            os.ftruncate(self._descriptor, end)
            raise
        self._take(event)

    def close(self, now: float) -> None:
        """No further requests; feedback on those it holds is still taken."""
        self.closed_at = now
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

    def _take(self, event: dict[str, Any]) -> None:
        if "served" in event:
            served = event["served"]
            self.served[served["request"]["request_id"]] = Served(served["request"], served["impressions"])
        elif "feedback" in event and event["feedback"]["request_id"] in self.served:
            self.served[event["feedback"]["request_id"]].merge(event["feedback"])
