"""What a night leaves for those who work on its workspace: night.json in its folder, workspace.json above all of them.

On one machine the console writes both. On a cluster the steps do, the first and the last, so that erase-user, clean,
collect, watch and history find there what they find on one machine.

    WORKSPACE/workspace.json         {"format", "folder", "logs"}
    WORKSPACE/nights/*/*/night.json  {"date", "verdict", "started_at", "parameters", ...}, on a cluster with "kept_by"
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.extract_features import locations
from components.step import write_atomic
from goalrank.errors import TryAgain, UsageError

FORMAT = 2
"""2: registered versions carry their feature set, the service's journal has flat lines (console/migration.py)."""

NIGHT, WORKSPACE, LOCK = "night.json", "workspace.json", "lock"
RUNNING = "running"
KEPT_BY, STEPS = "kept_by", "steps"

LONGEST_HOURS = 12
"""Longest that a night on a cluster says nothing: as long as one try of a step may take (pipelines/cluster.py)."""


@contextmanager
def held(workspace: Path) -> Iterator[int]:
    """Hold the workspace; gives the lock's descriptor.

    Raises:
        TryAgain: somebody else holds it.
    """
    with open(workspace / LOCK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryAgain(
                f"another night runs in {workspace}, or one of `goalrank clean`, erase-user and collect; wait for it "
                "to end"
            ) from error
        yield lock.fileno()


def begin(workspace_uri: str, run_uri: str, date: str, logs_uri: str) -> None:
    """Say that a night of the cluster is under way; "" for the workspace: on one machine the console says so.

    Raises:
        UsageError: the workspace learns from other logs, was moved, or is of another release.
        TryAgain: somebody is at work on it, who may take away what a night has just begun to read.
    """
    if not workspace_uri:
        return
    workspace, folder = locations.folder(workspace_uri), Path(run_uri)
    expected = {"format": FORMAT, "folder": str(workspace), "logs": str(locations.folder(logs_uri))}
    workspace.mkdir(parents=True, exist_ok=True)
    with held(workspace):
        card = workspace / WORKSPACE
        if not card.exists():
            write_atomic(card, json.dumps(expected, indent=1))
        found = _read(card)
        if wrong := [name for name, value in expected.items() if found.get(name) != value]:
            named = "; ".join(f"{name} {found.get(name)!r}, expected {expected[name]!r}" for name in wrong)
            raise UsageError(
                f"{card} says {named}: features of two sources must not mix; give these logs a workspace of their own, "
                "or see docs/runbook.md, Another release"
            )
        document = {
            "date": date,
            "verdict": RUNNING,
            "started_at": time.time(),
            "parameters": {"date": date, "run_uri": run_uri, "logs_uri": logs_uri},
            KEPT_BY: STEPS,
        }
        write_atomic(folder / NIGHT, json.dumps(document, indent=1))


def end(run_uri: str, result: dict[str, Any]) -> None:
    """Say how it ended, if it was one of a cluster.

    Args:
        result: of components/publish_report/result.py.
    """
    card = Path(run_uri) / NIGHT
    if not card.exists() or (document := _read(card)).get(KEPT_BY) != STEPS:
        return
    kept = {name: result.get(name) for name in ("verdict", "exit_code", "reason", "model_version", "snapshot_id")}
    write_atomic(card, json.dumps(document | kept | {"ended_at": time.time()}, indent=1, default=str))


def read_night(card: Path) -> dict[str, Any]:
    """A night.json in which everything stands that every night's card has.

    Raises:
        ValueError: it is damaged; says which file, what was found, what was expected and how to mend it.
    """
    expected: dict[str, type | tuple[type, ...]] = {
        "date": str,
        "verdict": str,
        "started_at": (int, float),
        "parameters": dict,
    }
    try:
        document = json.loads(card.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError(f"a {type(document).__name__} found, expected an object")
        if wrong := [name for name, kind in expected.items() if not isinstance(document.get(name), kind)]:
            raise ValueError(f"{' and '.join(wrong)} found missing or of another type")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"night's card cannot be read: {card} ({error}); restore it from a copy of the workspace, or move "
            f"{card.parent} out of the workspace (`goalrank history` lists every such card)"
        ) from None
    return document


def _read(card: Path) -> dict[str, Any]:
    try:
        document = json.loads(card.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError(f"a {type(document).__name__}")
    except ValueError as error:
        raise UsageError(f"{card} is no JSON object ({error}); restore it, or use a new workspace") from None
    return document
