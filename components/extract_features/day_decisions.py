"""What people have decided about arrival days that a gate refused: skipped for good, or accepted as they are.

    SNAPSHOTS/day_decisions.jsonl   one line a decision: {"day", "action", "reason", "at"}; the newest of a day holds

A skipped day counts as a day on which nothing arrived: no step reads its partitions, snapshots that hold its rows are
gone on from no more, and rows of other days that need it (impressions of its requests) are left out. An accepted day
is real although it lies beyond a limit of gate_limits.py; wrong rows are refused on it as on any other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.extract_features import locations
from goalrank.errors import DataRefused, UsageError

SKIP, ACCEPT, UNDO = "skip", "accept", "undo"
ACTIONS = (SKIP, ACCEPT, UNDO)
FILE = "day_decisions.jsonl"
_KEYS = {"day", "action", "reason", "at"}


@dataclass(frozen=True)
class DayDecisions:
    """The decisions that hold: day -> why."""

    skipped: Mapping[str, str]
    accepted: Mapping[str, str]


def read(root: Path) -> DayDecisions:
    """The decisions that hold under SNAPSHOTS.

    Raises:
        DataRefused: a line of the file is no decision: a day must not come back because of a damaged line.
    """
    standing: dict[str, tuple[str, str]] = {}
    for line in history(root):
        standing[line["day"]] = (line["action"], line["reason"])
    return DayDecisions(
        **{
            name: {day: why for day, (action, why) in standing.items() if action == wanted}
            for name, wanted in (("skipped", SKIP), ("accepted", ACCEPT))
        }
    )


def history(root: Path) -> list[dict[str, str]]:
    """Every decision ever taken, oldest first.

    Raises:
        DataRefused: a line is no decision.
    """
    path = root / FILE
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    decisions = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            decisions.append(_parsed(line, f"{path}, line {number}"))
    return decisions


def _parsed(line: bytes, where: str) -> dict[str, str]:
    try:
        decision = json.loads(line.decode("utf-8"))
        if not isinstance(decision, dict) or decision.keys() != _KEYS:
            raise ValueError(f"expected an object of {', '.join(sorted(_KEYS))}")
        if decision["action"] not in ACTIONS or not all(isinstance(value, str) for value in decision.values()):
            raise ValueError(f"expected an action of {', '.join(ACTIONS)} and texts")
        locations.day(decision["day"])
    except (ValueError, RecursionError, UsageError) as error:
        raise DataRefused(f"{where} is no decision about a day ({error}); restore or remove that line") from error
    return decision


def record(root: Path, day: str, action: str, reason: str) -> None:
    """Append one decision, on disk before this returns. One writer at a time: the caller holds the workspace.

    Raises:
        UsageError: no such action, no day, no reason, or nothing to undo.
        DataRefused: the file is damaged.
    """
    locations.day(day)
    if action not in ACTIONS:
        raise UsageError(f"action {action!r} found, expected one of {', '.join(ACTIONS)}")
    if not reason.strip():
        raise UsageError("an empty reason found, expected a few words: whoever is on call next will read them")
    standing = read(root)
    if action == UNDO and day not in standing.skipped and day not in standing.accepted:
        raise UsageError(f"no decision about {day} found, so there is nothing to undo")
    root.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"day": day, "action": action, "reason": reason.strip(), "at": now})
    with open(root / FILE, "ab") as file:
        # A line on its own, even after one that a full disk cut short.
        file.write(b"\n" + line.encode() + b"\n" if file.tell() else line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def require_not_skipped(decisions: DayDecisions, date: str) -> None:
    """Refuse a night of a skipped day.

    Raises:
        UsageError: `date` is skipped.
    """
    if date in decisions.skipped:
        raise UsageError(
            f"{date} is a skipped day ({decisions.skipped[date]}); run a later date, or take it back with "
            f"`goalrank day undo {date} --reason TEXT`"
        )


def way_out(days: Collection[str]) -> str:
    """What a refusal about `days` tells a person who cannot mend them."""
    day = max(days) if len(set(days)) == 1 else "DATE"
    return (
        "To go on: mend the logs and run the same date again. Where a day will never be mended, leave it out: "
        f"`goalrank day skip {day} --reason TEXT`, then run the next date (docs/data-contract.md, refused days)"
    )
