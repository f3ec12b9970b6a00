"""Which snapshots have passed this gate: one small mark a snapshot, written after the pass and never before.

    SNAPSHOTS/passed/<snapshot_id>.json   {"date", "snapshot_id", "days": [folder of each day that passed]}

A committed snapshot is not a good one yet: extraction commits before this gate looks. Only marked snapshots are what
the next night is held against, and only their days need no second look.
"""

from __future__ import annotations

import json
from pathlib import Path

from components.extract_features import snapshots
from components.extract_features.snapshots import Snapshot
from components.step import write_atomic

FOLDER = "passed"


def mark(root: Path, snapshot: Snapshot) -> None:
    """Remember that the features of `snapshot` passed."""
    document = {"date": snapshot.date, "snapshot_id": snapshot.snapshot_id, "days": _folders(snapshot)}
    write_atomic(_path(root, snapshot), json.dumps(document, indent=1))


def is_marked(root: Path, snapshot: Snapshot) -> bool:
    """Whether these very files passed: a rebuild of the same rows lies in other folders and is looked at again."""
    try:
        document = json.loads(_path(root, snapshot).read_text(encoding="utf-8"))
        return bool(document["days"] == _folders(snapshot))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def newest_before(root: Path, date: str) -> Snapshot | None:
    """The newest marked snapshot of a day before `date` whose files are all there, or None."""
    readable = snapshots.readable_before(root, date)
    return next((found for found in readable if is_marked(root, found) and not found.problem()), None)


def _path(root: Path, snapshot: Snapshot) -> Path:
    return root / FOLDER / f"{snapshot.snapshot_id}.json"


def _folders(snapshot: Snapshot) -> list[str]:
    return [day["path"] for day in snapshot.manifest["days"]]
