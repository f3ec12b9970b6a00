"""The `goalrank` command. Commands import what they need when they run: `--help` must stay fast."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from console.command import JsonOption, WorkspaceOption, errors_as_exit_codes, no_night, stderr, stdout
from goalrank import __version__
from goalrank.errors import EXIT_DONE, UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)
import_app = typer.Typer(help="Turn public data sets into logs of the data contract.", no_args_is_help=True)
app.add_typer(import_app, name="import")


class CandidateVersion(StrEnum):
    """How the 44 items that were not chosen are drawn (docs/data-contract.md)."""

    matched = "matched"
    retrieved = "retrieved"
    both = "both"


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit(EXIT_DONE)


@app.callback()
def about(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Retrain a list ranker every night: from feedback logs to a champion that answers.

    Exit codes: 0 done, 1 a bug, 2 usage, 3 data refused, 4 model refused, 5 serving refused, 75 try again."""


@app.command()
def nightly(
    workspace: WorkspaceOption = None,
    logs: Annotated[
        str | None, typer.Option(help="Feedback logs (docs/data-contract.md).  [default: a simulated world]")
    ] = None,
    date: Annotated[
        str | None, typer.Option(help="Arrival day, YYYY-MM-DD.  [default: the day after the last good night]")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Model size and training length: tiny, small, base, large.  [default: small]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    full_rebuild: Annotated[bool, typer.Option("--full-rebuild", help="Rebuild features from all days.")] = False,
    allow_bootstrap: Annotated[
        bool | None,
        typer.Option(
            "--allow-bootstrap/--no-allow-bootstrap",
            help="May a first champion go live with only the absolute floor?  [default: yes]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run one night: check, extract, train, evaluate, promote.

    Example: goalrank nightly --logs LOGS --preset base
    """
    from console import night
    from console import workspace as places
    from console.settings import Settings

    with errors_as_exit_codes(as_json, no_night):
        settings = Settings.load(workspace=workspace, preset=preset, seed=seed, allow_bootstrap=allow_bootstrap)
        checked = places.parse_date(date) if date else None
        _end(night.start(settings, logs, checked, full_rebuild, stderr), as_json)


@app.command()
def resume(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Go on after an interrupted night, from the step that did not end."""
    from console import night
    from console.settings import Settings

    with errors_as_exit_codes(as_json, no_night):
        _end(night.resume(Settings.load(workspace=workspace), stderr), as_json)


def _end(result: dict[str, Any], as_json: bool) -> None:
    from console.ending import print_ending

    print_ending(result, stderr if as_json else stdout)
    if as_json:
        print(json.dumps(result, default=str))
    raise typer.Exit(result["exit_code"])


@app.command()
def simulate(
    workspace: WorkspaceOption = None,
    days: Annotated[int, typer.Option(min=2, help="Days to live.")] = 8,
    users: Annotated[int | None, typer.Option(min=10, help="Users on the first day.")] = None,
    items: Annotated[int | None, typer.Option(min=60, help="Items on the first day.")] = None,
    requests_per_day: Annotated[int | None, typer.Option(min=10, help="Requests a day.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 0,
) -> None:
    """Let the workspace's simulated world live some days, of a size of your own choice."""
    from console.settings import Settings
    from console.workspace import Workspace

    with errors_as_exit_codes():
        from goalrank import simulator

        place = Workspace(Settings.load(workspace=workspace).workspace)
        with place.one_at_a_time():
            logs = place.logs()
            if logs != place.simulated_logs:
                raise UsageError(f"{place.folder} learns from {logs}, not from a simulated world")
            if (logs / "world.json").exists():
                raise UsageError(f"{logs} holds a world already; `goalrank nightly` lets it live on")
            sizes = {"users": users, "items": items, "requests_per_day": requests_per_day}
            given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
            place.record_logs(logs)
            simulator.write_days(simulator.WorldConfig(seed=seed, **given), 0, days, str(logs))
        stdout.print(f"{days} days of feedback in {logs}", highlight=False, soft_wrap=True)


@import_app.command("movielens")
def import_movielens(
    source: Annotated[Path, typer.Argument(help="Folder with ratings.dat, movies.dat, users.dat.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    candidates: Annotated[CandidateVersion, typer.Option(help="How candidates are drawn.")] = CandidateVersion.matched,
    seed: Annotated[int, typer.Option(help="Seed of candidates and times of day.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn GroupLens' MovieLens-1M files into thirty days of logs.

    Example: goalrank import movielens ml-1m --out LOGS
    """
    from console.importing import run_import

    with errors_as_exit_codes():
        from goalrank.movielens import import_movielens as read

        run_import(
            lambda progress: read(str(source), str(out), candidates.value, seed, progress),
            out,
            stderr,
            stdout,
            as_json,
        )


@import_app.command("ratings")
def import_ratings(
    source: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet of user, item, rating, time.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    columns: Annotated[
        str | None,
        typer.Option(help="The four columns, in the order user,item,rating,time: names, or places from 0."),
    ] = None,
    lowest: Annotated[float | None, typer.Option(help="Lowest rating there can be.  [default: 0.5]")] = None,
    highest: Annotated[float | None, typer.Option(help="Highest, which is a like.  [default: 5]")] = None,
    click_from: Annotated[float | None, typer.Option(help="A rating from here up is a click.  [default: 4]")] = None,
    core: Annotated[
        int | None, typer.Option(min=1, help="Keep users and items with at least this many ratings.")
    ] = None,
    candidates: Annotated[CandidateVersion, typer.Option(help="How candidates are drawn.")] = CandidateVersion.matched,
    seed: Annotated[int, typer.Option(help="Seed of candidates and times of day.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn any file of ratings (Amazon's among them) into thirty days of logs.

    Example: goalrank import ratings Books.csv --out LOGS
    """
    from console.importing import run_import

    with errors_as_exit_codes():
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


@app.command()
def serve(
    workspace: WorkspaceOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.  [default: 8000]")] = None,
    exploration: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of requests answered with a sampled list.")
    ] = None,
) -> None:
    """Answer ranking requests with the champion over HTTP, and log what was served."""
    from console.serving import serve as run_server
    from console.settings import Settings

    with errors_as_exit_codes():
        run_server(Settings.load(workspace=workspace, host=host, port=port, exploration=exploration))


@app.command()
def rank(
    request: Annotated[
        str | None, typer.Argument(help='JSON {"user_id", "candidates": [{"item_id", "score"}]}, - for standard input.')
    ] = None,
    workspace: WorkspaceOption = None,
    example: Annotated[bool, typer.Option("--example", help="Take a logged request instead.")] = False,
) -> None:
    """Rank one request with the champion and print the list as JSON.

    Example: goalrank rank '{"user_id": 7, "candidates": [{"item_id": 3, "score": 0.2}, {"item_id": 9, "score": 0.1}]}'
    """
    from console.serving import rank as rank_request
    from console.settings import Settings

    with errors_as_exit_codes():
        text = sys.stdin.read() if request == "-" else request
        if not text and not example:
            raise UsageError("no request found, expected a JSON object as argument, - or --example")
        print(rank_request(Settings.load(workspace=workspace), text or None))
