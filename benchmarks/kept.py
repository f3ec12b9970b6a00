"""Results kept on disk one by one, each in a folder that is named by a digest of all it depends on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goalrank.errors import UsageError
from goalrank.logs_writer import written_aside

RESULT = "result.json"
"""A folder that has it is whole."""


def kept(folder: Path, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The result of a folder; where there is none the work is done.

    Args:
        folder: the result's.
        work: given the folder to write in beside its result, returns that result.
    """
    if not (folder / RESULT).is_file():
        made_once(folder, work)
    return result_of(folder)


def made_once(folder: Path, work: Callable[[Path], dict[str, Any]]) -> bool:
    """Do the work in a folder aside that is renamed at the end; False where another study was sooner.

    What was cut short leaves nothing, and is done anew. Of two studies that share a cache and make the same piece at
    once, the first to end is taken at its word and the other's work discarded: they depend on the same.
    """
    begun, working = time.perf_counter(), False
    try:
        with written_aside(folder) as aside:
            working = True
            found = work(aside)
            working = False
            found["seconds"] = round(time.perf_counter() - begun, 2)
            (aside / RESULT).write_text(json.dumps(found, indent=1), encoding="utf-8")
    except (OSError, UsageError):  # the folder is full: at the end, or already at the start
        if working or not (folder / RESULT).is_file():
            raise
        return False
    return True


def result_of(folder: Path) -> dict[str, Any]:
    """What is kept in a folder."""
    loaded: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return loaded


def digest_of(depends: dict[str, Any]) -> str:
    """16 hex digits."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
