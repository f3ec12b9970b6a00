"""`goalrank import csv`, `goalrank import movielens` and `goalrank import ratings`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.command import JsonOption, errors_as_exit_codes, stderr, stdout
from console.help import Command, Group
from goalrank.errors import UsageError

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="""Turn your own impressions or public data sets into logs.

    docs/data-contract.md says what a night reads; docs/bring-your-own-logs.md leads from a CSV to a champion.

    Examples:
        goalrank import csv impressions.csv --out LOGS
            your own impressions
        goalrank import movielens ml-1m --out LOGS
            GroupLens' files
        goalrank import ratings Books.csv --out LOGS
            any file of ratings
    """,
)


class CandidateVersion(StrEnum):
    """How the 44 items that were not chosen are drawn (docs/data-contract.md)."""

    matched = "matched"
    retrieved = "retrieved"
    both = "both"


OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write; must be new or empty.")]
CandidatesOption = Annotated[
    CandidateVersion,
    typer.Option(metavar="HOW", help="How candidates are drawn: matched, retrieved, both."),
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of candidates and times of day.")]


@app.command("csv", cls=Command)
def import_csv(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header, one row for each item shown.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write; new or empty, unless --add.")
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="--out holds an earlier import: add the days after its newest one.")
    ] = False,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="ROLE=COLUMN",
            help="Which column is what, where its name does not say it; several with commas or by repeating. Needed: "
            "request (may be COLUMN+COLUMN), user, time, position, item, click. If there: like, watch (seconds), "
            "watch_ms, propensity, policy, candidates, scores.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, and write nothing.")] = False,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of items: id, title, topics (a|b), duration, created.")
    ] = None,
    map_items: Annotated[list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="As --map, for --items.")] = None,
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of users: id; every other column is an attribute.")
    ] = None,
    map_users: Annotated[list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="As --map, for --users.")] = None,
    policy: Annotated[
        str, typer.Option(metavar="NAME", help="Who ranked the lists, where no column says it.")
    ] = "imported",
    time_zone: Annotated[str, typer.Option(metavar="ZONE", help="Zone of times that name none.")] = "UTC",
    since: Annotated[str | None, typer.Option(metavar="DATE", help="First day wanted, of UTC.  [default: all]")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Last day wanted.  [default: all]")] = None,
    max_bad_rows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Leave out up to so many rows that cannot be read, and their lists.")
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of candidates that are drawn where none are logged.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn a CSV of impressions, under your own column names, into logs.

    Columns are recognised by their names, or named by --map. docs/bring-your-own-logs.md goes on to a promoted model.

    Examples:
        goalrank import csv impressions.csv --dry-run
            which column is taken for what, and what a night would stumble over
        goalrank import csv impressions.csv --items articles.csv --out LOGS
            write the logs
        goalrank import csv log.tsv.gz --out LOGS --map request=session+when,item=sku
            columns of other names
        goalrank import csv tomorrow.csv --out LOGS --add
            another day
    """
    from console.importing_impressions import day_of, run_import_csv

    with errors_as_exit_codes(as_json):
        from goalrank.impressions import import_impressions

        if out is None and not dry_run:
            raise UsageError("no --out found, expected the folder to write; --dry-run looks without writing")
        if add and dry_run:
            raise UsageError("--add and --dry-run found, expected one of them: a look adds nothing")
        target = None if dry_run else out
        first, last = day_of("--since", since), day_of("--until", until)
        run_import_csv(
            lambda progress: import_impressions(
                str(source),
                None if target is None else str(target),
                add=add,
                mapping=mapping or (),
                items=None if items is None else str(items),
                items_mapping=map_items or (),
                users=None if users is None else str(users),
                users_mapping=map_users or (),
                policy=policy,
                time_zone=time_zone,
                since=first,
                until=last,
                max_bad_rows=max_bad_rows,
                seed=seed,
                progress=progress,
            ),
            target,
            as_json,
        )


@app.command("movielens", cls=Command)
def movielens(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder with ratings.dat, movies.dat, users.dat.")],
    out: OutOption,
    candidates: CandidatesOption = CandidateVersion.matched,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn GroupLens' MovieLens-1M files into thirty days of logs.

    The files come from GroupLens (their licence keeps them out of this repository).

    Examples:
        goalrank import movielens ml-1m --out LOGS
            the unpacked folder ml-1m
    """
    from console.importing import run_import

    with errors_as_exit_codes(as_json):
        from goalrank.movielens import import_movielens as read

        run_import(
            lambda progress: read(str(source), str(out), candidates.value, seed, progress),
            out,
            stderr,
            stdout,
            as_json,
        )


@app.command("ratings", cls=Command)
def import_ratings(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="CSV, TSV or Parquet of user, item, rating, time.")],
    out: OutOption,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="The four columns, in the order user,item,rating,time: names, or places from 0."
        ),
    ] = None,
    lowest: Annotated[
        float | None, typer.Option(metavar="X", help="Lowest rating there can be.  [default: 0.5]")
    ] = None,
    highest: Annotated[float | None, typer.Option(metavar="X", help="Highest, which is a like.  [default: 5]")] = None,
    click_from: Annotated[
        float | None, typer.Option(metavar="X", help="A rating from here up is a click.  [default: 4]")
    ] = None,
    core: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Keep users and items with at least this many ratings.  [default: 12]"),
    ] = None,
    candidates: CandidatesOption = CandidateVersion.matched,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn any file of ratings (Amazon's among them) into thirty days of logs.

    Examples:
        goalrank import ratings Books.csv --out LOGS
            columns user, item, rating, time, in this order
        goalrank import ratings ratings.parquet --out LOGS --columns reviewer,asin,overall,unixtime
            columns of other names
    """
    from console.importing import run_import

    with errors_as_exit_codes(as_json):
        from goalrank import ratings

        run_import(
            lambda progress: ratings.import_ratings(
                str(source),
                str(out),
                columns=columns.split(",") if columns else None,
                core=core or ratings.CORE,
                scale=(
                    ratings.SCALE[0] if lowest is None else lowest,
                    ratings.SCALE[1] if highest is None else highest,
                ),
                click_from=ratings.CLICK_FROM if click_from is None else click_from,
                candidates=candidates.value,
                seed=seed,
                progress=progress,
            ),
            out,
            stderr,
            stdout,
            as_json,
        )
