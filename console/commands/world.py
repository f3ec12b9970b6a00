"""`goalrank simulate`, `replay` and `ab-test`: what only a simulated world allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from console import completion
from console.command import (
    JsonOption,
    SeedOption,
    WorkspaceOption,
    errors_as_exit_codes,
    print_json,
    stderr,
    stdout,
)
from console.next_steps import ours, suggest
from goalrank.errors import UsageError


def simulate(
    workspace: WorkspaceOption = None,
    days: Annotated[int, typer.Option(min=2, metavar="N", help="Days to live.")] = 8,
    users: Annotated[
        int | None, typer.Option(min=10, metavar="N", help="Users on the first day.  [default: 2500]")
    ] = None,
    items: Annotated[
        int | None, typer.Option(min=60, metavar="N", help="Items on the first day.  [default: 1200]")
    ] = None,
    requests_per_day: Annotated[
        int | None, typer.Option(min=10, metavar="N", help="Requests a day.  [default: 3000]")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a simulated world of a size of your choice, and let it live.

    Only where its size matters: `goalrank nightly` makes one of the usual size by itself, and lets it live on.

    Examples:
        goalrank simulate --workspace .large --users 100000 --requests-per-day 200000
            a large one
    """
    from console.settings import Settings
    from console.workspace import Workspace

    with errors_as_exit_codes(as_json):
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
        if as_json:
            print_json({"days": days, "logs": str(logs)})
            return
        stdout.print(f"{days} days of feedback in {logs}", highlight=False, soft_wrap=True)
        suggest(stderr, [(ours("nightly --allow-bootstrap", workspace), "the first night on them")])


def replay(
    workspace: WorkspaceOption = None,
    nights: Annotated[int, typer.Option(min=1, metavar="N", help="Nights to live, each followed by a day.")] = 30,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As for nightly.  [default: tiny]", autocompletion=completion.presets),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the world and of everything random.  [default: 0]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Live simulated days, retrained every night, beside a frozen model.

    To see what retraining is worth (docs/replay.md). In between a bad-data night, a drifting night and a broken
    challenger. About two minutes a night; one that was interrupted goes on where it stopped.

    Examples:
        goalrank replay --workspace .replay --nights 30
            a month, an hour
    """
    from console.replay.command import print_history
    from console.replay.command import replay as live

    with errors_as_exit_codes(as_json):
        document = live(workspace, nights, preset, seed, stderr)
        print_history(document, stderr if as_json else stdout)
        if as_json:
            print_json(document)


def ab_test(
    policies: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Two or more: champion, previous, version:3, retriever, prm, mg-e-100...",
            autocompletion=completion.policies,
        ),
    ],
    workspace: WorkspaceOption = None,
    days: Annotated[
        int, typer.Option(min=1, max=60, metavar="N", help="Days at most; it ends sooner once decided.")
    ] = 14,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the others are held against.  [default: champion, or the first]",
            autocompletion=completion.policies,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the split and of everything users do.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Copy the figure of the intervals over days there (PNG).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try policies on a simulated world's users, split between them.

    Its intervals may be looked at daily. The workspace needs a night on its simulated world; the result shows in that
    night's report too.

    Examples:
        goalrank ab-test --policies champion,previous,retriever
            is the champion better than its predecessor?
        goalrank ab-test --policies champion,pier,mg-e-100 --days 28
            and than the methods of the field, trained on the spot?
    """
    from console.experiments import print_result, run_ab_test
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        result = run_ab_test(Settings.load(workspace=workspace), policies, days, control, seed, plot, stderr)
        print_result(result, stderr if as_json else stdout)
        if as_json:
            print_json(result)
