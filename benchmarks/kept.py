"""Results kept on disk one by one, each in a folder that is named by a digest of all it depends on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goalrank.logs_writer import written_aside


def kept(folder: Path, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """result.json of a folder; where there is none the work is done, in a folder aside that is renamed at the end.

    What was cut short leaves nothing, and is done anew.
    """
    if not (folder / "result.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        with written_aside(folder) as aside:
            found = work(aside)
            found["seconds"] = round(time.perf_counter() - begun, 2)
            (aside / "result.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    loaded: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return loaded


def digest_of(depends: dict[str, Any]) -> str:
    """16 hex digits."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
