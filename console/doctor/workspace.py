"""The workspace: its format, who holds it, its logs, its last night, its champion."""

from __future__ import annotations

import os
from pathlib import Path

from components.night_card import NIGHT
from console.doctor.findings import OK, PROBLEM, WARNING, Check, Finding, problem
from console.next_steps import ours
from console.settings import Settings
from console.workspace import ENDED_WELL, RUNNING, Workspace, arrival_days
from goalrank.errors import GoalRankError, UsageError

GROUP = "workspace"
LATE_DAYS = 2
"""So many days of logs without a night are worth a word."""


def folder(settings: Settings) -> list[Finding]:
    """Is it one, of this release, and may we write to it?"""
    place = settings.workspace
    if not place.exists():
        begin = ours("nightly --allow-bootstrap", place)
        return [Finding(GROUP, "folder", OK, f"{place} is not there yet; `{begin}` makes it")]
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return [Finding(GROUP, "folder", PROBLEM, f"{place} cannot be written to", "choose another with --workspace")]
    workspace = Workspace(place)
    try:
        logs = workspace.logs(settings.logs_uri or None)
    except UsageError as error:
        return [problem(GROUP, "folder", error)]
    return [Finding(GROUP, "folder", OK, str(place)), _logs(workspace, logs)]


def _logs(workspace: Workspace, logs: Path) -> Finding:
    days = arrival_days(logs)
    if workspace.card() is None and not days:
        return Finding(GROUP, "logs", OK, "none yet; without --logs the first night simulates some")
    if not days:
        return Finding(GROUP, "logs", PROBLEM, f"{logs} holds no day", "let a day arrive (docs/data-contract.md)")
    try:
        last_good = workspace.last_good_date()
    except UsageError:
        last_good = None  # last_night says which card is damaged
    waiting = [day for day in days if last_good is not None and day > last_good]
    found = f"{len(days)} days, {days[0]} to {days[-1]}, in {logs}"
    if len(waiting) >= LATE_DAYS:
        mend = f"`{ours('nightly', workspace.folder)}` for each; is whatever starts it every night alive?"
        return Finding(GROUP, "logs", WARNING, f"{found}; {len(waiting)} wait for their night", mend)
    return Finding(GROUP, "logs", OK, found)


def lock(settings: Settings) -> list[Finding]:
    """Who holds the workspace; asked of the kernel, since to try the lock would be to take it."""
    path = settings.workspace / "lock"
    holder = holder_of(path)
    if holder is None:
        return []
    return [Finding(GROUP, "lock", OK, f"process {holder} holds it: a night or another command is at work")]


def holder_of(path: Path) -> int | None:
    """The process that holds a lock on a file; None: nobody, or this system does not tell."""
    try:
        file = path.stat()
        held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in held:
        fields = line.split()
        if "->" not in fields and fields[1] == "FLOCK" and fields[5] == wanted:
            return int(fields[4])
    return None


def last_night(settings: Settings) -> list[Finding]:
    """How it ended."""
    workspace = Workspace(settings.workspace)
    try:
        night = workspace.newest_night()
    except UsageError as error:
        return [problem(GROUP, "last night", error)]
    if night is None:
        return []
    report = night.folder / "report.html"
    found = f"{night.date}/{night.folder.name} {night.verdict}"
    if night.verdict in ENDED_WELL:
        return [Finding(GROUP, "last night", OK, found)]
    if night.verdict == RUNNING:
        if holder_of(settings.workspace / "lock") is not None:
            return [Finding(GROUP, "last night", OK, found)]
        mend = f"`{ours('resume', settings.workspace)}`, unless it runs on a machine that shares this folder"
        return [Finding(GROUP, "last night", WARNING, f"{night.date} was interrupted", mend)]
    where = f"; {report}" if report.exists() else ""
    again = ours("nightly" if night.verdict == "refused" else "resume", settings.workspace)
    return [
        Finding(GROUP, "last night", WARNING, f"{found}{where}", f"mend the cause (docs/runbook.md), then `{again}`")
    ]


def champion(settings: Settings) -> list[Finding]:
    """Who is champion by the journal of promotions."""
    from components.promote_model import journal, lineage

    if not any(settings.workspace.glob(f"nights/*/*/{NIGHT}")):
        return []
    try:
        events = journal.read(settings.journal_uri)
    except GoalRankError as error:
        return [problem(GROUP, "champion", error)]
    followed = lineage.follow(events)
    ended = {event["id"] for event in events if event["event"] != "intent"}
    begun = [event for event in events if event["event"] == "intent" and event["id"] not in ended]
    if begun:
        mend = "the next promotion or roll-back finishes it; by hand: `goalrank promote`"
        return [Finding(GROUP, "champion", WARNING, f"a {begun[-1]['kind']} was begun and not finished", mend)]
    if not followed.line:
        mend = f"`{ours('nightly --allow-bootstrap', settings.workspace)}`, once"
        return [Finding(GROUP, "champion", WARNING, "nobody: nothing can be served", mend)]
    since = followed.newest["at"][:10] if followed.newest else "?"
    before = followed.before(followed.line[-1])
    found = f"version {followed.line[-1]} since {since}; previous: {before or 'none'}"
    return [Finding(GROUP, "champion", OK, found)]


CHECKS = tuple(
    Check(GROUP, ask.__name__.replace("_", " "), ask, PROBLEM) for ask in (folder, lock, last_night, champion)
)
