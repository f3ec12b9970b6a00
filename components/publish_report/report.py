"""report.html and model_card.md of a night, from its document (document.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.publish_report import headline
from components.publish_report.page import environment, rendered, words
from components.publish_report.sections import SECTIONS, experiment
from components.publish_report.sections.lineage import lineage
from components.step import write_atomic

PAGE, CARD, DATA = "report.html", "model_card.md", "report.json"

INDEX, NIGHT = "index.html", "night.json"
"""The page of all nights beside their folders, and the card in each of them: both written by the console."""


def write_page(folder: Path, document: dict[str, Any]) -> None:
    """Write report.html. It never fails over what the document holds; what cannot be shown is named on the page."""
    shown, missing = rendered(SECTIONS, document | {"experiment": experiment.read(folder)})
    absent = [
        {"title": section.title, "why": _why(section.needs, error, document)}
        for section, error in missing
        if section.needs or error
    ]
    page = environment().get_template("report.html.jinja")
    text = page.render(
        document=document,
        headline=_made(headline.headline, document, ""),
        next=_made(headline.what_next, document, ""),
        tiles=_made(headline.tiles, document, []),
        sections=shown,
        absent=absent,
        links=_links(folder),
    )
    write_atomic(folder / PAGE, text)


def write_card(folder: Path, document: dict[str, Any]) -> None:
    """Write model_card.md: what the registered version is, of what, how it was judged, what it is not good for."""
    text = (
        environment()
        .get_template("model_card.md.jinja")
        .render(
            document=document,
            headline=_made(headline.headline, document, ""),
            facts=_made(lambda known: lineage(known)["rows"], document, []),
            **{section.key: _made(section.view, document, None) for section in SECTIONS[:3]},
        )
    )
    write_atomic(folder / CARD, text)


def _made(make: Callable[[dict[str, Any]], Any], document: dict[str, Any], otherwise: Any) -> Any:
    try:
        return make(document)
    except Exception:  # noqa: BLE001 - whatever an outcome holds, a report is published
        return otherwise


def _why(needs: str, error: str, document: dict[str, Any]) -> str:
    if error:
        return f"it could not be drawn ({error}); report.json has the figures."
    outcome = document["outcomes"].get(needs)
    if outcome is None:
        return f"{needs} did not run, or did not end."
    if outcome["kind"] != "done":
        return f"{needs} ended before it came to it ({words(outcome['kind'])})."
    return f"{needs} had nothing of it."


def _links(folder: Path) -> list[dict[str, str]]:
    """To pages that lie beside the night; the index is written by the console, which leaves a card in its nights."""
    links = [{"text": "All nights", "href": f"../../{INDEX}"}] if (folder / NIGHT).is_file() else []
    return [*links, {"text": "Model card", "href": CARD}, {"text": "Data", "href": DATA}]
