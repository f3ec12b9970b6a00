"""What a shell completes beyond flags: presets, dates of nights and of days, tries of nights, policies.

It runs whenever Tab is pressed, so it reads folders and nothing else, and says nothing where it knows nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from console.next_steps import DEFAULT

POLICIES = ("champion", "challenger", "previous", "retriever", "random")
"""Our own; the methods of the field can be named too, but finding them means importing torch."""


def presets(incomplete: str) -> list[str]:
    """tiny, small, base, large."""
    from goalrank.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def nights(ctx: Any, incomplete: str) -> list[str]:
    """Dates of the workspace's nights, newest first."""
    return _found(ctx, "nights/*", incomplete)


def tries(ctx: Any, incomplete: str) -> list[str]:
    """DATE/N of the workspace's nights, newest first."""
    return _found(ctx, "nights/*/*", incomplete)


def days(ctx: Any, incomplete: str) -> list[str]:
    """Arrival days of the workspace's own logs, newest first; those it learns from may lie elsewhere."""
    return [name.removeprefix("dt=") for name in _found(ctx, "logs/requests/dt=*", f"dt={incomplete}")]


def policies(incomplete: str) -> list[str]:
    """The last name of a list with commas."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in POLICIES if name.startswith(last) and name not in taken]


def _found(context: Any, pattern: str, incomplete: str) -> list[str]:
    workspace = Path(context.params.get("workspace") or os.environ.get("GOALRANK_WORKSPACE") or DEFAULT)
    depth = 2 if pattern.endswith("*/*") else 1
    try:
        names = ["/".join(path.parts[-depth:]) for path in workspace.glob(pattern) if path.is_dir()]
    except OSError:
        return []
    return [name for name in sorted(names, reverse=True) if name.startswith(incomplete) and name[:1] != "."]
