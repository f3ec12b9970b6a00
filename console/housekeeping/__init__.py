"""`goalrank clean`: what is collected when, by one rule. docs/retention.md says it for people.

The rule. A *recent* night is one of the newest `keep_nights` dates; a version *reigns* while it is champion.

    collected                                     never collected
    a night's artifacts, cache, checkpoints,      recent nights; the night started last (`resume`). Every night keeps
    inputs of a TrainJob                          night.json, outcomes and report for good
    snapshots: manifests, rows that no manifest   of recent nights and the night started last, with every folder their
    names, marks of passes                        manifests name (yesterday's state among them); the two newest that
                                                  passed the gate, and the newest before the night started last (drift)
    offline feature folders                       those that may be what is online
    registered versions with their run and files  any with an alias; recent nights'; any that reigned in the last
                                                  `keep_days` days, by the clock or by the nights' dates (roll-back, the
                                                  verdict's anchor); any in an unfinished move of the journal
    A/B experiments older than `keep_days`        younger ones
    what a collector that was killed left behind

Never looked at: logs, what was served, decisions about days, erasures, the journal of promotions. What cannot be read
is a reason to keep: a damaged manifest keeps all snapshots, and a damaged journal or an MLflow that is away stops the
command before anything is removed.

Everything is worked out before anything is removed, under the locks of whoever else writes there. A kill in between
leaves less to collect for the next time: manifests go before the rows they name, a folder is renamed before it is
emptied, a version goes before its run.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from console.housekeeping import files, registry
from console.settings import Settings
from console.workspace import Workspace
from goalrank.errors import EXIT_DONE, UsageError
from goalrank.verdict import ANCHOR_DAYS

KEEP_NIGHTS = 14
KEEP_DAYS = 30
FEWEST_NIGHTS = 2
"""Tonight's, and yesterday's whose state tonight goes on from."""


def clean(settings: Settings, keep_nights: int, keep_days: int, dry_run: bool) -> dict[str, Any]:
    """Collect by the rule.

    Args:
        keep_nights: dates that keep everything, at least FEWEST_NIGHTS.
        keep_days: how long a former champion can be rolled back to, at least the anchor's reach.
        dry_run: say what would go, change nothing.

    Returns:
        exit_code, dry_run, taken ([{what, name, bytes}, ...]), bytes (their sum, on this disk), kept_versions, notes
        (what was kept since it could not be read, what is left to do).

    Raises:
        UsageError: the rule is too short to work with, or there is no workspace.
        ModelRefused: the journal of promotions is damaged; nothing was removed.
        TryAgain: a night, an extraction or a promotion is under way, or MLflow is away; nothing was removed.
    """
    if keep_nights < FEWEST_NIGHTS or keep_days < ANCHOR_DAYS:
        raise UsageError(
            f"{keep_nights} nights and {keep_days} days found, expected at least {FEWEST_NIGHTS} nights (tonight goes "
            f"on from yesterday's state) and {ANCHOR_DAYS} days (the verdict's anchor)"
        )
    place = Workspace(settings.workspace)
    place.require_used()
    notes: list[str] = []
    with place.one_at_a_time(), ExitStack() as locks:
        place.logs()  # refuses a workspace that was moved or is of another release
        recent = set(sorted({night.date for night in place.nights()})[-keep_nights:])
        taken = [*files.nights(place, recent), *files.experiments(place, keep_days)]
        newest = place.newest_night()
        last = newest.date if newest is not None else ""
        taken += files.snapshot_rows(locks, settings.snapshots_uri, recent, last, keep_nights, notes)
        taken += files.offline(settings.feast_uri)
        versions = registry.plan(locks, settings, recent, keep_nights, keep_days)
        taken += versions.taken
        if not dry_run:
            for thing in taken:
                thing.remove()
            notes += versions.finish()
    return {
        "exit_code": EXIT_DONE,
        "dry_run": dry_run,
        "taken": [{"what": thing.what, "name": thing.name, "bytes": thing.bytes} for thing in taken],
        "bytes": sum(thing.bytes for thing in taken),
        "kept_versions": versions.kept,
        "notes": notes,
    }
