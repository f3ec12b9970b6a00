"""The page of all nights: how the last one went, the trend, every night with its verdict, the champion's moves, and the
nights that were compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.promote_model import history
from components.publish_report import versions
from components.publish_report.notify import without_rows
from components.publish_report.page import environment
from components.publish_report.plots.style import made, numbered
from components.publish_report.plots.versions import over_versions
from components.publish_report.report import CARD, DATA, INDEX, PAGE
from components.step import write_atomic
from console.report import pairs
from goalrank.errors import ModelRefused

TEMPLATES = Path(__file__).with_name("templates")

WITH_FIGURES = 120
"""Newest nights whose figures are read for the table; of older ones it has the verdict."""

MOVES = 20
"""Newest moves of the champion that are shown."""


def write_index(workspace: Path, journal_uri: str) -> Path:
    """Write WORKSPACE/nights/index.html and return its path. A night that cannot be read is a row that says so.

    Args:
        workspace: the folder, with nights/ in it.
        journal_uri: of promotions; one that is damaged costs the page its moves.
    """
    nights = workspace / "nights"
    rows = _rows(nights)
    try:
        entries = history.as_rows(history.read(nights, journal_uri))
        note = ""
    except (ModelRefused, OSError) as error:
        entries, note = [], str(error)
    moves = [entry for entry in entries if entry["what"] in ("promoted", "rolled back", "interrupted")]
    trend = versions.in_order(
        list({row["trend"]["version"]: row["trend"] for row in rows[::-1] if row["trend"]}.values())
    )
    page = (
        environment(TEMPLATES)
        .get_template("index.html.jinja")
        .render(
            rows=rows,
            newest=rows[0] if rows else None,
            champion=_champion(moves),
            counts={
                what: sum(row["verdict"] == what for row in rows) for what in ("promoted", "kept", "refused", "failed")
            },
            moves=[move | {"reason": without_rows(move["reason"])} for move in moves[::-1][:MOVES]],
            note=note,
            pairs=pairs.newest(workspace),
            compared=f"../{pairs.FOLDER}",
            plots=numbered(made([lambda: over_versions(trend)]), "i"),
        )
    )
    path = nights / INDEX
    write_atomic(path, page)
    return path


def _rows(nights: Path) -> list[dict[str, Any]]:
    """A row a try, the one started last first."""
    cards = [(_read(card), card) for card in nights.glob("*/*/night.json")]
    cards.sort(key=lambda one: _number(one[0].get("started_at")) or one[1].stat().st_mtime, reverse=True)
    return [_row(card, path.parent, number < WITH_FIGURES) for number, (card, path) in enumerate(cards)]


def _row(card: dict[str, Any], folder: Path, with_figures: bool) -> dict[str, Any]:
    document = _read(folder / DATA) if with_figures else {}
    trend = versions.row(document)
    here = f"{folder.parent.name}/{folder.name}"
    seconds = card.get("seconds")
    if trend is not None and card.get("verdict"):
        trend["verdict"] = str(card["verdict"])  # promoted by hand since
    return {
        "run": here,
        "verdict": str(card.get("verdict") or document.get("verdict") or "failed"),
        "version": card.get("model_version"),
        "reason": without_rows(
            card.get("reason") or document.get("reason") or ("" if card else "its card cannot be read")
        ),
        "seconds": seconds.get("wall") if isinstance(seconds, dict) else None,
        "trend": trend,
        "report": f"{here}/{PAGE}" if (folder / PAGE).is_file() else None,
        "card": f"{here}/{CARD}" if (folder / CARD).is_file() else None,
    }


def _champion(moves: list[dict[str, Any]]) -> str | None:
    """The champion's version after the last move that was finished."""
    done = [move for move in moves if move["what"] != "interrupted"]
    return done[-1]["champion"] if done else None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
