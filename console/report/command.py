"""What `goalrank report` does and prints."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console

from components.publish_report.main import republish, write
from components.publish_report.report import CARD, DATA, PAGE
from components.publish_report.versions import beside
from console.report.chosen import document_of, find, run_id
from console.report.comparison import write_comparison
from console.report.nights import write_index
from console.settings import Settings
from console.workspace import Workspace
from goalrank.errors import EXIT_DONE, UsageError


def report(settings: Settings, run: str | None) -> dict[str, Any]:
    """Write a night's report again from what its steps left, and the page of all nights; where they are.

    Raises:
        UsageError: there is no such night, or no workspace; or outcomes are gone of a night that has a report.
        TryAgain: that night is running.
    """
    workspace = Workspace(settings.workspace)
    workspace.require_used()
    night = find(workspace, run)
    if not (night.folder / DATA).is_file() or not _republished(night.folder):
        document = document_of(night)
        write(night.folder, document | {"versions": beside(night.folder, document)})
    index = write_index(settings.workspace, settings.journal_uri)
    verdict = json.loads((night.folder / DATA).read_text(encoding="utf-8"))["verdict"]
    return {
        "exit_code": EXIT_DONE,
        "run": run_id(night),
        "date": night.date,
        "verdict": verdict,
        "report": str(night.folder / PAGE),
        "model_card": str(night.folder / CARD),
        "data": str(night.folder / DATA),
        "index": str(index),
    }


def compare(settings: Settings, runs: tuple[str, str]) -> dict[str, Any]:
    """Write the page of two nights side by side, and the page of all nights; where they are.

    Raises:
        UsageError: both are the same, or one is no night of this workspace; or outcomes of one are gone.
        TryAgain: one of them is running.
    """
    workspace = Workspace(settings.workspace)
    workspace.require_used()
    one, other = (find(workspace, run) for run in runs)
    if one.folder == other.folder:
        raise UsageError(f"--compare {runs[0]} {runs[1]} found, both are night {run_id(one)}; expected two nights")
    page = write_comparison(settings.workspace, one, other)
    index = write_index(settings.workspace, settings.journal_uri)
    return {
        "exit_code": EXIT_DONE,
        "runs": [run_id(one), run_id(other)],
        "comparison": str(page),
        "index": str(index),
    }


def show(done: dict[str, Any], console: Console) -> None:
    """Say where the pages are."""
    lines = [f"{name.replace('_', ' ').capitalize()}: {done[name]}" for name in SHOWN if name in done]
    if "verdict" in done:
        lines.insert(0, f"Night {done['run']}: {done['verdict']}.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


SHOWN = ("report", "model_card", "comparison", "index")


def open_page(done: dict[str, Any]) -> bool:
    """Open the page in the browser of whoever asks; whether there was one."""
    page = Path(done.get("comparison") or done["report"])
    return webbrowser.open(page.as_uri())


def _republished(folder: Path) -> bool:
    try:
        republish(folder)
    except (OSError, ValueError, KeyError):  # a report.json that is damaged, or of an older release
        return False
    return True
