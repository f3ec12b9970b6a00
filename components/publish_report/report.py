"""report.html and model_card.md of a night, from its document (document.py)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from components.publish_report import headline
from components.publish_report.page import environment, rendered, words
from components.publish_report.sections import SECTIONS, experiment
from components.step import write_atomic

PAGE, CARD, DATA = "report.html", "model_card.md", "report.json"

INDEX = "index.html"
"""Beside the nights' folders: `goalrank report` and every night of one machine write it (console/report/)."""

Made = TypeVar("Made")


def write_page(folder: Path, document: dict[str, Any]) -> None:
    """Write report.html. It never fails over what the document holds; what cannot be shown is named on the page."""
    shown, missing = rendered(SECTIONS, document | {"experiment": experiment.read(folder)})
    absent = [
        {"title": section.title, "why": _why(section.needs, error, document)}
        for section, error in missing
        if section.needs or error
    ]
    page = environment().get_template("report.html.jinja").render(
        document=document,
        headline=_or("", lambda: headline.headline(document)),
        next=_or("", lambda: headline.what_next(document)),
        tiles=_or([], lambda: headline.tiles(document)),
        sections=shown,
        absent=absent,
        links=_links(folder),
    )
    write_atomic(folder / PAGE, page)


def write_card(folder: Path, document: dict[str, Any]) -> None:
    """Write model_card.md: what the registered version is, of what, how it was judged, what it is not good for."""
    template = environment().get_template("model_card.md.jinja")
    facts = _or([], lambda: _facts(document))
    sections = {section.key: _or(None, lambda section=section: section.view(document)) for section in SECTIONS[:3]}
    write_atomic(folder / CARD, template.render(document=document, headline=_or("", lambda: headline.headline(document)), facts=facts, **sections))


def _facts(document: dict[str, Any]) -> list[tuple[str, Any]]:
    from components.publish_report.sections.lineage import lineage

    return list(lineage(document)["rows"])


def _or(otherwise: Made, make: Callable[[], Made]) -> Made:
    try:
        return make()
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
    """To pages that lie beside the night."""
    index = folder.resolve().parent.parent / INDEX
    links = [{"text": "All nights", "href": os.path.relpath(index, folder.resolve())}] if index.is_file() else []
    return [*links, {"text": "Model card", "href": CARD}, {"text": "Data", "href": DATA}]
