"""What every step shares: it says what it does, how far it is, how it ended and what its tools cost to start.

A local run loses the exit codes of its children, and an exit handler cannot read the outputs of the tasks it guards, so
each step writes a small outcome file under the run's own folder (``run_uri``, a parameter of the pipeline):

    run_uri/outcomes/<step>.json   {"step", "kind", "exit_code", "reason", "figures", "seconds", "tool_seconds",
                                    "peak_memory_mb", ...}
    run_uri/progress.jsonl         one line an event, which the console follows
"""

from __future__ import annotations

import argparse
import errno
import inspect
import json
import os
import sys
import time
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from goalrank.errors import EXIT_BUG, EXIT_DONE, GoalRankError, TryAgain

if TYPE_CHECKING:
    from components.memory import PeakMemory

DONE = "done"

RESERVED_BYTES = 65536
"""Kept back on disk while a step works, so that a full disk leaves room to say that it is full."""

NIGHT_RESERVE, NIGHT_RESERVED_BYTES = ".reserve", 2**20
"""The same for the whole night: given back before the report is written."""

MEMORY_SECONDS = 2.0
"""Between two looks at what a step's processes hold: each look at a JVM of gigabytes costs tens of milliseconds."""

FOR_EXAMPLE = ", for example "
"""What quoted rows follow in a refusal: they may name users, so nothing from here on leaves our own stores."""

LONGEST_REASON = 600
"""Characters of an unexpected error's message that an outcome quotes."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def keep_reserve(run: Path) -> None:
    """Keep room in a run's folder for its report and its end."""
    run.mkdir(parents=True, exist_ok=True)
    (run / NIGHT_RESERVE).write_bytes(bytes(NIGHT_RESERVED_BYTES))


def give_back_reserve(run: Path) -> None:
    """Give the room back to whoever must say now how the night went."""
    (run / NIGHT_RESERVE).unlink(missing_ok=True)


def disk_is_full(error: BaseException) -> bool:
    """Was a full disk behind it? Spark says so only in words, and libraries wrap the error in their own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return True
        if "No space left on device" in _said(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _said(error: BaseException) -> str:
    """Its words, where it has any: Spark's errors ask Java for theirs, which may have ended."""
    try:
        return str(error)
    except Exception as failure:
        return f"its words are lost ({type(failure).__name__})"


def _shortened(text: str) -> str:
    """The first lines of a message: Spark's bring the whole stack of a JVM with them, which pipeline.log has too."""
    lines = [line.rstrip() for line in text.splitlines() if not line.lstrip().startswith(("at ", "... "))]
    kept = " ".join(lines[:4])[:LONGEST_REASON]
    return kept if len(kept) == len(text) else f"{kept} ..."


def _process_started() -> float:
    """Unix time at which this process was started, so that interpreter and kfp start-up count too."""
    import psutil

    return psutil.Process().create_time()


class Step:
    """One step of one run, used as a context manager around the step's whole work.

    On leaving, the outcome is written whatever happened, and the exception (if any) goes on: kfp then fails the task.
    """

    def __init__(self, name: str, run_uri: str) -> None:
        self.name = name
        self.run = Path(run_uri)
        self.figures: dict[str, Any] = {}
        self.reason = ""
        self.tool_seconds: dict[str, float] = {}
        self._entered = 0.0
        self._last_report = 0.0
        self._memory: PeakMemory | None = None
        self._reserve = self.run / "outcomes" / f".{name}.reserve"

    def __enter__(self) -> Step:
        from components.memory import PeakMemory  # with psutil, which those that only write files do not need

        self._entered = time.time()
        self._reserve.parent.mkdir(parents=True, exist_ok=True)
        self._reserve.write_bytes(bytes(RESERVED_BYTES))
        self._memory = PeakMemory(os.getpid(), MEMORY_SECONDS)
        self._event("start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None and disk_is_full(error):
            said = _shortened(_said(error))
            self._finish(TryAgain(f"the disk is full ({said}); free some space and run the same command again"))
        else:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        if error is None:
            outcome, code, reason = DONE, EXIT_DONE, self.reason
        elif isinstance(error, GoalRankError):
            outcome, code, reason = error.kind, error.exit_code, str(error)
        else:
            outcome, code, reason = "failed", EXIT_BUG, _shortened(f"{type(error).__name__}: {_said(error)}")
        now = time.time()
        document = {
            "step": self.name,
            "kind": outcome,
            "exit_code": code,
            "reason": reason,
            "figures": self.figures,
            "started_at": self._entered,
            "process_start_seconds": round(self._entered - _process_started(), 3),
            "seconds": round(now - self._entered, 3),
            "tool_seconds": {tool: round(seconds, 3) for tool, seconds in self.tool_seconds.items()},
            "peak_memory_mb": self._peak_memory_mb(),
        }
        self._reserve.unlink(missing_ok=True)
        write_atomic(self.run / "outcomes" / f"{self.name}.json", json.dumps(document, indent=1, default=str))
        self._event("end", kind=outcome, reason=reason, seconds=document["seconds"])

    def _peak_memory_mb(self) -> int | None:
        """MiB of this process and all below it; the kernel's own figure where this process alone held more."""
        from components.memory import own_peak_bytes

        return None if self._memory is None else round(max(self._memory.stop(), own_peak_bytes() / 2**20))

    @contextmanager
    def tool(self, name: str) -> Iterator[None]:
        """Time what a tool costs to import or start, apart from the work done with it."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.tool_seconds[name] = self.tool_seconds.get(name, 0.0) + time.perf_counter() - begun

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Say how far the step is; at most a few lines a second are written."""
        now = time.monotonic()
        if done >= total or now - self._last_report > 0.25:
            self._last_report = now
            self._event("progress", done=done, total=total, note=note)

    def _event(self, event: str, **details: Any) -> None:
        self.run.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"step": self.name, "event": event, "time": time.time(), **details}, default=str)
        with open(self.run / "progress.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")


class QuietStep(Step):
    """A step's part in a process beside the one that speaks for it: no outcome, no progress, nothing kept back."""

    def __enter__(self) -> QuietStep:
        self._entered = time.time()
        return self

    def _finish(self, error: BaseException | None) -> None:
        if error is not None:
            print(f"{self.name}, beside the first process: {type(error).__name__}: {error}", file=sys.stderr)

    def _event(self, event: str, **details: Any) -> None:
        pass


def run_alone(run: Callable[..., Any]) -> None:
    """Run a step's ``run`` function from the terminal, one flag a parameter: ``python -m components.x.main --help``."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(run), formatter_class=argparse.RawTextHelpFormatter)
    hints = typing.get_type_hints(run)
    for name, parameter in inspect.signature(run).parameters.items():
        hint, default = hints[name], parameter.default
        required = default is inspect.Parameter.empty
        kind: Any = _yes_or_no if hint is bool else hint
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=required, default=default)
    arguments = parser.parse_args()
    try:
        run(**vars(arguments))
    except GoalRankError as error:
        print(f"{error.kind}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _yes_or_no(text: str) -> bool:
    """A boolean flag's value, spelt out: a typing error must not read as no."""
    try:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} found, expected true or false") from None
