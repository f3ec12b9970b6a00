"""`goalrank import csv`: what the columns were taken for, what was made, what was left out and why, what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress

from console.command import print_json, stderr, stdout
from console.next_steps import ours, suggest
from goalrank.errors import UsageError


def run_import_csv(
    importer: Callable[[Callable[[int, int, str], None]], dict[str, Any]], out: Path | None, as_json: bool
) -> None:
    """Run the import under a progress bar, and print what became of it; ``out`` None: only a look."""
    with Progress(console=stderr, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        document = importer(lambda done, total, note: bar.update(task, completed=done, total=total, description=note))
    document["warnings"] = warnings(document)
    if as_json:
        print_json(document)
    else:
        _print(document, out, stdout)
    if out is None:
        return
    if document["added_to"]:
        suggest(
            stderr,
            [(ours("nightly"), "the night of the new day; --workspace names the one that learns from these logs")],
        )
    else:
        line = f"{ours('nightly', '.own')} --logs {shlex.quote(str(out))} --allow-bootstrap"
        suggest(stderr, [(line, "the first night on them, in a workspace of their own")])


def day_of(option: str, text: str | None) -> date | None:
    """A day a flag gives.

    Raises:
        UsageError: it is none.
    """
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"{option} {text!r} found, expected a day such as 2026-01-31") from None


def warnings(document: dict[str, Any]) -> list[str]:
    """What a night would stumble over: missing days, days cut short, too few days or users."""
    from goalrank.verdict import MINIMUM_USERS

    days = document["days"]
    rows, first, last = days["rows"], date.fromisoformat(days["first"]), date.fromisoformat(days["last"])
    every = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    told = []
    if missing := [day for day in every if day not in rows]:
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        told.append(
            f"{len(missing)} days without a row ({named}): a night refuses them;"
            "  `goalrank day skip DATE --reason TEXT` for each, or --since the day after"
        )
    if len(rows) < 2:
        told.append("one day only: a night trains on the days before the newest, so it needs two at least")
    usual = median(day["requests"] for day in rows.values())
    newest = rows[days["last"]]
    if len(rows) > 2 and newest["requests"] < usual / 2:
        told.append(
            f"the last day has {newest['requests']:,} lists, others {usual:,.0f}: if it is cut short, leave it "
            f"out with --until {(last - timedelta(days=1)).isoformat()}"
        )
    if late := document["late_lists"]:
        told.append(
            f"{late['lists']:,} lists of {late['day']} are not in the logs, and that day is closed: it was imported "
            "before it was over. Leave a day that is not over out with --until; to have it whole, import all days "
            "anew into another folder"
        )
    if newest["users"] < MINIMUM_USERS:
        told.append(
            f"{newest['users']} users came on the last day, a promotion needs {MINIMUM_USERS}: bring more traffic"
        )
    return told


def _print(document: dict[str, Any], out: Path | None, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    counts, days = document["counts"], document["days"]
    say(f"Columns: {document['columns']}")
    say(
        f"{counts['requests']:,} lists with {counts['impressions']:,} items shown and {counts['clicks']:,} clicked, of "
        f"{counts['rows_read']:,} rows: {counts['users']:,} users, {counts['items']:,} items, {days['count']} days "
        f"({days['first']} to {days['last']})"
    )
    if document["candidates"] == "drawn":
        say("No candidates logged: drawn for each list among items shown that week, as often as its own")
    for title in ("dropped", "mended"):
        for what, count in document[title].items():
            say(f"{title}: {count:,} {what}")
    for line in document["first_unreadable"]:
        say(f"  {line}")
    for kind in ("items", "users"):
        if count := document[f"{kind}_without_a_row"]:
            say(f"{count:,} {kind} have no row in the table of {kind}")
    for warning in document["warnings"]:
        say(f"Warning: {warning}")
    if out is None:
        say("Nothing written. To write it, name --out and take --dry-run out")
