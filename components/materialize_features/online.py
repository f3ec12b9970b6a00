"""The online store: the newest row of every entity up to the midnight after the night's date.

A night that goes on from the last one writes only rows newer than that; any other night (a rebuilt day, an older date,
a first night) writes every entity's newest row. Entities that the snapshot no longer knows get empty rows, so that what
is online equals, entity by entity, what the offline store knows. Reads of other processes go on meanwhile.

FEAST/online.json says what is online: the snapshot and its folder, or, from the first row written until the stores have
been compared, and after that was cut short or refused, the folders that `may` have entities online.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.dask_tokens import cheap_list_tokens
from components.extract_features.snapshots import Snapshot
from components.feature_store import online_rows, reaching_store
from components.materialize_features.offline import FILE
from components.step import write_atomic
from goalrank import schema
from goalrank.errors import TryAgain

if TYPE_CHECKING:
    from feast import FeatureStore

RECORD = "online.json"

CHECKED_ENTITIES = 200
"""Entities of each kind whose online rows are read back and compared after writing."""


def end_of(date: str) -> datetime:
    """The midnight (UTC) that ends a day: the event_timestamp of the feature rows it made."""
    return datetime.fromisoformat(date).replace(tzinfo=UTC) + timedelta(days=1)


def materialize_online(
    store: FeatureStore, snapshot: Snapshot, folder: Path, feast_uri: str, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Bring the online store to the state of `snapshot`, whose offline folder is `folder`.

    The record only says afterwards that these entities `may` be online: :func:`record_online` has the last word, once
    the rows have been compared.

    Returns:
        figures: "mode" (new_rows or all_rows), "emptied" (entities written empty).

    Raises:
        TryAgain: the online store is away, or does not hold afterwards what was written.
    """
    before = read_record(feast_uri)
    may = [*before.get("may", []), *([before["folder"]] if "folder" in before else [])]
    new_rows = "folder" in before and _goes_on(before, snapshot)
    figures: dict[str, Any] = {"mode": "new_rows" if new_rows else "all_rows", "emptied": 0}
    # Should the process die from here on, the next night writes all rows and knows which entities may be online.
    _write_record(feast_uri, {"may": sorted({*may, str(folder)})})
    with reaching_store():
        _let_readers_go_on(store)
        first = end_of(before["date"]) + timedelta(microseconds=1) if new_rows else _oldest(folder)
        _materialize(store, first, end_of(snapshot.date), progress)
        figures["emptied"] = _empty_forgotten(store, [Path(earlier) for earlier in may], folder)
        if new_rows and _differing(store, folder):
            figures["mode"] = "all_rows"  # the store lost what an earlier night wrote
            _materialize(store, _oldest(folder), end_of(snapshot.date), progress)
        wrong = _differing(store, folder)
    if wrong:
        raise TryAgain(
            f"the online store does not hold what was written: {wrong}; check that it is not being emptied or "
            "written to by somebody else, and run again"
        )
    return figures


def record_online(feast_uri: str, snapshot: Snapshot, folder: Path) -> None:
    """Say that what is online is `snapshot`, and right: the next night may go on from it instead of writing all rows.

    Servers read their kept rows anew when this changes.
    """
    document = {
        "snapshot_id": snapshot.snapshot_id,
        "date": snapshot.date,
        "folder": str(folder),
        "days": {day["dt"]: [day["path"], day.get("content", "")] for day in snapshot.manifest["days"]},
    }
    _write_record(feast_uri, document)


def have_servers_read_anew(feast_uri: str) -> None:
    """Change the record without changing what it says, after rows were written by another way than a night's."""
    if record := read_record(feast_uri):
        _write_record(feast_uri, record)


def read_record(feast_uri: str | Path) -> dict[str, Any]:
    """What FEAST/online.json says; {} before the first night."""
    record = Path(feast_uri) / RECORD
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def _write_record(feast_uri: str | Path, document: dict[str, Any]) -> None:
    write_atomic(Path(feast_uri) / RECORD, json.dumps(document, indent=1))


