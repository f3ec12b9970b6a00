"""Which night is meant, and its document."""

from __future__ import annotations

import json
import re
from typing import Any

from components.publish_report.document import collect
from components.publish_report.published import require_outcomes
from components.publish_report.report import DATA
from console.workspace import RUNNING, Night, Workspace
from goalrank.errors import UsageError

_RUN = re.compile(r"(\d{4}-\d{2}-\d{2})(?:/([1-9]\d{0,5}))?")


def run_id(night: Night) -> str:
    """A night's try as people name it: DATE/N."""
    return f"{night.folder.parent.name}/{night.folder.name}"


def find(workspace: Workspace, run: str | None) -> Night:
    """The night that is meant: one try (DATE/N), a date's newest try, or the newest of all.

    Raises:
        UsageError: `run` is malformed, or there is no such night; or a night's card is damaged.
        TryAgain: that night is running.
    """
    named = _RUN.fullmatch(run) if run is not None else None
    if run is not None and named is None:
        raise UsageError(f"--run {run!r} found, expected a night such as 2026-01-31/1, or a date for its newest try")
    nights = read_nights(workspace)
    meant = [night for night in nights if run is None or run_id(night) == run or night.folder.parent.name == run]
    if not meant:
        if not nights:
            raise UsageError(
                f"no night found in {workspace.folder}; run `goalrank nightly`, or give another --workspace"
            )
        known = ", ".join(run_id(night) for night in nights[-3:])
        raise UsageError(f"no night {run} found in {workspace.folder}; the newest are: {known}")
    night = meant[-1]
    if night.verdict == RUNNING:
        with workspace.one_at_a_time():  # held by a night that runs; one that was killed has left it
            pass
    return night


def read_nights(workspace: Workspace) -> list[Night]:
    """Every try of every night in the order in which they were started.

    Raises:
        UsageError: a night's card is damaged.
    """
    return sorted(workspace.nights(), key=lambda night: night.started_at)


def document_of(night: Night) -> dict[str, Any]:
    """What the night's report.json says, or, where it was never published, what its steps left.

    Raises:
        UsageError: what its steps left is gone, though the night has a verdict.
    """
    document = _collected(night)
    require_outcomes(night.folder, document)
    return document


def _collected(night: Night) -> dict[str, Any]:
    try:
        document = json.loads((night.folder / DATA).read_text(encoding="utf-8"))
        if isinstance(document, dict) and isinstance(document.get("outcomes"), dict):
            # Again from the outcomes: an older release's report.json has fewer keys.
            return collect(night.folder, night.date, str(document.get("state"))) | {
                "versions": document.get("versions")
            }
    except (OSError, ValueError):
        pass
    return collect(night.folder, night.date, "UNKNOWN")
