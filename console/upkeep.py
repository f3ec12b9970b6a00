"""`goalrank clean`, `goalrank migrate`, `goalrank erase-user`: what a workspace needs besides its nights."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from console.command import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    errors_as_exit_codes,
    print_json,
    stderr,
    stdout,
)
from console.next_steps import ours, suggest


def clean(
    workspace: WorkspaceOption = None,
    keep_nights: Annotated[
        int | None, typer.Option(metavar="N", help="Dates that keep everything, at least 2.  [default: 14]")
    ] = None,
    keep_days: Annotated[
        int | None,
        typer.Option(metavar="N", help="Days a former champion can be rolled back to, at least 7.  [default: 30]"),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Collect old snapshots, artifacts, versions and runs that nothing needs.

    Now and then, or when the disk fills up. By one stated rule (docs/retention.md): reports, the journal and logs stay.

    Examples:
        goalrank clean --dry-run
            what would go, and how much that is
        goalrank clean --keep-nights 7
            keep everything of a week
    """
    from console import housekeeping
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        nights = housekeeping.KEEP_NIGHTS if keep_nights is None else keep_nights
        days = housekeeping.KEEP_DAYS if keep_days is None else keep_days
        done = housekeeping.clean(Settings.load(workspace=workspace), nights, days, dry_run)
        _print_cleaned(done, stderr if as_json else stdout)
        if as_json:
            print_json(done)
        elif dry_run and done["taken"]:
            suggest(stderr, [(ours("clean", workspace), "collect them, with the same options")])


def migrate(workspace: WorkspaceOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Bring a workspace of an older release to this one's format.

    Once, when a command says so.

    Examples:
        goalrank migrate --dry-run
            what it would do
    """
    from console import migration
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        done = migration.migrate(Settings.load(workspace=workspace), dry_run)
        console = stderr if as_json else stdout
        for step in done["steps"]:
            _say(console, step)
        verb = "would go" if dry_run else "went"
        same = done["found"] == done["format"]
        _say(console, "Nothing to do." if same else f"Format {verb} from {done['found']} to {done['format']}.")
        if as_json:
            print_json(done)
        elif not same:
            steps = (ours("migrate", workspace), "do it") if dry_run else (ours("nightly", workspace), "the next night")
            suggest(stderr, [steps])


def erase_user(
    user_id: Annotated[int, typer.Argument(metavar="USER_ID", help="The user's id, as in the logs.")],
    workspace: WorkspaceOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Erase one user's data from the workspace.

    For one user's request to be deleted. Logs outside of the workspace are named, not rewritten (docs/retention.md).

    Examples:
        goalrank erase-user 4711 --dry-run
            what would go
    """
    from console import erasure
    from console.settings import Settings

    with errors_as_exit_codes(as_json):
        done = erasure.erase_user(Settings.load(workspace=workspace), user_id, dry_run)
        _print_erased(done, stderr if as_json else stdout)
        if as_json:
            print_json(done)


# ----------------------------------------------------------------------------------------------------------- printing


def _print_cleaned(done: dict[str, Any], console: Console) -> None:
    for thing in done["taken"]:
        _say(console, f"{thing['bytes']:>14,}  {thing['what']}: {thing['name']}")
    verb = "would go" if done["dry_run"] else "went"
    _say(console, f"{len(done['taken'])} things {verb}, {done['bytes']:,} bytes on this disk.")
    for note in done["notes"]:
        _say(console, f"Note: {note}.")


def _print_erased(done: dict[str, Any], console: Console) -> None:
    would = "would go" if done["dry_run"] else "went"
    for kind, rows in done["rows"].items():
        _say(console, f"{rows:>10,} rows of {kind} {would}")
    _say(console, f"Artifacts of {len(done['nights'])} night(s) {would}; {done['texts']} texts quoted the id.")
    for entry in done["to_rewrite"]:
        _say(console, f"Rewrite yourself: {entry['file']} holds {entry['rows']:,} rows")
    _say(console, f"What remains: {done['remains']}.")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