def _goes_on(before: dict[str, Any], snapshot: Snapshot) -> bool:
    """True where the snapshot only adds days to what is online."""
    now = {day["dt"]: [day["path"], day.get("content", "")] for day in snapshot.manifest["days"]}
    old = before["days"]
    shared = old.keys() & now.keys()
    return (
        before["date"] < snapshot.date
        and before["date"] in shared
        and all(old[day] == now[day] for day in shared)
        and all(day > before["date"] for day in now.keys() - shared)
        and Path(before["folder"]).is_dir()
    )


def _let_readers_go_on(store: FeatureStore) -> None:
    """SQLite's write-ahead log: readers see the last commit instead of waiting for the writer."""
    config = store.config.online_store
    if config.type == "sqlite":
        Path(config.path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(config.path)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()


def _materialize(store: FeatureStore, first: datetime, last: datetime, progress: Callable[[str], None]) -> None:
    # Feast prints its progress to standard output, which is for results.
    with cheap_list_tokens(), contextlib.redirect_stdout(sys.stderr):
        for name in schema.FEATURE_VIEWS:
            progress(f"online: {name}")
            if first <= last:
                store.materialize(first, last, feature_views=[name])


def _oldest(folder: Path) -> datetime:
    times = [
        pc.min(pq.read_table(folder / view / FILE, columns=["event_timestamp"])["event_timestamp"]).as_py()
        for view in schema.FEATURE_VIEWS
    ]
    return min((time for time in times if time is not None), default=datetime(1970, 1, 1, tzinfo=UTC))


def _empty_forgotten(store: FeatureStore, before: list[Path], now: Path) -> int:
    """Write rows without values for entities that the folders materialised before had and this one has not."""
    emptied = 0
    for view in schema.FEATURE_VIEWS.values():
        known = _keys(now, view)
        gone = np.unique(np.concatenate([known[:0], *(np.setdiff1d(_keys(folder, view), known) for folder in before)]))
        if len(gone):
            write_empty(store, view, gone.tolist())
            emptied += len(gone)
    return emptied


def write_empty(store: FeatureStore, view: schema.FeatureView, keys: list[int]) -> None:
    """Write online rows without values: readers then find nothing known of these entities."""
    from feast.infra.provider import get_provider
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    stamp = datetime.now(UTC)
    nothing = {field.name: Value() for field in view.features}
    rows: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]] = [
        (EntityKey(join_keys=[view.entity], entity_values=[Value(int64_val=int(key))]), nothing, stamp, stamp)
        for key in keys
    ]
    get_provider(store.config).online_write_batch(
        store.config, store.get_feature_view(view.name), rows, lambda written: None
    )


def _keys(folder: Path, view: schema.FeatureView) -> np.ndarray:
    path = folder / view.name / FILE
    if not path.is_file():
        return np.empty(0, np.int64)
    return np.unique(pq.read_table(path, columns=[view.entity])[view.entity].to_numpy())


def _differing(store: FeatureStore, folder: Path) -> str:
    """'' where the online rows of some entities, spread over all, are the newest of the folder; else what differs."""
    for view in schema.FEATURE_VIEWS.values():
        keys = _keys(folder, view)
        chosen = keys[np.unique(np.linspace(0, len(keys) - 1, min(CHECKED_ENTITIES, len(keys))).astype(int))]
        if len(chosen) == 0:
            continue
        rows = pq.read_table(folder / view.name / FILE, filters=[(view.entity, "in", chosen.tolist())])
        rows = rows.sort_by([("event_timestamp", "ascending"), ("created_timestamp", "ascending")])
        newest = {row[view.entity]: row for row in rows.to_pylist()}
        names = [field.name for field in view.features]
        for row in online_rows(store, view.entity, chosen.tolist()).select([view.entity, *names]).to_pylist():
            expected = {name: newest[row[view.entity]][name] for name in names}
            found = {name: row[name] for name in names}
            if not _same(found, expected):
                return f"{view.name} of {view.entity} {row[view.entity]} is {found}, expected {expected}"
    return ""


def _same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Equal, an empty list counting as no list: Feast's value of an empty list is no value."""
    return all((found[name] or None) == (expected[name] or None) or found[name] == expected[name] for name in expected)
