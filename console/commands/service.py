"""`goalrank serve`, `rank` and `collect`: the champion answers, and what it answered comes back as logs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from console.command import JsonOption, WorkspaceOption, errors_as_exit_codes, print_json, stderr, stdout
from goalrank.errors import UsageError


def serve(
    workspace: WorkspaceOption = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 takes a free one.  [default: 8000]")
    ] = None,
    exploration: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Share of requests answered with a sampled list.  [default: 0.02]"
        ),
    ] = None,
    holdback: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99,
            metavar="SHARE",
            help="Share of users left with the version before the champion.  [default: 0.05]",
        ),
    ] = None,
) -> None:
    """Answer ranking requests with the champion over HTTP, and log them.

    It follows the registry: a night's promotion or a roll-back takes over while it serves. What is served lands in
    WORKSPACE/served, in the logs' own contract (docs/serving.md). Ctrl-C ends it in good order.

    Examples:
        goalrank serve
            on this machine only, port 8000
        goalrank serve --host 0.0.0.0 --port 8001 --exploration 0.1
            for others too, with more exploration
    """
    from console.serving import serve as run_server
    from console.settings import Settings

    with errors_as_exit_codes():
        given = {"host": host, "port": port, "exploration": exploration, "holdback": holdback}
        run_server(Settings.load(workspace=workspace, **given))


def rank(
    request: Annotated[
        str | None,
        typer.Argument(
            metavar="REQUEST", help='{"user_id", "candidates": [{"item_id", "score"}, ...]}; - for standard input.'
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    example: Annotated[bool, typer.Option("--example", help="Take a logged request instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Rank one request with the champion, as the service would.

    To see that a promotion works, or what the service would answer. The answer is one JSON object in any case; with
    --json an error is one too. Nothing is logged.

    Examples:
        goalrank rank --example
            the first request of the newest day
        goalrank rank '{"user_id": 7, "candidates": [{"item_id": 3, "score": 0.2}, {"item_id": 9, "score": 0.1}]}'
            a request of your own
    """
    from console.serving import rank as rank_request
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        text = sys.stdin.read() if request == "-" else request
        if not text and not example:
            raise UsageError("no request found, expected a JSON object as argument, - or --example")
        print(rank_request(Settings.load(workspace=workspace), text or None))


def collect(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Bring what the service logged into the logs of the next night.

    Each row once, days that are over only. GOALRANK_TRAIN_ON_SERVED=1 has every night begin with it.

    Examples:
        goalrank collect
            before `goalrank nightly`
    """
    from console.serving import collect as bring
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        done = bring(Settings.load(workspace=workspace), stderr if as_json else stdout)
        if as_json:
            print_json(done)
