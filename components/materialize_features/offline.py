"""The folder Feast's offline store reads: one Parquet file per feature view of a snapshot.

    FEAST/offline/<snapshot_id>/<view>/features.parquet

One file a view, not the snapshot's many: Feast's joins cost by the file (measured: 15 files take 7 times as long).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from components.extract_features.snapshots import Snapshot
from goalrank import schema
from goalrank.errors import DataRefused

FILE = "features.parquet"


def prepare_offline(snapshot: Snapshot, feast_uri: str) -> Path:
    """Write the offline folder of a snapshot aside and rename it; one that is there already is replaced.

    Returns:
        the folder, absolute.

    Raises:
        DataRefused: a view's files hold another number of rows than the manifest says, or break its schema.
    """
    folder = Path(feast_uri).resolve() / "offline" / snapshot.snapshot_id
    aside = folder.with_name(f".{snapshot.snapshot_id}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for view in schema.FEATURE_VIEWS.values():
            (aside / view.name).mkdir(parents=True)
            rows = _write_view(snapshot, view, aside / view.name / FILE)
            expected = expected_rows(snapshot, view.name)
            if rows != expected:
                raise DataRefused(
                    f"snapshot {snapshot.snapshot_id}: view {view.name} holds {rows} rows, its manifest says "
                    f"{expected}; run extract_features again with a full rebuild"
                )
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def expected_rows(snapshot: Snapshot, table: str) -> int:
    """Rows of a table by the manifest: the window's days and, for a view, the base before them."""
    parts = list(snapshot.manifest["days"])
    if snapshot.manifest["base"] and table in schema.FEATURE_VIEWS:
        parts.append(snapshot.manifest["base"])
    return sum(int(part["rows"].get(table, 0)) for part in parts)


def drop_older(feast_uri: str, keep: set[str]) -> None:
    """Remove the offline folders of all snapshots but those in `keep`."""
    for folder in (Path(feast_uri).resolve() / "offline").iterdir():
        if folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def _write_view(snapshot: Snapshot, view: schema.FeatureView, path: Path) -> int:
    files = snapshot.view_paths(view.name)
    rows = 0
    with pq.ParquetWriter(path, view.schema) as writer:
        if files:
            for batch in ds.dataset(files, schema=view.schema, format="parquet").to_batches():
                writer.write_batch(batch)
                rows += batch.num_rows
    return rows
