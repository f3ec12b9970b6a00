"""The front page: nights, newest first, with reports and Data Docs, comparisons, and where MLflow shows the runs."""

from __future__ import annotations

import json
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

import jinja2

from components.publish_report.notify import without_rows
from console.doctor import network
from console.next_steps import typed
from console.report import pairs
from console.settings import Settings
from console.ui.files import DOCS, INDEX
from goalrank import naming

TEMPLATE = Path(__file__).with_name("nights.html.jinja")
LONGEST_REASON = 240
"""Characters; the report has it in full."""
MLFLOW = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens unless told otherwise."""


@dataclass(frozen=True)
class Row:
    """One try of a night."""

    run: str
    verdict: str
    reason: str
    """Without the rows it quotes: a page of many nights outlives them (docs/retention.md)."""
    version: str
    report: str
    """Address of the report; empty where there is none."""
    docs: list[tuple[str, str]]
    """(step, address) of its Data Docs."""


def rows(nights: Path) -> list[Row]:
    """Every try of every night, newest first; a card that cannot be read says so."""
    cards = sorted(nights.glob("*/*/night.json"), key=_order, reverse=True)
    return [_row(nights, card) for card in cards]


def page(settings: Settings) -> str:
    """The front page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    nights = settings.workspace / "nights"
    return environment.get_template(TEMPLATE.name).render(
        workspace=str(settings.workspace),
        nights=rows(nights),
        index=(nights / INDEX).is_file(),
        pairs=pairs.newest(settings.workspace),
        mlflow=_mlflow(settings),
    )


def _order(card: Path) -> tuple[str, int]:
    number = card.parts[-2]
    return card.parts[-3], int(number) if number.isdigit() else 0


def _row(nights: Path, card: Path) -> Row:
    folder, run = card.parent, "/".join(card.parts[-3:-1])
    try:
        document = json.loads(card.read_text(encoding="utf-8"))
        verdict, reason = str(document["verdict"]), str(document.get("reason") or "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        document, verdict, reason = {}, "unreadable", f"night.json cannot be read ({type(error).__name__})"
    sites = sorted(folder.glob(f"artifacts/*/*/{DOCS}/index.html")) + sorted(folder.glob(f"{DOCS}/*/index.html"))
    return Row(
        run=run,
        verdict=verdict,
        reason=textwrap.shorten(without_rows(reason), LONGEST_REASON, placeholder=" …"),
        version=str(document.get("model_version") or ""),
        report=f"/nights/{run}/report.html" if (folder / "report.html").is_file() else "",
        docs=[(_step(site), f"/nights/{site.relative_to(nights).as_posix()}") for site in sites],
    )


def _step(site: Path) -> str:
    """artifacts/<pipeline run>/<step>/data_docs/index.html or data_docs/<step>/index.html."""
    name = site.parts[-3] if site.parts[-2] == DOCS else site.parts[-2]
    return name.replace("-", " ").replace("_", " ")


def _mlflow(settings: Settings) -> dict[str, str]:
    """Its address, if one answers; else the command that starts it."""
    uri = naming.without_password(settings.tracking_uri)
    if uri.startswith(("http://", "https://")):
        return {"address": uri, "command": ""}
    answer = network.answers(f"{MLFLOW}/health")
    running = not isinstance(answer, str) and answer == (200, b"OK")
    return {
        "address": MLFLOW if running else "",
        "command": f"{typed('mlflow')} ui --backend-store-uri {shlex.quote(uri)}",
    }
