"""What extraction leaves behind, for everybody who reads it: a manifest a date, Parquet folders that never change.

    SNAPSHOTS/manifests/<date>.json          the commit: what is not named in a manifest does not exist
    SNAPSHOTS/data/<id>/days/<day>/<table>/  feature rows (one folder a view of schema.FEATURE_VIEWS) and examples
    SNAPSHOTS/data/<id>/base/<view>/         the newest row of every entity from the days before the window
    SNAPSHOTS/data/<id>/state/<table>/       what the next night starts from; nobody else reads it
    SNAPSHOTS/passed/<id>.json               the features passed check_features, which writes and reads this mark

A manifest names the days of its window, each with the folder it lies in, which may belong to an earlier snapshot. The
base keeps entities known that were last touched before the window: without it a quiet item would turn unknown.
Day folders are not named `dt=...`, since readers that infer Hive partitions would add a column to the files' own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from components.extract_features import locations
from components.step import write_atomic
from goalrank import schema
from goalrank.errors import DataRefused

FORMAT = 1
EXAMPLES_TABLE = "examples"
TABLES = {**{name: view.schema for name, view in schema.FEATURE_VIEWS.items()}, EXAMPLES_TABLE: schema.EXAMPLES}
"""Every table of a day's folder and its columns."""


@dataclass(frozen=True)
class Snapshot:
    """One committed snapshot: `root` is SNAPSHOTS, `manifest` the document committed for its date."""

    root: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, artifact_path: str | Path) -> Snapshot:
        """The snapshot a step was handed: the JSON artifact {"root", "manifest"}.

        Raises:
            DataRefused: the file is not such an artifact.
        """
        document = _read_json(Path(artifact_path))
        if not {"root", "manifest"} <= document.keys():
            raise DataRefused(
                f"{artifact_path} holds {sorted(document)}, expected root and manifest: a snapshot artifact"
            )
        return cls(Path(document["root"]), _checked(document["manifest"], str(artifact_path)))

    @classmethod
    def read(cls, root: str | Path, date: str) -> Snapshot:
        """The snapshot committed for `date`.

        Raises:
            DataRefused: there is none, or its manifest cannot be read.
        """
        path = manifest_path(root, date)
        if not path.exists():
            raise DataRefused(
                f"no snapshot of {date} under {root}, found {dates(root) or 'none'}; run extract_features for {date}"
            )
        return cls(Path(root), _checked(_read_json(path), str(path)))

    def save(self, artifact_path: str | Path) -> None:
        """Write the artifact that later steps load."""
        write_atomic(Path(artifact_path), json.dumps({"root": str(self.root), "manifest": self.manifest}, indent=1))

    @property
    def date(self) -> str:
        """The night's date, also its newest arrival day (YYYY-MM-DD)."""
        return str(self.manifest["date"])

    @property
    def snapshot_id(self) -> str:
        """16 hex digits: digest of the inputs' content, the extraction's code version and its configuration."""
        return str(self.manifest["snapshot_id"])

    @property
    def days(self) -> list[str]:
        """Arrival days of the window, oldest first (YYYY-MM-DD)."""
        return [day["dt"] for day in self.manifest["days"]]

    def view_paths(self, view: str, days: Iterable[str] | None = None) -> list[str]:
        """Parquet files of a feature view, oldest first: the base, then each day of the window (or only `days`)."""
        if view not in schema.FEATURE_VIEWS:
            raise DataRefused(f"feature view {view!r} asked for, a snapshot holds {', '.join(schema.FEATURE_VIEWS)}")
        base = self.manifest.get("base")
        old = _parquet_files(self.root / base["path"] / view) if base and days is None else []
        return old + self._day_files(view, days)

    def examples_paths(self, days: Iterable[str] | None = None) -> list[str]:
        """Parquet files of the examples of the window, or of the named arrival days, oldest first."""
        return self._day_files(EXAMPLES_TABLE, days)

    def read_view(self, view: str, days: Iterable[str] | None = None) -> pa.Table:
        """Rows of a feature view in its contract's columns and types; without `days` the base and the whole window."""
        return read_files(self.view_paths(view, days), schema.FEATURE_VIEWS[view].schema)

    def read_examples(self, days: Iterable[str] | None = None) -> pa.Table:
        """Examples (schema.EXAMPLES), sorted by (event_time, request_id) within each day."""
        return read_files(self.examples_paths(days), schema.EXAMPLES)

    def size(self) -> int:
        """Bytes of the window's views and examples on disk."""
        views = [file for view in schema.FEATURE_VIEWS for file in self.view_paths(view)]
        return locations.bytes_of(map(Path, (*views, *self.examples_paths())))

    def problem(self) -> str:
        """Why this snapshot's files cannot be used ('' if they can): missing folders or rows."""
        wanted = [(day["path"], day["rows"]) for day in self.manifest["days"]]
        if base := self.manifest.get("base"):
            wanted.append((base["path"], base["rows"]))
        wanted.append((self.manifest["state"], self.manifest["state_rows"]))
        for path, tables in wanted:
            for table, rows in tables.items():
                found = count_rows(self.root / path / table)
                if found != rows:
                    return f"{path}/{table} holds {found} rows, its manifest says {rows}"
        return ""

    def _day_files(self, table: str, days: Iterable[str] | None) -> list[str]:
        folders = {day["dt"]: self.root / day["path"] / table for day in self.manifest["days"]}
        chosen = self.days if days is None else sorted(days)
        unknown = [day for day in chosen if day not in folders]
        if unknown:
            raise DataRefused(f"days {unknown} asked of snapshot {self.snapshot_id}, it holds {self.days}")
        return [file for day in chosen for file in _parquet_files(folders[day])]


def manifest_path(root: str | Path, date: str) -> Path:
    """Where the manifest of a date is committed."""
    return Path(root) / "manifests" / f"{date}.json"


def dates(root: str | Path) -> list[str]:
    """Dates with a committed manifest, oldest first."""
    return sorted(path.stem for path in (Path(root) / "manifests").glob("[0-9]*.json"))


def readable_before(root: str | Path, date: str) -> Iterator[Snapshot]:
    """Snapshots of days before `date`, newest first; a manifest that cannot be read is passed over."""
    for earlier in reversed([found for found in dates(root) if found < date]):
        try:
            yield Snapshot.read(root, earlier)
        except DataRefused:
            continue


def read_files(files: list[str], columns: pa.Schema) -> pa.Table:
    """Rows of Parquet files in the contract's columns and types, in the files' order."""
    if not files:
        return columns.empty_table()
    return ds.dataset(files, schema=columns, format="parquet").to_table()


def count_rows(folder: Path) -> int | None:
    """Rows of a folder's Parquet files by their footers; None where the folder or a footer is damaged or missing."""
    files = _parquet_files(folder)
    try:
        return sum(pq.read_metadata(file).num_rows for file in files) if files else None
    except (pa.ArrowException, OSError, ValueError):
        return None


def _parquet_files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.parquet"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path} cannot be read as JSON ({error}); run extract_features again") from error
    if not isinstance(document, dict):
        raise DataRefused(
            f"{path} holds a {type(document).__name__}, expected a JSON object; run extract_features again"
        )
    return document


def _checked(manifest: dict[str, Any], where: str) -> dict[str, Any]:
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise DataRefused(f"{where}: snapshot format {found!r} found, expected {FORMAT}; run extract_features again")
    expected = {"date", "snapshot_id", "days"}
    if not expected <= manifest.keys():
        missing = sorted(expected - manifest.keys())
        raise DataRefused(f"{where}: the manifest lacks {missing}; run extract_features again")
    return manifest
