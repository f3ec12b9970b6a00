"""`goalrank nightly` and `goalrank resume`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from console import completion
from console.command import JsonOption, WorkspaceOption, errors_as_exit_codes, no_night, print_json, stderr, stdout


def nightly(
    workspace: WorkspaceOption = None,
    logs: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Feedback logs (docs/data-contract.md).  [default: a simulated world]"),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Arrival day, YYYY-MM-DD.  [default: the day after the last good night]",
            autocompletion=completion.days,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Model size and training length: tiny, small, base, large.  [default: small]",
            autocompletion=completion.presets,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random.  [default: 0]")] = None,
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

    Once a day, when the day's logs are complete. Whatever fails, the champion goes on serving; the end says what
    happened, where the report is and what to type next.

    Examples:
        goalrank nightly --allow-bootstrap
            a first night, on a simulated world that is made on the way
        goalrank nightly --logs LOGS --preset base
            your own logs; the workspace remembers them
        goalrank nightly --date 2026-01-31 --full-rebuild
            one day again, features from scratch
    """
    from console import night
    from console import workspace as places
    from console.settings import Settings

    with errors_as_exit_codes(as_json, no_night):
        settings = Settings.load(workspace=workspace, preset=preset, seed=seed, allow_bootstrap=allow_bootstrap)
        checked = places.parse_date(date) if date else None
        _end(night.start(settings, logs, checked, full_rebuild, stderr), as_json)


def resume(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Go on with an interrupted night, from the step that did not end.

    After a night ended with 75 (killed, disk full, a store away) or failed by chance.

    Examples:
        goalrank resume
            the night that was started last
    """
    from console import night
    from console.settings import Settings

    with errors_as_exit_codes(as_json, no_night):
        _end(night.resume(Settings.load(workspace=workspace), stderr), as_json)


def _end(result: dict[str, Any], as_json: bool) -> None:
    from console.ending import print_ending

    print_ending(result, stderr if as_json else stdout)
    if as_json:
        print_json(result)
    raise typer.Exit(result["exit_code"])
