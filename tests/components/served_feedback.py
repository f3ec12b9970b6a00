"""Served logs of a made-up service: users held back as planned, clicks by a rate for each version, in the contract."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import registry
from components.serve_model.holdback import RETRIEVER_POLICY, held_back
from goalrank import schema

POSITIONS = 3


FAILED_RATE = 0.02
"""Clicks on the retriever's order."""


def rows(
    rng: np.random.Generator,
    start: datetime,
    requests: int,
    users: int,
    versions: tuple[str, str],
    rates: tuple[float, float],
    holdback: float,
    name: str,
    seconds: float = 600.0,
    failing: float = 0.0,
) -> dict[str, list[dict[str, Any]]]:
    """Requests and impressions of one batch; versions and click rates are (champion, predecessor).

    Users click at rates of their own around their version's, so that a user's requests share tastes. The champion fails
    on a share of users, always the same ones: they get the retriever's order.
    """
    user_R = rng.integers(1, users + 1, requests)
    back_R = np.array([held_back(user, *versions, holdback) for user in user_R.tolist()])
    taste_R = np.random.default_rng(11).uniform(0.5, 1.5, users + 1)[user_R]
    fails_R = ~back_R & (np.random.default_rng(13).random(users + 1) < failing)[user_R]
    rate_R = np.select([back_R, fails_R], [rates[1], FAILED_RATE], rates[0]) * taste_R
    policy_R = np.where(back_R, *(f"{registry.RANKER}:{version}" for version in reversed(versions)))
    policy_R = np.where(fails_R, RETRIEVER_POLICY, policy_R)
    at_R = np.sort(rng.uniform(0, seconds, requests))
    found: dict[str, list[dict[str, Any]]] = {"requests": [], "impressions": []}
    for number in range(requests):
        request = f"{name}-{number}"
        found["requests"].append(
            {
                "request_id": request,
                "user_id": int(user_R[number]),
                "event_time": start + timedelta(seconds=float(at_R[number])),
                "candidates": list(range(1, 7)),
                "candidate_scores": [0.0] * 6,
                "policy": str(policy_R[number]),
            }
        )
        clicks = rng.random(POSITIONS) < rate_R[number]
        for position in range(1, POSITIONS + 1):
            clicked = bool(clicks[position - 1])
            row = {"request_id": request, "position": position, "item_id": position, "propensity": None}
            row |= {"click": int(clicked), "like": 0, "watch_seconds": 6.0 if clicked else None}
            found["impressions"].append(row)
    return found


def write(served: Path, batch: dict[str, list[dict[str, Any]]], name: str) -> None:
    """One more file of each table, in the partition of the batch's day."""
    day = batch["requests"][0]["event_time"].date().isoformat()
    for table, content in batch.items():
        folder = served / table / f"dt={day}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = pa.Table.from_pylist(content, schema=schema.LOG_TABLES[table])
        pq.write_table(rows, folder / f"served-{name}.parquet")
