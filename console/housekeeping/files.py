"""What the rule (console/housekeeping/__init__.py) collects among a workspace's own folders."""

from __future__ import annotations

import fcntl
import time
from contextlib import ExitStack
from pathlib import Path

from components.check_features import passed
from components.extract_features import locations, snapshots
from components.extract_features.snapshots import Snapshot
from components.materialize_features.online import read_record
from console.housekeeping.taken import Taken, folder, left_behind, size
from console.workspace import Workspace
from goalrank.errors import DataRefused, TryAgain

HEAVY = ("artifacts", "cache", "checkpoints", "train_job")
"""What of a night's folder is collected; without any of them, its resumption starts at the first step."""

DRIFT_BASES = 2
"""Passed snapshots that are kept whatever their age: the newest, and the one it is held against if run again."""


def nights(place: Workspace, recent: set[str]) -> list[Taken]:
    """HEAVY folders of nights that are neither recent nor the one started last."""
    found, newest = [], place.newest_night()
    for night in place.nights():
        name = f"{night.date}/{night.folder.name}"
        found += left_behind("night", night.folder, name)
        if night.date not in recent and newest is not None and night.folder != newest.folder:
            there = [night.folder / heavy for heavy in HEAVY if (night.folder / heavy).exists()]
            found += [folder("night", f"{name}/{path.name}", path) for path in there]
    return found


def experiments(place: Workspace, keep_days: int) -> list[Taken]:
    """Folders of A/B experiments nobody has written to for `keep_days` days."""
    within, before = place.folder / "experiments", time.time() - keep_days * 86400
    there = [path for path in sorted(within.glob("[!.]*")) if path.is_dir()]
    old = [path for path in there if max(file.stat().st_mtime for file in [path, *path.rglob("*")]) < before]
    return [*left_behind("experiment", within, "experiments"), *(folder("experiment", path.name, path) for path in old)]


def offline(feast_uri: str) -> list[Taken]:
    """Offline folders that are not what is online, nor may be."""
    if "://" in feast_uri:
        return []
    record, within = read_record(feast_uri), Path(feast_uri) / "offline"
    kept = {Path(path).name for path in [record.get("folder", ""), *record.get("may", [])]}
    return [folder("offline features", path.name, path) for path in sorted(within.glob("*")) if path.name not in kept]


def snapshot_rows(
    locks: ExitStack, snapshots_uri: str, recent: set[str], last: str, keep_nights: int, notes: list[str]
) -> list[Taken]:
    """Manifests out of reach, the rows that no remaining manifest names, and marks without a manifest.

    Takes the extraction's lock. With a manifest that cannot be read nothing is collected: it may name any folder.
    `last` is the date of the night started last, however old: whoever resumes it reads that date's snapshot, and holds
    it against the one that passed before it.

    Raises:
        TryAgain: an extraction is writing there.
    """
    root = locations.folder(snapshots_uri)
    if not (root / "data").is_dir():
        return []
    lock = locks.enter_context((root / ".lock").open("a", encoding="utf-8"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TryAgain(f"an extraction is writing under {root}; wait for it to end") from error
    dates = snapshots.dates(root)
    try:
        known = {date: Snapshot.read(root, date) for date in dates}
    except DataRefused as error:
        notes.append(f"no snapshot was collected: {error}")
        return []
    marked = [date for date in dates if passed.is_marked(root, known[date]) and not known[date].problem()]
    before_last = [date for date in marked if date < last]
    keep = {*recent, *dates[-keep_nights:], *marked[-DRIFT_BASES:], last, *before_last[-1:]}
    gone = [date for date in dates if date not in keep]
    kept = [known[date] for date in dates if date in keep]
    named = {path for snapshot in kept for path in _folders(snapshot)}
    taken = [_file("snapshot", f"manifest of {date}", snapshots.manifest_path(root, date)) for date in gone]
    taken += left_behind("snapshot rows", root / "data", "data")
    for top in sorted((root / "data").glob("[!.]*")):
        parts = [part for part in [top / "state", top / "base", *sorted(top.glob("days/*"))] if part.is_dir()]
        unnamed = [part for part in parts if str(part.relative_to(root)) not in named]
        if len(unnamed) == len(parts):
            taken.append(folder("snapshot rows", f"data/{top.name}", top))
        else:
            taken += [folder("snapshot rows", str(part.relative_to(root)), part) for part in unnamed]
            taken += [rest for inner in (top, top / "days") for rest in left_behind("snapshot rows", inner, top.name)]
    ids = {snapshot.snapshot_id for snapshot in kept}
    marks = [path for path in sorted((root / passed.FOLDER).glob("*.json")) if path.stem not in ids]
    return taken + [_file("mark of a pass", path.stem, path) for path in marks]


def _folders(snapshot: Snapshot) -> list[str]:
    """Every folder a manifest names, relative to SNAPSHOTS."""
    manifest = snapshot.manifest
    base = [manifest["base"]["path"]] if manifest.get("base") else []
    return [*(day["path"] for day in manifest["days"]), *base, manifest["state"]]


def _file(what: str, name: str, path: Path) -> Taken:
    return Taken(what, name, size(path), lambda: path.unlink(missing_ok=True))
