"""One thing to collect, and how a folder goes so that a kill half way leaves nothing that looks whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ON_ITS_WAY_OUT = ".collected-"
"""Folders of this name are being removed; no reader knows the name."""


@dataclass
class Taken:
    """What it is, its name for people, its bytes on this disk, and how it goes."""

    what: str
    name: str
    bytes: int
    remove: Callable[[], None] = field(repr=False)


def folder(what: str, name: str, path: Path) -> Taken:
    """A folder with all that is in it."""
    return Taken(what, name, size(path), lambda: remove(path))


def remove(path: Path) -> None:
    """Rename, then empty: whoever finds the rest of it later does not take it for the whole. Gone already is fine."""
    aside = path if path.name.startswith(ON_ITS_WAY_OUT) else path.with_name(f"{ON_ITS_WAY_OUT}{path.name}")
    if aside != path:
        if aside.exists():
            shutil.rmtree(aside)
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
    shutil.rmtree(aside, ignore_errors=False)


def left_behind(what: str, within: Path, name: str) -> list[Taken]:
    """Folders directly in `within` that a killed collector had renamed and not emptied yet."""
    return [folder(what, f"{name}/{path.name}", path) for path in sorted(within.glob(f"{ON_ITS_WAY_OUT}*"))]


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if not path.is_dir():
        return path.lstat().st_size if path.exists() else 0
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir() or file.is_symlink())
