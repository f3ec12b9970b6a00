"""Pages of two nights side by side: how they are named, and which there are.

WORKSPACE/comparisons/<date>-<n>_<date>-<n>.html
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = "comparisons"

SHOWN = 20
"""Newest pages that the pages of all nights lead to."""

_RUN = r"([0-9]{4}-[0-9]{2}-[0-9]{2})-([1-9][0-9]{0,5})"
_NAME = re.compile(rf"{_RUN}_{_RUN}\.html")


@dataclass(frozen=True)
class Pair:
    """Two tries of nights, each DATE/N."""

    one: str
    other: str

    @property
    def file(self) -> str:
        """Name of their page."""
        return f"{self.one.replace('/', '-')}_{self.other.replace('/', '-')}.html"

    @classmethod
    def of_file(cls, name: str) -> Pair | None:
        """The pair whose page has that name; None: no such page would."""
        found = _NAME.fullmatch(name)
        return cls(f"{found[1]}/{found[2]}", f"{found[3]}/{found[4]}") if found else None


def newest(workspace: Path) -> list[Pair]:
    """Pairs that have a page, the one written last first."""
    written = []
    for page in (workspace / FOLDER).glob("*.html"):
        pair = Pair.of_file(page.name)
        with suppress(FileNotFoundError):  # removed meanwhile
            if pair is not None and page.is_file():
                written.append((page.stat().st_mtime, page.name, pair))
    return [pair for _, _, pair in sorted(written, key=lambda one: one[:2], reverse=True)[:SHOWN]]
