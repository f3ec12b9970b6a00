"""`goalrank day skip|accept|undo|list`: what to do about an arrival day that a gate refused and nobody can mend.

Skipped, a day counts as one on which nothing arrived, and the night goes on with the day after it. Accepted, it may
lie beyond the limits of the gates (docs/data-contract.md); wrong rows on it are refused all the same. Every decision
is kept with its reason (SNAPSHOTS/day_decisions.jsonl).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from components.extract_features import day_decisions, locations
from components.extract_features.day_decisions import ACCEPT, SKIP, UNDO
from console import completion
from console.command import JsonOption, WorkspaceOption, errors_as_exit_codes, print_json, stderr, stdout
from console.help import Command, Group
from console.next_steps import ours, suggest
from console.workspace import Workspace, day_after, parse_date
from goalrank.errors import UsageError

app = typer.Typer(
    cls=Group,
    help="""Decide about a day that was refused: skip it, accept it, take that back.

    After a night ended with 3 and nobody can mend the data (docs/data-contract.md, refused days).

    Examples:
        goalrank day skip 2026-01-05 --reason "click counter broken all day"
            leave it out for good
        goalrank day list
            every decision ever taken
    """,
    no_args_is_help=True,
)

DayArgument = Annotated[
    str, typer.Argument(metavar="DATE", help="Arrival day, YYYY-MM-DD.", autocompletion=completion.days)
]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, in a few words; kept for good.")]


def settled_until(last_good: str | None, skipped: Collection[str]) -> str | None:
    """The newest day that needs no night any more: the last good one, or the skipped days that follow it at once."""
    settled = last_good
    while settled is not None and day_after(settled) in skipped:
        settled = day_after(settled)
    return settled


def decide(workspace: Workspace, snapshots_uri: str, day: str, action: str, reason: str) -> dict[str, Any]:
    """Take one decision about one day, unless a night is running.

    Returns:
        day, action, reason, and the days skipped and accepted now.

    Raises:
        UsageError: no day, no reason, nothing to undo, or the workspace has no logs yet.
        TryAgain: a night is running.
    """
    root = locations.folder(snapshots_uri)
    checked = parse_date(day)
    if not workspace.folder.is_dir():
        raise UsageError(f"{workspace.folder} holds no workspace; expected one whose night was refused")
    with workspace.one_at_a_time():
        day_decisions.record(root, checked, action, reason)
    return {"day": checked, "action": action, "reason": reason, **standing(root)}


def standing(root: Path) -> dict[str, Any]:
    """The decisions that hold, as --json shows them."""
    decisions = day_decisions.read(root)
    return {"skipped": dict(decisions.skipped), "accepted": dict(decisions.accepted)}


def _decide(day: str, action: str, reason: str, workspace: Path | None, as_json: bool, told: str) -> None:
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        settings = Settings.load(workspace=workspace)
        done = decide(Workspace(settings.workspace), settings.snapshots_uri, day, action, reason)
        console = stderr if as_json else stdout
        console.print(told.format(day=done["day"]), highlight=False, soft_wrap=True)
        if as_json:
            print_json(done)
        else:
            suggest(stderr, [(ours("nightly", workspace), "the next night, with the decision taken")])


@app.command(cls=Command)
def skip(
    day: DayArgument, reason: ReasonOption, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Leave a day out for good: nothing of it is read.

    The night goes on with the day after it.

    Examples:
        goalrank day skip 2026-01-05 --reason "click counter broken all day, nothing to restore"
            a day that nobody will ever mend
    """
    told = "{day} is skipped: the night goes on with the next day. Rows that need it are left out."
    _decide(day, SKIP, reason, workspace, as_json, told)


@app.command(cls=Command)
def accept(
    day: DayArgument, reason: ReasonOption, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Take a day as it is, though it lies beyond a limit.

    Limits of volume, freshness and drift only warn on it; wrong rows are refused still.

    Examples:
        goalrank day accept 2026-01-05 --reason "campaign: twelve times the traffic"
            a day that is unusual and real
    """
    told = "{day} is accepted: limits only warn on it."
    _decide(day, ACCEPT, reason, workspace, as_json, told)


@app.command(cls=Command)
def undo(
    day: DayArgument, reason: ReasonOption, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Take back what was decided about a day.

    Examples:
        goalrank day undo 2026-01-05 --reason "rows restored from the backup"
            its rows were delivered after all
    """
    told = "Nothing is decided about {day} any more; snapshots that rest on the decision are not gone on from."
    _decide(day, UNDO, reason, workspace, as_json, told)


@app.command("list", cls=Command)
def list_decisions(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Every decision ever taken, oldest first; the newest of a day holds.

    Examples:
        goalrank day list
            what was skipped, what was accepted, and why
    """
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        root = locations.folder(Settings.load(workspace=workspace).snapshots_uri)
        taken = day_decisions.history(root)
        if as_json:
            print_json({**standing(root), "history": taken})
            return
        if not taken:
            stdout.print("No day was ever skipped or accepted.")
            return
        table = Table("day", "decision", "at (UTC)", "reason", box=None, pad_edge=False)
        for line in taken:
            table.add_row(line["day"], line["action"], line["at"].partition("+")[0], line["reason"])
        stdout.print(table, highlight=False, markup=False)
