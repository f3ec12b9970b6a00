"""The `goalrank` command. Commands import what they need when they run: `--help` must stay fast."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from console import cluster, days, upkeep
from console.command import JsonOption, WorkspaceOption, errors_as_exit_codes, no_night, stderr, stdout, stopped
from console.importing_impressions import import_csv
from goalrank import __version__
from goalrank.errors import EXIT_DONE, UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)
import_app = typer.Typer(help="Turn public data sets into logs of the data contract.", no_args_is_help=True)
import_app.command("csv")(import_csv)
app.add_typer(import_app, name="import")
app.add_typer(days.app, name="day")
app.add_typer(cluster.app, name="schedule")


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
            help="May a first champion go live with only the absolute floor?  [default: no]",
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


@app.command()
def replay(
    workspace: WorkspaceOption = None,
    nights: Annotated[int, typer.Option(min=1, help="Nights to live, each followed by a day.")] = 30,
    preset: Annotated[str | None, typer.Option(help="As for nightly.  [default: tiny]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the world and of everything random.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Live simulated days, retrained every night, against the first night's model, frozen.

    In between a bad-data night, a drifting night and a broken challenger. About two minutes a night; one that was
    interrupted goes on where it stopped. Example: goalrank replay --workspace .replay
    """
    from console.replay.command import print_history
    from console.replay.command import replay as live

    with errors_as_exit_codes(as_json):
        document = live(workspace, nights, preset, seed, stderr)
        print_history(document, stderr if as_json else stdout)
        if as_json:
            print(json.dumps(document))


@app.command("ab-test")
def ab_test(
    policies: Annotated[
        str, typer.Option(help="Two or more: champion, previous, version:3, retriever, prm, mg-e-100...")
    ],
    workspace: WorkspaceOption = None,
    days: Annotated[int, typer.Option(min=1, max=60, help="Days at most; it ends sooner once decided.")] = 14,
    control: Annotated[
        str | None, typer.Option(help="What the others are held against.  [default: champion, or the first]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split and of everything users do.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Copy the figure of the intervals over days there (PNG).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Try policies on the simulated world's users, split between them, with intervals that may be looked at daily.

    Example: goalrank ab-test --policies champion,previous,retriever --days 14
    """
    from console.experiments import print_result, run_ab_test
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        result = run_ab_test(Settings.load(workspace=workspace), policies, days, control, seed, plot, stderr)
        print_result(result, stderr if as_json else stdout)
        if as_json:
            print(json.dumps(result))


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


DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would move, and change nothing.")]


@app.command()
def promote(
    workspace: WorkspaceOption = None,
    date: Annotated[str | None, typer.Option(help="The night.  [default: the newest with verdicts]")] = None,
    run: Annotated[str | None, typer.Option(help="One try of a night, DATE/N.")] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Promote a night's challenger by hand, if that night's own verdicts say so."""
    from console import promotion
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        done = promotion.promote_night(Settings.load(workspace=workspace), date, run, dry_run)
        promotion.print_promotion(done, stderr if as_json else stdout)
        if as_json:
            print(json.dumps(done))


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why, in one line; the history shows it.")],
    workspace: WorkspaceOption = None,
    to: Annotated[
        str | None, typer.Option(help="A version that was champion once, or none.  [default: previous]")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Return to the champion before this one, reward model included.

    Example: goalrank rollback --reason "clicks halved since this morning"
    """
    from console import promotion
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        done = promotion.roll_champion_back(Settings.load(workspace=workspace), reason, to, dry_run)
        promotion.print_rollback(done, stderr if as_json else stdout)
        if as_json:
            print(json.dumps(done))


@app.command()
def history(
    workspace: WorkspaceOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.  [default: all]")] = None,
    as_json: JsonOption = False,
) -> None:
    """What was promoted, kept, refused and rolled back, night by night."""
    from console import promotion
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        document = promotion.history(Settings.load(workspace=workspace), limit)
        promotion.print_history(document, stderr if as_json else stdout)
        if as_json:
            print(json.dumps(document))


@app.command()
def watch(
    workspace: WorkspaceOption = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.  [default: until interrupted]")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 300.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the new champion's live feedback with its predecessor's, and roll back on a shown loss.

    With --once, exit 4 says that it rolled back, 3 that the split between the two is broken.
    """
    from contextlib import suppress

    from console import watching
    from console.settings import Settings

    seen: dict[str, Any] = {}

    def stopped_look(kind: str, reason: str, exit_code: int) -> dict[str, Any]:
        return stopped(kind, reason, exit_code) | seen

    with errors_as_exit_codes(as_json, stopped_look):
        settings = Settings.load(workspace=workspace)
        console = stderr if as_json else stdout
        if not once:
            with suppress(KeyboardInterrupt):
                watching.watch(settings, every, dry_run, console, as_json)
            return
        watching.watch_once(settings, dry_run, console, seen)
        if as_json:
            print(json.dumps({"exit_code": EXIT_DONE, **seen}))


@app.command()
def serve(
    workspace: WorkspaceOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.  [default: 8000]")] = None,
    exploration: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of requests answered with a sampled list.")
    ] = None,
    holdback: Annotated[
        float | None, typer.Option(min=0, max=0.99, help="Share of users left with the version before the champion.")
    ] = None,
) -> None:
    """Answer ranking requests with the champion over HTTP, and log what was served."""
    from console.serving import serve as run_server
    from console.settings import Settings

    with errors_as_exit_codes():
        given = {"host": host, "port": port, "exploration": exploration, "holdback": holdback}
        run_server(Settings.load(workspace=workspace, **given))


@app.command()
def collect(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Bring what the service has logged into the logs the next night reads, each row once.

    GOALRANK_TRAIN_ON_SERVED=1 has every night begin with it.
    """
    from console.serving import collect as bring
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        bring(Settings.load(workspace=workspace), stderr if as_json else stdout, as_json)


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


for command in (upkeep.clean, upkeep.migrate, upkeep.erase_user, cluster.submit, cluster.backfill):
    app.command()(command)
