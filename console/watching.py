"""`goalrank watch`: look after the newest promotion, once or for as long as it runs."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console

from components.watch_champion.main import Kept, Look, look, raise_for
from console.settings import Settings
from console.workspace import Workspace
from goalrank.errors import GoalRankError, TryAgain, UsageError

STYLES = {"alert": "bold red", "rolled_back": "bold red", "would_roll_back": "bold red", "watching": "green"}


def watch_once(settings: Settings, dry_run: bool, console: Console, seen: dict[str, Any]) -> None:
    """One look; says what it saw, and leaves it in `seen`.

    Raises:
        GoalRankError: as components.watch_champion.main: somebody must hear of a roll-back or an alert.
    """
    found = _look(settings, dry_run)
    seen |= asdict(found)
    raise_for(found)
    _print(found, console)


def watch(settings: Settings, every: float, dry_run: bool, console: Console, as_json: bool) -> None:
    """Look every `every` seconds until interrupted; says what changed, and with JSON one object a look.

    A store that is away, or a log that cannot be read, is said and tried again at the next look: the one who watches
    must not be the first to go.

    Raises:
        UsageError: at the first look; there is no such workspace, or a setting is out of range.
    """
    said: tuple[str, str | None] | None = None
    kept = Kept()
    with _interrupts() as interrupted:
        while True:
            said = _look_and_say(settings, dry_run, console, as_json, kept, said)
            if interrupted.is_set():
                raise KeyboardInterrupt
            time.sleep(every)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set once somebody interrupts: an exception raised inside a destructor or a callback of a library is lost, and the
    watch would go on."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _look_and_say(
    settings: Settings,
    dry_run: bool,
    console: Console,
    as_json: bool,
    kept: Kept,
    said: tuple[str, str | None] | None,
) -> tuple[str, str | None]:
    """One look; says what it saw unless that was `said` before, and returns it."""
    try:
        seen = _look(settings, dry_run, kept)
        now: tuple[str, str | None] = (seen.state, seen.champion)
        if now != said:
            _print(seen, console)
        document: dict[str, Any] = asdict(seen)
    except GoalRankError as error:
        if said is None and isinstance(error, UsageError):
            raise
        now = (error.kind, str(error))
        if now != said:
            console.print(f"{error.kind.replace('_', ' ').capitalize()}: {error}", markup=False, highlight=False)
        document = {"state": "away" if isinstance(error, TryAgain) else "alert", "reason": str(error)}
    if as_json:
        print(json.dumps(document), flush=True)
    return now


def _look(settings: Settings, dry_run: bool, kept: Kept | None = None) -> Look:
    Workspace(settings.workspace).require_used()
    return look(
        str(settings.workspace / "served"),
        settings.tracking_uri,
        settings.journal_uri,
        settings.holdback,
        settings.watch_days,
        dry_run=dry_run,
        kept=kept,
    )


def _print(seen: Look, console: Console) -> None:
    word = seen.state.replace("_", " ").capitalize()
    console.print(f"[{STYLES.get(seen.state, 'bold')}]{word}.[/] ", end="")
    console.print(seen.reason, markup=False, highlight=False, soft_wrap=not console.is_terminal)
    if seen.watched_until and seen.state in ("waiting", "watching"):
        console.print(f"Watched until {seen.watched_until}.", highlight=False)
