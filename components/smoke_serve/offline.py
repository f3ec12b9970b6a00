"""What the answers must be: the same requests ranked from the offline store, as of the moment that is online."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.feature_store import offline_rows
from components.materialize_features.skew import differences
from goalrank.schema import LIST_LENGTH

if TYPE_CHECKING:
    from feast import FeatureStore

    from goalrank.ranker import Ranker


def logged_requests(training_set: str, date: str, count: int) -> list[dict[str, Any]]:
    """At most `count` requests of the day, spread over it, as bodies of the ranking service."""
    columns = ["request_id", "user_id", "candidates", "candidate_scores"]
    path = Path(training_set) / "examples.parquet"
    table = pq.read_table(path, columns=columns, filters=[("dt", "=", date)]).sort_by("request_id")
    chosen = np.unique(np.linspace(0, table.num_rows - 1, min(count, table.num_rows)).astype(np.int64))
    return [
        {
            "request_id": row["request_id"],
            "user_id": row["user_id"],
            "candidates": [
                {"item_id": item, "score": score}
                for item, score in zip(row["candidates"], row["candidate_scores"], strict=True)
            ],
        }
        for row in table.take(pa.array(chosen)).to_pylist()
    ]


def keys_of(requests: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Every user and item of the requests, once."""
    items = {candidate["item_id"] for request in requests for candidate in request["candidates"]}
    return {"user_id": sorted({request["user_id"] for request in requests}), "item_id": sorted(items)}


def rows_as_of(store: FeatureStore, requests: list[dict[str, Any]], as_of: datetime) -> dict[str, pa.Table]:
    """Rows of all users and items of the requests as the offline store knew them then."""
    return {entity: offline_rows(store, entity, keys, as_of) for entity, keys in keys_of(requests).items()}


def skewed(store: FeatureStore, offline: dict[str, pa.Table]) -> list[str]:
    """Entities whose online features differ from the offline rows, each with the first feature that does."""
    first: dict[tuple[str, int], str] = {}
    for one in differences(store, offline):
        first.setdefault((one.entity, one.key), str(one))
    return list(first.values())


def lists_of(ranker: Ranker, requests: list[dict[str, Any]], offline: dict[str, pa.Table]) -> list[list[int]]:
    """Item ids of the ranker's greedy list for each request, one request at a time as the service does."""
    import torch

    from goalrank.dataset import assemble
    from goalrank.features import encode_items, encode_users

    row_of = {
        entity: {key: row for row, key in enumerate(table[entity].to_pylist())} for entity, table in offline.items()
    }
    users, items = encode_users(offline["user_id"]), encode_items(offline["item_id"])
    lists = []
    for request in requests:
        ids = [candidate["item_id"] for candidate in request["candidates"]]
        batch = assemble(
            users,
            items,
            np.array([row_of["user_id"][request["user_id"]]]),
            np.array([[row_of["item_id"][item] for item in ids]]),
            np.array([[candidate["score"] for candidate in request["candidates"]]], dtype=np.float64),
            np.ones((1, len(ids)), dtype=bool),
        )
        with torch.inference_mode():
            chosen_L = ranker.greedy(ranker.encode(batch), min(LIST_LENGTH, len(ids)))[0].tolist()
        lists.append([ids[index] for index in chosen_L])
    return lists
