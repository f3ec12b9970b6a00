"""`goalrank report` as it is typed; what it does is console/report/."""

from __future__ import annotations

from typing import Annotated

import typer

from console import completion
from console.command import JsonOption, WorkspaceOption, errors_as_exit_codes, print_json, stderr, stdout


def report(
    workspace: WorkspaceOption = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="A night: DATE/N, or DATE for its newest try.  [default: the newest]",
            autocompletion=completion.tries,
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two nights side by side, instead of one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a night's report again, or hold two nights against each other.

    After an upgrade, or to find a page. Writes the page of all nights too (WORKSPACE/nights/index.html), as every night
    does when it ends.

    Examples:
        goalrank report --open
            the newest night's, in your browser
        goalrank report --compare 2026-01-08 2026-01-09/2
            two nights side by side
    """
    from console.report import command
    from console.settings import Settings
    from goalrank.errors import UsageError

    with errors_as_exit_codes(as_json):
        if run is not None and compare is not None:
            raise UsageError("--run and --compare found, expected one of them")
        settings = Settings.load(workspace=workspace)
        done = command.compare(settings, compare) if compare is not None else command.report(settings, run)
        command.show(done, stderr if as_json else stdout)
        if open_it and not command.open_page(done):
            stderr.print("No browser could be opened here.")
        if as_json:
            print_json(done)
