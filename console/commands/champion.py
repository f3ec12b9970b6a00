"""`goalrank history`, `promote`, `rollback` and `watch`: who is champion, and who was."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from console import completion
from console.command import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    errors_as_exit_codes,
    print_json,
    stderr,
    stdout,
    stopped,
)
from console.next_steps import ours, suggest


def history(
    workspace: WorkspaceOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the newest so many.  [default: all]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What was promoted, kept, refused and rolled back, night by night.

    The first thing to look at when something is odd.

    Examples:
        goalrank history --limit 10
            the newest ten
        goalrank history --json
            all of it, for a program
    """
    from console import promotion
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        document = promotion.history(Settings.load(workspace=workspace), limit)
        promotion.print_history(document, stderr if as_json else stdout)
        if as_json:
            print_json(document)
        elif not document["entries"]:
            suggest(stderr, [(ours("nightly --allow-bootstrap", workspace), "the first night")])


def promote(
    workspace: WorkspaceOption = None,
    date: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", help="The night.  [default: the newest with verdicts]", autocompletion=completion.nights
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="DATE/N", help="One try of a night.", autocompletion=completion.tries),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Promote a night's challenger by hand, if that night's verdicts say yes.

    The night does this by itself; by hand only where its last step could not (MLflow was away). It cannot promote
    what a gate refused.

    Examples:
        goalrank promote --dry-run
            what would be promoted
        goalrank promote --date 2026-01-31
            the challenger of that night
    """
    from console import promotion
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        done = promotion.promote_night(Settings.load(workspace=workspace), date, run, dry_run)
        promotion.print_promotion(done, stderr if as_json else stdout)
        if as_json:
            print_json(done)
        elif done["promoted"] and not dry_run:
            steps = [
                (ours("watch", workspace), "see how it fares with users, and roll back on a shown loss"),
                (ours("rollback --reason TEXT", workspace), "or return to the one before"),
            ]
            suggest(stderr, steps)


def rollback(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, in one line; the history shows it.")],
    workspace: WorkspaceOption = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="A version that was champion once, or none.  [default: previous]"),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Return to the champion before this one, reward model included.

    When users are hurt. Servers follow within seconds; no night promotes what was rolled back from.

    Examples:
        goalrank rollback --dry-run --reason look
            where it would lead
        goalrank rollback --reason "clicks halved since this morning"
            back to the predecessor
        goalrank rollback --to 3 --reason "version 4 had its features too"
            back to one of your choice
    """
    from console import promotion
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        done = promotion.roll_champion_back(Settings.load(workspace=workspace), reason, to, dry_run)
        promotion.print_rollback(done, stderr if as_json else stdout)
        if as_json:
            print_json(done)
        elif done["moves"] and not dry_run:
            suggest(stderr, [(ours("history --limit 5", workspace), "how it came to this")])


def watch(
    workspace: WorkspaceOption = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.  [default: until interrupted]")] = False,
    every: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Between two looks.")] = 300.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Watch the new champion's live feedback, and roll back on a shown loss.

    Beside `goalrank serve`, after a promotion: the server leaves a share of users with the predecessor, and this
    compares the two. With --once, exit 4 says that it rolled back, 3 that the split between the two is broken. With
    --json one object a look.

    Examples:
        goalrank watch
            every five minutes, until Ctrl-C
        goalrank watch --once --dry-run
            how it stands, changing nothing
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
            print_json(seen)
