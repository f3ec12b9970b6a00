"""A user's rows in Parquet files: finding them, counting them, rewriting files without them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.extract_features.snapshots import count_rows
from components.step import write_atomic
from goalrank.errors import DataRefused

USER, REQUEST = "user_id", "request_id"
_MAPPING, _MAPPED = "user_ids.parquet", "id"
"""An import's table of the ids that users had before: id, original."""


def requests_of(user_id: int, folders: list[Path]) -> set[str]:
    """Ids of the user's requests in every Parquet file below the folders."""
    found: set[str] = set()
    for path, columns in _files(folders):
        if USER in columns and REQUEST in columns:
            table = pq.read_table(path, columns=[USER, REQUEST], filters=[(USER, "==", user_id)], partitioning=None)
            found.update(table[REQUEST].to_pylist())
    return found


def erase(user_id: int, requests: set[str], folders: list[Path], dry_run: bool) -> dict[str, int]:
    """Rewrite every file below the folders without the user's rows; how many went, by kind of file.

    Files that know the user only by a request go first: after a kill, the ids can still be collected.
    """
    files = sorted(_files(folders), key=lambda file: _user_column(*file) is not None)
    counts: dict[str, int] = {}
    for path, columns in files:
        table = pq.read_table(path, partitioning=None) if _holds(path, columns, user_id, requests) else None
        if table is None:
            continue
        kept = table.filter(pc.invert(_theirs(path, table, user_id, requests)))
        kind = _kind(path, folders)
        counts[kind] = counts.get(kind, 0) + table.num_rows - kept.num_rows
        if not dry_run:
            _replace(path, kept)
    return counts


def holding(user_id: int, requests: set[str], folders: list[Path]) -> list[dict[str, Any]]:
    """Files below the folders with rows of the user, and how many."""
    found = []
    for path, columns in _files(folders):
        if rows := _holds(path, columns, user_id, requests):
            found.append({"file": str(path), "rows": rows})
    return sorted(found, key=lambda entry: entry["file"])


def recount(root: Path) -> None:
    """Give the manifests of snapshots the row counts their folders have now."""
    for path in [*sorted((root / "data").glob("*/manifest.json")), *sorted((root / "manifests").glob("*.json"))]:
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # nobody reads a damaged manifest, so nobody misses its counts
            continue
        before = json.dumps(manifest)
        parts = [*manifest["days"], *([manifest["base"]] if manifest.get("base") else [])]
        for part in parts:
            part["rows"] = _counted(root / part["path"], part["rows"])
        manifest["state_rows"] = _counted(root / manifest["state"], manifest["state_rows"])
        manifest["rows"] = {name: sum(day["rows"][name] for day in manifest["days"]) for name in manifest["rows"]}
        if json.dumps(manifest) != before:
            write_atomic(path, json.dumps(manifest, indent=1))


def _counted(folder: Path, rows: dict[str, int]) -> dict[str, int]:
    found = {table: count_rows(folder / table) for table in rows}
    return {table: rows[table] if count is None else count for table, count in found.items()}


def _files(folders: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Every Parquet file below the folders with its top-level columns.

    Raises:
        DataRefused: a file cannot be read, so nobody knows whether the user is in it.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*.parquet")):
            if not path.is_file():
                continue
            try:
                yield path, pq.read_schema(path).names
            except (pa.ArrowInvalid, OSError) as error:
                raise DataRefused(f"{path} cannot be read as Parquet ({error}); remove or restore it") from error


def _holds(path: Path, columns: list[str], user_id: int, requests: set[str]) -> int:
    """How many rows of a file are the user's."""
    wanted = [name for name in (_user_column(path, columns), REQUEST) if name in columns]
    if not wanted:
        return 0
    table = pq.read_table(path, columns=wanted, partitioning=None)
    return int(pc.sum(_theirs(path, table, user_id, requests)).as_py() or 0)


def _user_column(path: Path, columns: list[str]) -> str | None:
    """The column with users' ids, if there is one."""
    if path.name == _MAPPING and _MAPPED in columns:
        return _MAPPED
    return USER if USER in columns else None


def _theirs(path: Path, table: pa.Table, user_id: int, requests: set[str]) -> pa.ChunkedArray:
    """Which rows are the user's: by the user's id where there is one, else by the request's."""
    if column := _user_column(path, table.column_names):
        return pc.fill_null(pc.equal(table[column], user_id), False)
    return pc.is_in(table[REQUEST], value_set=pa.array(sorted(requests), table[REQUEST].type))


def _kind(path: Path, folders: list[Path]) -> str:
    """What a file is to people: its first folder and its table."""
    if path.name == _MAPPING:
        return "original ids"
    folder = next(folder for folder in folders if path.is_relative_to(folder))
    parts = path.relative_to(folder).parts[:-1]
    table = next((part for part in reversed(parts) if "=" not in part), folder.name)
    return f"{parts[0]}: {table}" if parts and parts[0] != table else table


def _replace(path: Path, table: pa.Table) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, aside)
    with open(aside, "rb") as written:
        os.fsync(written.fileno())
    os.replace(aside, path)
