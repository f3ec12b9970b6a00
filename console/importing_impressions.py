"""`goalrank import csv`: what the columns were taken for, what was made, what was left out and why, what comes next."""

from __future__ import annotations

import shlex
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from console.command import JsonOption, errors_as_exit_codes, print_json, stderr, stdout
from console.next_steps import suggest, typed
from goalrank.errors import UsageError

MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAMES",
        help="ROLE=COLUMN,... where a name is not recognised. Roles: request (may be COLUMN+COLUMN), user, time, "
        "position, item, click; if there: like, watch (seconds), watch_ms, propensity, policy, candidates, scores.",
    ),
]


def import_csv(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="CSV with a header, one row for each item shown; may be gzipped.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder to write; must be new or empty.")] = None,
    add: Annotated[
        bool, typer.Option("--add", help="--out holds an earlier import: add the days after its newest one.")
    ] = False,
    mapping: MapOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, write nothing.")] = False,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of items: id, title, topics (a|b), duration, created.")
    ] = None,
    map_items: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="As --map, for --items.")] = None,
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of users: id; every other column is an attribute.")
    ] = None,
    map_users: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="As --map, for --users.")] = None,
    policy: Annotated[
        str, typer.Option(metavar="NAME", help="Who ranked the lists, where no column says it.")
    ] = "imported",
    time_zone: Annotated[str, typer.Option(metavar="ZONE", help="Zone of times that name none.")] = "UTC",
    since: Annotated[str | None, typer.Option(metavar="DATE", help="First day wanted, YYYY-MM-DD (UTC).")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Last day wanted.")] = None,
    max_bad_rows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Leave out up to so many rows that cannot be read.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of candidates that are drawn where none are logged.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn a CSV of impressions, with your own column names, into logs.

    Examples:
        goalrank import csv impressions.csv --out LOGS --map request=session,item=article
            the columns session and article are the request and the item
    """
    with errors_as_exit_codes(as_json):
        from goalrank.impressions import import_impressions

        if out is None and not dry_run:
            raise UsageError("no --out found, expected the folder to write; --dry-run looks without writing")
        if add and dry_run:
            raise UsageError("--add and --dry-run found, expected one of them: a look adds nothing")
        with Progress(console=stderr, transient=True) as bar:
            task = bar.add_task("reading", total=None)
            document = import_impressions(
                str(source),
                None if dry_run else str(out),
                add=add,
                mapping=mapping or (),
                items=None if items is None else str(items),
                items_mapping=map_items or (),
                users=None if users is None else str(users),
                users_mapping=map_users or (),
                policy=policy,
                time_zone=time_zone,
                since=_day("--since", since),
                until=_day("--until", until),
                max_bad_rows=max_bad_rows,
                seed=seed,
                progress=lambda done, total, note: bar.update(task, completed=done, total=total, description=note),
            )
        document["warnings"] = warnings(document)
        _print(document, None if dry_run else out, stderr if as_json else stdout)
        if as_json:
            print_json(document)


def _day(option: str, text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"{option} {text!r} found, expected a day such as 2026-01-31") from None


def warnings(document: dict[str, Any]) -> list[str]:
    """What a night would stumble over: missing days, a last day that is cut short, too few days or users."""
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
    else:
        line = f"{typed('goalrank')} nightly --logs {shlex.quote(str(out))} --workspace WORKSPACE --allow-bootstrap"
        suggest(stderr, [(line, "the first night on them, in a workspace of their own")])
