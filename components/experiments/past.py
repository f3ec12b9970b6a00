"""What the world's users did before an experiment, from the workspace's logs: what values are adjusted for."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank.ab_simulation import metrics_of
from goalrank.schema import LIST_LENGTH
from goalrank.simulator import Feedback

DAYS = 14
"""Arrival days read, the newest that the night's features know the last."""


def before(logs: Path, last: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """User and metrics of every list that arrived with its request in the DAYS days up to `last`: (R,) each.

    Rows that arrived a day after their request are passed over: a few in a thousand.
    """
    users, values = [], []
    for back in range(DAYS - 1, -1, -1):
        day = (date.fromisoformat(last) - timedelta(days=back)).isoformat()
        requests, impressions = (_rows(logs / table / f"dt={day}") for table in ("requests", "impressions"))
        if requests is None or impressions is None:
            continue
        # A request that was repeated would be counted with each of its rows.
        _, first = np.unique(requests["request_id"].to_numpy(zero_copy_only=False).astype(str), return_index=True)
        requests = requests.take(pa.array(np.sort(first)))
        users.append(requests["user_id"].to_numpy())
        values.append(metrics_of(_feedback(requests, impressions)))
    if not users:
        return np.zeros(0, dtype=np.int64), {}
    metrics = {metric: np.concatenate([one[metric] for one in values]) for metric in values[0]}
    return np.concatenate(users), metrics


def _rows(partition: Path) -> pa.Table | None:
    files = sorted(partition.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files]) if files else None


def _feedback(requests: pa.Table, impressions: pa.Table) -> Feedback:
    """What was done with each request's list, (R, L); 0 where nothing is known."""
    names = requests["request_id"].to_numpy(zero_copy_only=False).astype(str)
    order = np.argsort(names)
    asked = impressions["request_id"].to_numpy(zero_copy_only=False).astype(str)
    at = order[np.minimum(np.searchsorted(names[order], asked), len(names) - 1)]
    place = impressions["position"].to_numpy() - 1
    known = (names[at] == asked) & (place >= 0) & (place < LIST_LENGTH)
    filled = {}
    for column in ("click", "like", "watch_seconds"):
        values = np.nan_to_num(impressions[column].to_numpy(zero_copy_only=False).astype(np.float64))
        filled[column] = np.zeros((len(names), LIST_LENGTH))
        filled[column][at[known], place[known]] = values[known]
    return Feedback(**filled)
