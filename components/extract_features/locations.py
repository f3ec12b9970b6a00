"""The one place where the extraction's folders are resolved and joined. Local folders only so far."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date as calendar_date
from datetime import timedelta
from pathlib import Path

from goalrank.errors import UsageError

_GLOB = set("*?[]{}\\")


def folder(uri: str) -> Path:
    """The local folder a URI names (a plain path or file://).

    Raises:
        UsageError: another scheme, or characters that Spark would take for a pattern.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise UsageError(f"{uri!r} found, expected a local folder or file://: other stores are not supported yet")
    path = Path(rest if separator else uri).absolute()
    if found := sorted(_GLOB & set(str(path))):
        raise UsageError(f"{uri!r} holds {' '.join(found)}, which Spark reads as a pattern; use another folder")
    return path


def for_spark(path: Path) -> str:
    """The path with its scheme, since a cluster's default file system need not be the local one."""
    return f"file://{path}"


def bytes_of(files: Iterable[Path]) -> int:
    """Size of those files that are there: one that has gone, or a link to nothing, is for its reader to refuse."""
    return sum(file.stat().st_size for file in files if file.is_file())


def day(text: str) -> calendar_date:
    """A date given as YYYY-MM-DD.

    Raises:
        UsageError: anything else; dates become folder names.
    """
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return calendar_date.fromisoformat(text)
    except ValueError:
        pass
    raise UsageError(f"date {text!r} found, expected a day as YYYY-MM-DD")


def day_after(text: str) -> str:
    """The next day, as YYYY-MM-DD."""
    return str(day(text) + timedelta(days=1))
