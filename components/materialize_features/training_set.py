"""The training set: examples of the window, and one row of features per (user, day) and (item, day) they need.

Features are as of the midnight that starts a request's event day, by Feast's point-in-time join, once per (entity,
day): fifty candidates times every request never go through a join.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.extract_features.snapshots import Snapshot
from components.feature_store import offline_rows, views_of
from components.materialize_features.offline import FILE
from components.step import Step, write_atomic
from goalrank import schema
from goalrank.errors import DataRefused

if TYPE_CHECKING:
    from feast import FeatureStore

PAIRS_A_JOIN = 20_000
"""(entity, day) pairs in one of Feast's joins; each meets all its entity's rows in memory (about 40 bytes a value)."""


def write_training_set(
    store: FeatureStore, snapshot: Snapshot, folder: Path, out: str, window_days: int, step: Step
) -> None:
    """Write examples, users, items (Parquet) and training_set.json into the directory `out`.

    Args:
        store: with the snapshot's definitions applied.
        snapshot: examples of its last `window_days` arrival days are used.
        folder: the snapshot's offline folder, against which Feast's answers are checked.
        out: the training set artifact.
        step: told the progress, given the figures.

    Raises:
        DataRefused: no example, a request twice, rows missing, or Feast knows more or less than the folder holds.
    """
    days = snapshot.days[-window_days:]
    examples = _examples(snapshot, days)
    midnight = pc.floor_temporal(examples["event_time"], unit="day").combine_chunks()
    candidates = examples["candidates"].combine_chunks()
    request = pc.list_parent_indices(candidates)
    # The table of pairs, and for each request (each candidate) the row of its pair.
    users, user_row = _unique_pairs("user_id", examples["user_id"].combine_chunks(), midnight)
    items, item_row = _unique_pairs("item_id", candidates.flatten(), midnight.take(request))
    candidate_rows = pa.ListArray.from_arrays(_offsets(candidates), pa.array(item_row, pa.int32()))
    examples = examples.append_column(schema.TRAINING_EXAMPLES.field("user_row"), pa.array(user_row, pa.int32()))
    examples = examples.append_column(schema.TRAINING_EXAMPLES.field("candidate_rows"), candidate_rows)

    total = users.num_rows + items.num_rows
    tables = {}
    for entity, pairs, done in (("user_id", users, 0), ("item_id", items, users.num_rows)):
        parts = []
        for start in range(0, pairs.num_rows, PAIRS_A_JOIN):
            step.progress(done + start, total, f"point-in-time join of {entity}")
            part = pairs.slice(start, PAIRS_A_JOIN)
            parts.append(offline_rows(store, entity, part[entity].to_pylist(), part["as_of"].to_pylist()))
        tables[entity] = pa.concat_tables(parts)
        check_join(tables[entity], pairs, entity, folder)
    step.progress(total, total, "training set")

    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        examples.select(schema.TRAINING_EXAMPLES.names).cast(schema.TRAINING_EXAMPLES), directory / "examples.parquet"
    )
    pq.write_table(tables["user_id"], directory / "users.parquet")
    pq.write_table(tables["item_id"], directory / "items.parquet")
    card: dict[str, Any] = {
        "format": 1,
        "date": snapshot.date,
        "snapshot_id": snapshot.snapshot_id,
        "days": days,
        "rows": {"examples": examples.num_rows, "users": users.num_rows, "items": items.num_rows},
    }
    write_atomic(directory / "training_set.json", json.dumps(card, indent=1))
    step.figures.update({f"{name}_rows": count for name, count in card["rows"].items()})


def _examples(snapshot: Snapshot, days: list[str]) -> pa.Table:
    examples = snapshot.read_examples(days).sort_by([("event_time", "ascending"), ("request_id", "ascending")])
    listed = sum(int(day["rows"]["examples"]) for day in snapshot.manifest["days"] if day["dt"] in days)
    if examples.num_rows != listed:
        raise DataRefused(
            f"snapshot {snapshot.snapshot_id} holds {examples.num_rows} examples of {days[0]}..{days[-1]}, its "
            f"manifest says {listed}; run extract_features again with a full rebuild"
        )
    if examples.num_rows == 0:
        raise DataRefused(f"no example in {days[0]}..{days[-1]}, expected at least one request; check the logs")
    ids = examples["request_id"]
    if pc.count_distinct(ids).as_py() != examples.num_rows:
        twice = pc.value_counts(ids).filter(pc.greater(pc.value_counts(ids).field("counts"), 1))[0]["values"]
        raise DataRefused(f"request {twice} is in the snapshot twice, expected once; check the logs")
    return examples


def _offsets(lists: pa.ListArray) -> pa.Array:
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _unique_pairs(entity: str, keys: pa.Array, times: pa.Array) -> tuple[pa.Table, np.ndarray]:
    """Distinct (key, time) pairs sorted by time and key, and the row of each given pair among them."""
    ids, id_code = np.unique(keys.to_numpy(zero_copy_only=False), return_inverse=True)
    stamps, time_code = np.unique(times.cast(pa.int64()).to_numpy(zero_copy_only=False), return_inverse=True)
    codes, row = np.unique(time_code.astype(np.int64) * len(ids) + id_code, return_inverse=True)
    as_of = pa.array(stamps[codes // len(ids)], pa.int64()).cast(schema.TIMESTAMP)
    return pa.table({entity: pa.array(ids[codes % len(ids)], pa.int64()), "as_of": as_of}), row


def check_join(rows: pa.Table, pairs: pa.Table, entity: str, folder: Path) -> None:
    """Hold Feast's answer against the Parquet files it was made from: who was known when, neither more nor fewer.

    An entity is known to a view from its first row on (event and creation, whichever is later). A view's witness is a
    feature that is never null in its files, so a null there means "unknown".

    Raises:
        DataRefused: rows are missing, in another order, or known or unknown against the files.
    """
    if not rows.select([entity, "as_of"]).equals(
        pairs.select([entity, "as_of"]).cast(rows.select([entity, "as_of"]).schema)
    ):
        raise DataRefused(
            f"Feast's rows by {entity} are not the {pairs.num_rows} asked for (found {rows.num_rows}); "
            "this is a fault of the join, report it"
        )
    keys = pairs[entity].combine_chunks()
    as_of = pairs["as_of"].cast(pa.int64()).to_numpy()
    for view in views_of(entity):
        source = pq.read_table(folder / view.name / FILE)
        witness = next((field.name for field in view.features if source[field.name].null_count == 0), None)
        if witness is None or source.num_rows == 0:
            continue
        since = pc.max_element_wise(*(source[f"{time}_timestamp"].cast(pa.int64()) for time in ("event", "created")))
        first = pa.table({entity: source[entity], "since": since}).group_by(entity).aggregate([("since", "min")])
        where = pc.index_in(keys, value_set=first[entity].combine_chunks())
        since_of = first["since_min"].combine_chunks().take(where)
        known = pc.fill_null(pc.less_equal(since_of, pa.array(as_of)), False).to_numpy(zero_copy_only=False)
        answered = rows[witness].is_valid().to_numpy()
        wrong = np.flatnonzero(known != answered)
        if len(wrong):
            row = int(wrong[0])
            when = datetime.isoformat(pairs["as_of"][row].as_py())
            found, expected = ("a row", "none yet") if answered[row] else ("no row", "one")
            raise DataRefused(
                f"Feast gives {found} of {view.name} for {entity} {keys[row]} as of {when}, the snapshot has "
                f"{expected} ({len(wrong)} of {len(answered)} rows differ); run materialize_features again"
            )
