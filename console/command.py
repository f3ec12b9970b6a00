"""What every command shares: its common options, and how an error becomes an exit code and a JSON object."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from components.step import disk_is_full
from goalrank.errors import EXIT_BUG, EXIT_DATA_REFUSED, EXIT_DONE, EXIT_TRY_AGAIN, GoalRankError, UsageError
from goalrank.naming import require_workspace_named

stderr = Console(stderr=True)
stdout = Console()


def _workspace(text: str) -> Path:
    try:
        require_workspace_named(text)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    return Path(text)


WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="FOLDER",
        help="Folder of all that is kept.  [default: .goalrank]",
        show_default=False,
        parser=_workspace,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="The result, or what went wrong, as one JSON object on standard output.")
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]

Stopped = Callable[[str, str, int], dict[str, Any]]
"""(kind, reason, exit code) -> the JSON object of a command that could not do its work."""


def stopped(kind: str, reason: str, exit_code: int) -> dict[str, Any]:
    """The JSON object of any command but a night that could not do its work."""
    return {"exit_code": exit_code, "kind": kind, "reason": reason}


def no_night(kind: str, reason: str, exit_code: int) -> dict[str, Any]:
    """The keys of `nightly --json` for a night that never began."""
    missing = ("model_version", "snapshot_id", "run_id", "report", "peak_memory_mb")
    return {
        "exit_code": exit_code,
        "verdict": "refused" if exit_code == EXIT_DATA_REFUSED else "failed",
        "reason": reason,
        "stages": [],
        "metrics": {"challenger": None, "champion": None},
        **dict.fromkeys(missing),
    }


def document_of(words: list[str]) -> Stopped:
    """What a command of these words makes of an error with --json."""
    return no_night if words[:1] in (["nightly"], ["resume"]) else stopped


def print_json(document: dict[str, Any]) -> None:
    """One JSON object on standard output; its exit code is 0 unless it says another."""
    print(json.dumps({"exit_code": EXIT_DONE} | document, default=str), flush=True)


@contextmanager
def errors_as_exit_codes(as_json: bool = False, document: Stopped = stopped) -> Iterator[None]:
    """Say what went wrong in one paragraph and end with the documented code; with --json, as an object too."""
    from pydantic import ValidationError

    try:
        with _sigterm_as_interrupt():
            _require_a_current_folder()
            yield
    except GoalRankError as error:
        raise _end(error.kind, str(error), error.exit_code, as_json, document) from error
    except ValidationError as error:
        reason = f"a setting (GOALRANK_...) is wrong: {error}"
        raise _end("usage", reason, UsageError.exit_code, as_json, document) from error
    except KeyboardInterrupt as error:
        reason = "ended before it was done; type it again"
        raise _end("interrupted", reason, EXIT_TRY_AGAIN, as_json, document) from error
    except typer.Exit:
        raise
    except Exception as error:
        if disk_is_full(error):
            reason = f"the disk is full ({error}); free some space and run the same command again"
            raise _end("try_again", reason, EXIT_TRY_AGAIN, as_json, document) from error
        if as_json:
            print(json.dumps(document("failed", f"{type(error).__name__}: {error}", EXIT_BUG)))
        raise


def _require_a_current_folder() -> None:
    """Refuse to begin in a folder that was deleted: relative paths lead nowhere, and torch's libraries end the process.

    Raises:
        UsageError: it was.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError(
            "the current folder was deleted, expected one that is there; cd into one and type the command again"
        ) from None


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does; one that came while the command was still starting counts too."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(kind: str, reason: str, exit_code: int, as_json: bool, document: Stopped) -> typer.Exit:
    stderr.print(f"[bold red]{kind.replace('_', ' ').capitalize()}:[/] ", end="")
    stderr.print(reason, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(document(kind, reason, exit_code)))
    return typer.Exit(exit_code)
