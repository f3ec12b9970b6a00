"""`goalrank promote`, `goalrank rollback`, `goalrank history`: the champion's comings and goings, by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components import registry
from components.promote_model import history as nights_and_moves
from components.promote_model.main import Promotable, promote, read_night
from components.promote_model.rollback import NOBODY, roll_back
from components.step import write_atomic
from console.settings import Settings
from console.workspace import Night, Workspace, parse_date
from goalrank.errors import EXIT_DONE, ModelRefused, UsageError

ARTIFACTS = {
    "registration": "register-model/registration",
    "evaluation": "evaluate-ranker/verdict",
    "serving": "smoke-serve/verdict",
}
"""Where kfp.local leaves a night's documents, under NIGHT/artifacts/<pipeline run>/. A resumed night has several runs,
and a step that was not repeated left its document in an earlier one."""


def promote_night(settings: Settings, date: str | None, run: str | None, dry_run: bool) -> dict[str, Any]:
    """Promote the challenger of a night by its own documents; what was (or would be) done.

    Args:
        date: the night; None with no `run` takes the newest night that has verdicts.
        run: one try of a night, DATE/N.

    Raises:
        UsageError: there is no such night.
        ModelRefused: a document is missing or does not say yes (components.promote_model.main).
        TryAgain: another promoter is at work, or MLflow is away.
    """
    night = _chosen(Workspace(settings.workspace), date, run)
    found = _documents(night.folder)
    missing = [name for name in ARTIFACTS if name not in found]
    if missing:
        raise ModelRefused(
            f"night {_run(night)} has no {' and no '.join(missing)} document, so nobody has said yes; run it again "
            f"(`goalrank nightly --date {night.date}`)"
        )
    ready = read_night(**{name: str(path) for name, path in found.items()}, date=night.date, run_uri=str(night.folder))
    done = _moved(settings, ready, dry_run)
    if done["promoted"] and not dry_run:
        _mark(night)
    return {"exit_code": EXIT_DONE, "run": _run(night), "date": night.date, **done}


def roll_champion_back(settings: Settings, reason: str, to: str | None, dry_run: bool) -> dict[str, Any]:
    """Roll back by hand (components.promote_model.rollback says what it raises)."""
    done = roll_back(settings.tracking_uri, settings.journal_uri, reason, to=to, dry_run=dry_run)
    return {"exit_code": EXIT_DONE, **done}


def history(settings: Settings, limit: int | None) -> dict[str, Any]:
    """The newest `limit` entries, oldest first.

    Raises:
        ModelRefused: the journal is damaged.
    """
    entries = nights_and_moves.read(settings.workspace / "nights", settings.journal_uri)
    shown = entries if limit is None else entries[-limit:]
    return {"exit_code": EXIT_DONE, "entries": nights_and_moves.as_rows(shown), "total": len(entries)}


# ----------------------------------------------------------------------------------------------------------- printing


def print_promotion(done: dict[str, Any], console: Console) -> None:
    """Say what was (or would be) promoted."""
    if not done["promoted"]:
        _say(console, f"Nothing moved: {done['reason']}.")
        return
    verb = "would become" if done.get("dry_run") else "is"
    previous = done["previous"] or "none"
    _say(console, f"Version {done['version']} of night {done['run']} {verb} champion; previous: {previous}.")
    _say(console, done["reason"])
    _notes(done, console)


def print_rollback(done: dict[str, Any], console: Console) -> None:
    """Say from where to where it went, and what `previous` is now."""
    if not done["moves"]:
        _say(console, f"Nothing to move: version {done['to'] or NOBODY} is the champion already.")
    else:
        verb = "Would roll back" if done.get("dry_run") else "Rolled back"
        _say(console, f"{verb} from version {done['from'] or NOBODY} to version {done['to'] or NOBODY}.")
        _say(console, f"previous {'would be' if done.get('dry_run') else 'is'}: {done['previous'] or NOBODY}")
    _notes(done, console)


def print_history(document: dict[str, Any], console: Console) -> None:
    """The history as a table that fits 60 columns."""
    rows = document["entries"]
    if not rows:
        _say(console, "No night has run here yet.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("night", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("version", no_wrap=True, justify="right")
    table.add_column("why", overflow="fold")
    for row in rows:
        style = STYLES.get(row["what"], "bold red")
        version = row["version"] or "–"
        if row["what"] == "rolled back":
            version = f"{version}→{row['champion'] or NOBODY}"
        by = f"by {row['by']}: " if row["by"] not in (None, "night") else ""
        table.add_row(row["date"], f"[{style}]{row['what']}[/]", version, escape(by + _short(row["reason"])))
    console.print(table)
    if document["total"] > len(rows):
        _say(console, f"{document['total'] - len(rows)} older entries: --limit {document['total']}")


STYLES = {"promoted": "green", "kept": "default", "running": "cyan", "rolled back": "yellow"}

SHORT = 90


def _short(reason: str) -> str:
    return reason if len(reason) <= SHORT else f"{reason[: SHORT - 1].rsplit(' ', 1)[0]}…"


def _notes(done: dict[str, Any], console: Console) -> None:
    for key in ("repaired", "pending"):
        if key in done:
            _say(console, f"Note: {done[key]}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


# ------------------------------------------------------------------------------------------------------------- nights


def _chosen(workspace: Workspace, date: str | None, run: str | None) -> Night:
    """The night that is meant.

    Raises:
        UsageError: both are given, one is malformed, or there is no such night.
        ModelRefused: no night at all came as far as a verdict.
    """
    if date is not None and run is not None:
        raise UsageError("--date and --run found, expected one of them")
    if run is not None and not re.fullmatch(r"\d{4}-\d{2}-\d{2}/[1-9]\d{0,5}", run):
        raise UsageError(f"--run {run!r} found, expected a date and the number of the try, such as 2026-01-31/1")
    wanted = parse_date(date) if date is not None else None
    try:
        nights = sorted(workspace.nights(), key=lambda night: night.started_at)
    except UsageError as error:
        raise ModelRefused(str(error)) from error
    if run is not None:
        meant = [night for night in nights if _run(night) == run]
    elif wanted is not None:
        meant = [night for night in nights if night.date == wanted]
    else:
        meant = nights
    if not meant:
        if not nights:
            raise UsageError(
                f"no night found in {workspace.folder}; run `goalrank nightly`, or give another --workspace"
            )
        known = ", ".join(_run(night) for night in nights[-3:])
        raise UsageError(f"no night {run or wanted} found in {workspace.folder}; the newest are: {known}")
    judged = [night for night in meant if _documents(night.folder).keys() & {"evaluation", "serving"}]
    if not judged and run is None and wanted is None:
        raise ModelRefused(f"no night in {workspace.folder} came as far as a verdict; run `goalrank nightly`")
    return (judged or meant)[-1]


def _documents(folder: Path) -> dict[str, Path]:
    """The newest of each of a night's documents."""
    found = {name: list(folder.glob(f"artifacts/*/{place}")) for name, place in ARTIFACTS.items()}
    return {name: max(files, key=lambda file: file.stat().st_mtime) for name, files in found.items() if files}


def _moved(settings: Settings, ready: Promotable, dry_run: bool) -> dict[str, Any]:
    client = registry.connect(settings.tracking_uri)
    return promote(client, ready, settings.tracking_uri, settings.journal_uri, by="hand", dry_run=dry_run)


def _mark(night: Night) -> None:
    """The night's card says promoted from now on, so that the next night goes on with the next day."""
    card = night.folder / "night.json"
    document = json.loads(card.read_text(encoding="utf-8"))
    write_atomic(card, json.dumps(document | {"verdict": "promoted", "promoted_by": "hand"}, indent=1, default=str))


def _run(night: Night) -> str:
    return f"{night.folder.parent.name}/{night.folder.name}"
