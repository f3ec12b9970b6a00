"""`goalrank import`: movielens, ratings, and csv (console/importing_impressions.py)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.command import JsonOption, errors_as_exit_codes, stderr, stdout
from console.help import Command, Group
from console.importing_impressions import import_csv

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="""Turn your own impressions, or public data sets, into logs.

    Your own logs: docs/bring-your-own-logs.md.

    Examples:
        goalrank import csv impressions.csv --out LOGS
            one row for each item shown, under your own column names
        goalrank import movielens ml-1m --out LOGS
            GroupLens' files
        goalrank import ratings Books.csv --out LOGS
            any file of ratings
    """,
)


app.command("csv", cls=Command)(import_csv)


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
