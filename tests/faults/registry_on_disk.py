"""MLflow's registry read straight from its SQLite file.

MLflow's own client keeps connections open for as long as a process lives; a database that is put back under them would
be read as it was before.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def _rows(database: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def versions(database: Path, name: str) -> list[str]:
    """Numbers of the versions that are not deleted, ascending."""
    query = "SELECT version FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal' ORDER BY version"
    return [str(version) for (version,) in _rows(database, query, name)]


def tags(database: Path, name: str, version: str) -> dict[str, str]:
    """Tags of one version."""
    query = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
    return dict(_rows(database, query, name, version))


def alias(database: Path, name: str, wanted: str) -> str | None:
    """The version an alias points to."""
    query = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
    found = _rows(database, query, name, wanted)
    return str(found[0][0]) if found else None


def dates_of_runs(database: Path) -> list[str]:
    """The nights' dates of all runs that are there, deleted ones not."""
    query = "SELECT value FROM tags JOIN runs USING (run_uuid) WHERE key = 'date' AND lifecycle_stage = 'active'"
    return sorted(str(value) for (value,) in _rows(database, query))


def set_tag(database: Path, name: str, version: str, key: str, value: str) -> None:
    """Change a tag of a version."""
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "UPDATE model_version_tags SET value = ? WHERE name = ? AND version = ? AND key = ?"
        connection.execute(query, (value, name, version, key))


def drop_tag(database: Path, name: str, version: str, key: str) -> None:
    """Take a tag off a version."""
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "DELETE FROM model_version_tags WHERE name = ? AND version = ? AND key = ?"
        connection.execute(query, (name, version, key))
