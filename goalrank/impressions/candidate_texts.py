"""A column of lists of items as ids: `[3, 9, 12]`, or parted by `|`, `;`, `,` or white space, the same in every row.

Ids may hold any of the marks but the one that parts them, so that mark is chosen for the column, not found in a value.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

MARKS = ("|", ";", ",")
"""The first of these that occurs in the column parts the ids; white space only where none does."""


class CandidateTexts:
    """How one column is to be read, decided by its first rows that tell it."""

    def __init__(self) -> None:
        self._mark: str | None = None  # "" is white space
        self.seen = False  # whether any list names a candidate

    def ids(self, column: pa.Array) -> pa.Array:
        """Every distinct id that the next rows name."""
        texts = [text for text in pc.unique(column).to_pylist() if text]
        self.seen = self.seen or bool(texts)
        if self._mark is None:
            plain = [text for text in texts if not _bracketed(text)]
            self._mark = next((mark for mark in MARKS if any(mark in text for text in plain)), None)
            if self._mark is None and len(plain) == len(texts) and any(len(text.split()) > 1 for text in plain):
                self._mark = ""
        return pa.array(dict.fromkeys(part for text in texts for part in self.parts(text)), pa.string())

    def parts(self, text: str) -> list[str]:
        """The ids that one value names, in order."""
        if _bracketed(text):
            return _named(_of_brackets(text))
        return _named([text] if self._mark is None else text.split(self._mark or None))


def _bracketed(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def _of_brackets(text: str) -> list[object]:
    """JSON, or a list as Python or NumPy print it; numbers as they are written."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        pass
    inside = text[1:-1]
    if "'" in inside or '"' in inside:
        try:
            return list(ast.literal_eval(text))
        except (ValueError, SyntaxError, TypeError):
            pass
    return list(inside.split(",") if "," in inside else inside.split())


def _named(parts: Iterable[object]) -> list[str]:
    stripped = (str(part).strip() for part in parts if part is not None)
    return [part for part in stripped if part]
