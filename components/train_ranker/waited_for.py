"""A TrainJob whose step is gone must not keep its machines: the step says that it waits, and the job listens.

The waiting step's pod can end without a word (killed outright, past its time-out, its node lost, its night terminated),
and Kubernetes does not end a job for that. So the step rewrites a file on the shared volume while it waits; training
whose file has not changed for PATIENCE_SECONDS writes its checkpoint and ends. No clock of one machine is compared with
another's: what counts is for how long, by the job's own, the content stayed the same.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FILE = "waited_for"
"""In the run's folder."""

PATIENCE_SECONDS = 1800.0
"""Giving up a lost node (some 6 minutes), both retries' pauses (360 s), a new machine and image for the step's pod, and
reading its inputs are to fit in."""

LOOK_SECONDS = 15.0
"""Between two looks of the job; its steps may take milliseconds, and the file lies on a network."""


def say(file: Path) -> None:
    """Somebody waits, at this moment. Whatever keeps the file from being written is only a word that was missed."""
    with suppress(OSError):
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        aside.write_text(uuid.uuid4().hex, encoding="ascii")
        os.replace(aside, file)


class Listener:
    """The job's side, in its first process."""

    def __init__(
        self, file: Path, patience_seconds: float = PATIENCE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._patience_seconds, self._clock = file, patience_seconds, clock
        self._last, self._heard = self._content(), clock()
        self._looked = self._heard

    def nobody_waits(self) -> bool:
        """Has nothing been heard for too long?"""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS or now - self._heard > self._patience_seconds:
            self._looked = now
            content = self._content()
            if content and content != self._last:
                self._last, self._heard = content, now
        silent = now - self._heard > self._patience_seconds
        if silent:
            print(f"nobody has waited for this job for {now - self._heard:.0f} s", file=sys.stderr, flush=True)
        return silent

    def _content(self) -> str:
        try:
            return self._file.read_text(encoding="ascii")
        except (OSError, ValueError):
            return ""
