"""`goalrank ui`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from console.command import WorkspaceOption, errors_as_exit_codes


def ui(
    workspace: WorkspaceOption = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 takes a free one.")] = 8080,
    open_browser: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Show it in your browser.  [default: from a terminal, yes]"),
    ] = None,
) -> None:
    """Nights, reports, Data Docs and a playground, as local pages.

    The playground shows a logged request as champion and challenger would answer it, and what the reward model expects
    of each list; reorder one and see the expectation change. On this machine only, unless --host says otherwise.

    Examples:
        goalrank ui
            opens your browser
        goalrank ui --no-open --port 0
            prints an address on a free port
    """
    from console.settings import Settings
    from console.ui.serve import serve

    with errors_as_exit_codes():
        wanted = sys.stdout.isatty() if open_browser is None else open_browser
        serve(Settings.load(workspace=workspace), host, port, wanted)
