"""Whether a night is incremental or full, and on what it rests."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.extract_features import day_decisions
from components.extract_features.snapshots import Snapshot, dates, manifest_path
from goalrank.errors import DataRefused


@dataclass(frozen=True)
class Plan:
    """`previous` is the snapshot to go on from, None for a full rebuild; `reason` says why in words."""

    previous: Snapshot | None
    reason: str

    @property
    def mode(self) -> str:
        """'incremental' or 'full'."""
        return "incremental" if self.previous else "full"


def plan(root: Path, date: str, full_rebuild: bool, code: str, config: dict[str, Any]) -> Plan:
    """Go on from the newest usable snapshot before `date`; where there is none, rebuild in full and say why.

    Raises:
        UsageError: `date` is a skipped day.
        DataRefused: the decisions about days cannot be read.
    """
    decisions = day_decisions.read(root)
    day_decisions.require_not_skipped(decisions, date)
    if full_rebuild:
        return Plan(None, "a full rebuild was asked for")
    reason = "no earlier snapshot"
    for earlier in reversed([found for found in dates(root) if found < date]):
        problem, snapshot = _usable(root, earlier, code, config, decisions.skipped)
        if snapshot:
            return Plan(snapshot, f"goes on from the snapshot of {earlier}")
        if reason == "no earlier snapshot":
            reason = f"the snapshot of {earlier} cannot be gone on from: {problem}"
    return Plan(None, reason)


def _usable(
    root: Path, date: str, code: str, config: dict[str, Any], skipped: Collection[str]
) -> tuple[str, Snapshot | None]:
    try:
        snapshot = Snapshot.read(root, date)
        problem = _problem(snapshot, code, config, skipped)
    except DataRefused as error:  # its own manifest, or one that it was built on
        return str(error), None
    except KeyError as missing:
        return f"its manifest lacks {missing}", None
    return problem, None if problem else snapshot


def _problem(snapshot: Snapshot, code: str, config: dict[str, Any], skipped: Collection[str]) -> str:
    """Why this snapshot cannot be gone on from ('' if it can)."""
    if snapshot.manifest["code_version"] != code:
        return "the extraction's code changed"
    if snapshot.manifest["config"] != config:
        changed = sorted(key for key in config if snapshot.manifest["config"].get(key) != config[key])
        return f"the configuration changed ({', '.join(changed)})"
    left_out = {day for day in skipped if snapshot.manifest["chain"]["first"] <= day <= snapshot.date}
    if changed := sorted(left_out ^ set(snapshot.manifest.get("skipped", []))):
        now = "is" if changed[0] in left_out else "is no longer"
        return f"{changed[0]} {now} a skipped day"
    return _replaced_parent(snapshot) or snapshot.problem()


def _replaced_parent(snapshot: Snapshot) -> str:
    """Whether a date this snapshot was built on has been run again since, with other rows ('' if not)."""
    parent = snapshot.manifest.get("previous")
    while parent:
        if not manifest_path(snapshot.root, parent["date"]).exists():
            return ""  # collected by retention: nobody ran it again
        found = Snapshot.read(snapshot.root, parent["date"])
        if found.snapshot_id != parent["snapshot_id"]:
            return f"{parent['date']}, which it was built on, was run again with other rows"
        parent = found.manifest.get("previous")
    return ""
