"""Reports and Data Docs of the nights, and no other file: not weights, not tables, not logs, not what a link leads to.

What is served below /nights/:

    index.html                      the page of all nights, which every night writes
    <date>/<n>/report.html          and its other files of REPORT_FILES
    <date>/<n>/.../data_docs/...    Great Expectations' site, its scripts taken out already (components/data_docs.py)

And below /comparisons/: the pages of two nights, <date>-<n>_<date>-<n>.html.
"""

from __future__ import annotations

import re
from pathlib import Path

from console.report.pairs import Pair

INDEX = "index.html"
REPORT_FILES = {"report.html", "report.json", "model_card.md", "experiment.json"}
DOCS = "data_docs"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".gif": "image/gif",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_TRY = re.compile(r"\d{4}-\d{2}-\d{2}/[1-9]\d{0,5}/(.+)")


def servable(nights: Path, path: str) -> Path | None:
    """The file of that path below WORKSPACE/nights that may be shown; None for anything else, there or not."""
    return _within(nights, path) if path == INDEX or _of_a_night(path) else None


def compared(folder: Path, name: str) -> Path | None:
    """The page of two nights of that name in WORKSPACE/comparisons; None for anything else."""
    return _within(folder, name) if Pair.of_file(name) else None


def _within(folder: Path, path: str) -> Path | None:
    """The file of that path, if there is one and it lies in the folder once links are followed."""
    try:
        root, file = folder.resolve(strict=True), (folder / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    return file if file.is_file() and file.is_relative_to(root) else None


def _of_a_night(path: str) -> bool:
    """Does it read as a report's file or a page of Data Docs?"""
    found = _TRY.fullmatch(path)
    parts = found[1].split("/") if found else []
    if not parts or any(part.startswith(".") or part == "" or "\\" in part or "\0" in part for part in parts):
        return False
    if not (parts[0] in REPORT_FILES and len(parts) == 1 or DOCS in parts[:-1]):
        return False
    return Path(parts[-1]).suffix in TYPES
