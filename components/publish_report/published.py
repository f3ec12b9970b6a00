"""May a report that lies in a night's folder be written again from its outcomes, or have they gone since?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.night_card import NIGHT, RUNNING
from components.publish_report.document import summary
from components.publish_report.report import DATA
from components.publish_report.result import FAILED
from goalrank.errors import UsageError


def require_outcomes(folder: Path, document: dict[str, Any]) -> None:
    """See that a new document says no less than the night's card and its published report.

    A night that goes on, or was killed while it did, is left alone: its outcomes are taken back before they come anew.

    Args:
        folder: of the night.
        document: collected just now (document.py), not written yet.

    Raises:
        UsageError: the night ended well or was refused, and outcomes that said so are gone or unreadable.
    """
    card, published = _read(folder / NIGHT), _read(folder / DATA)
    if card.get("verdict") == RUNNING:
        return
    said = published.get("verdict", FAILED)
    if said == FAILED and "promoted_by" not in card:  # by hand: no outcome of the night says so
        said = card.get("verdict", FAILED)
    if said == FAILED:
        return
    told = published.get("outcomes")
    gone = sorted({*(told if isinstance(told, dict) else ())} - {*document["outcomes"], "publish_report"})
    if gone or summary(folder)["verdict"] == FAILED:
        which = f" ({', '.join(gone)})" if gone else ""
        raise UsageError(
            f"outcomes in {folder / 'outcomes'} found gone or unreadable{which}, expected those of a night that ended "
            f"{said}; its report is left as it is. Restore outcomes/ from a copy of the workspace to have it written "
            "again"
        )


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
