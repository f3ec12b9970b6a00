"""Writing a snapshot so that readers see the old one or the new one: aside, renamed, committed by a manifest."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.extract_features.locations import for_spark
from components.extract_features.snapshots import Snapshot, count_rows, manifest_path
from components.step import write_atomic
from goalrank.errors import TryAgain

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PARTIAL = ".partial-"
_DAY = "_day"
_MANIFEST = "manifest.json"
WRITERS = 3
"""Tables written at a time: most of a small table's time is Spark's planning, which overlaps."""

DAY_IMPRESSIONS_A_FILE = 5_000_000
"""A day of more is written to several files, by as many tasks: one task could not sort it, nor use a cluster."""


@contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Hold the folder's lock (freed by the system if this process dies) and clear what a killed run left behind.

    Raises:
        TryAgain: another extraction is writing there.
    """
    data = root / "data"
    data.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryAgain(f"another extraction is writing under {root}; wait for it to end") from error
        for left in data.glob(f"*{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


class SnapshotWriter:
    """One snapshot being written under data/<snapshot_id>.partial-<pid>; nothing of it exists before :meth:`commit`."""

    def __init__(self, root: Path, snapshot_id: str) -> None:
        self.root = root
        self.partial = root / "data" / f"{snapshot_id}{_PARTIAL}{os.getpid()}"
        self.final = _free_name(root / "data" / snapshot_id)
        self._raw = self.partial / "raw"
        self._raw.mkdir(parents=True)

    @property
    def path(self) -> str:
        """The folder the snapshot will have, relative to SNAPSHOTS."""
        return f"data/{self.final.name}"

    def write(self, tables: dict[str, tuple[DataFrame, list[str]]], impressions: int = 0, days: int = 1) -> None:
        """Write frames, each with the columns it is sorted by, to one file per table, or per table and `day`.

        A name is where the rows go: "state/users" or, with a column `day`, "days/{day}/user_stats". Where `impressions`
        on `days` are many a day, there are several files, which read by name hold the same rows in the same order.
        """
        files = 1 + impressions // (days * DAY_IMPRESSIONS_A_FILE)
        with ThreadPoolExecutor(WRITERS) as pool:
            for future in [pool.submit(self._write, name, *table, files, days) for name, table in tables.items()]:
                future.result()

    def _write(self, name: str, frame: DataFrame, keys: list[str], files: int, days: int) -> None:
        from pyspark.sql import functions as F  # noqa: N812

        raw = self._raw / name.replace("/", "-")
        if "{day}" not in name:
            parts = frame.coalesce(1) if files == 1 else frame.repartitionByRange(files, *keys)
            parts.sortWithinPartitions(*keys).write.parquet(for_spark(raw))
            self._take(raw, self.partial / name)
            return
        rows = frame.withColumn(_DAY, F.date_format("day", "yyyy-MM-dd")).drop("day")
        parts = rows.repartition(_DAY) if files == 1 else rows.repartitionByRange(files * days, _DAY, *keys)
        parts.sortWithinPartitions(_DAY, *keys).write.partitionBy(_DAY).parquet(for_spark(raw))
        for folder in raw.glob(f"{_DAY}=*"):
            self._take(folder, self.partial / name.format(day=folder.name.removeprefix(f"{_DAY}=")))

    @staticmethod
    def _take(raw: Path, folder: Path) -> None:
        """Move Spark's files out from among its bookkeeping, under names that do not change from run to run."""
        folder.mkdir(parents=True)
        for number, file in enumerate(sorted(raw.glob("part-*.parquet"))):
            os.rename(file, folder / f"part-{number:05d}.parquet")

    def fill(self, folder: str, tables: dict[str, pa.Schema]) -> dict[str, int]:
        """Rows of each table in a folder of this snapshot; a table without rows gets an empty file of its columns."""
        for table, columns in tables.items():
            target = self.partial / folder / table
            if not target.exists():
                target.mkdir(parents=True)
                pq.write_table(columns.empty_table(), target / "part-00000.parquet")
        return self.rows(folder, list(tables))

    def rows(self, folder: str, tables: list[str]) -> dict[str, int]:
        """Rows of each table in a folder of this snapshot, by the files' footers."""
        return {table: count_rows(self.partial / folder / table) or 0 for table in tables}

    def commit(self, manifest: dict[str, Any]) -> Snapshot:
        """Make the snapshot the one of its date: first the data by a rename, then the manifest by another."""
        shutil.rmtree(self._raw)
        (self.partial / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        os.rename(self.partial, self.final)
        return commit_manifest(self.root, manifest)


def commit_manifest(root: Path, manifest: dict[str, Any]) -> Snapshot:
    """Make `manifest` the one of its date."""
    write_atomic(manifest_path(root, manifest["date"]), json.dumps(manifest, indent=1))
    return Snapshot(root, manifest)


def written_before(root: Path, snapshot_id: str) -> Snapshot | None:
    """A complete snapshot of this id that is on disk already, its manifest committed or not (a run killed between)."""
    for folder in sorted((root / "data").glob(f"{snapshot_id}*"), key=lambda path: (len(path.name), path.name)):
        try:
            found = Snapshot(root, json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
            if found.snapshot_id == snapshot_id and not found.problem():
                return found
        except (OSError, ValueError, KeyError):
            continue
    return None


def _free_name(path: Path) -> Path:
    """`path`, or path-2, path-3...: a rebuild of the same id never touches files that an older manifest may name."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
