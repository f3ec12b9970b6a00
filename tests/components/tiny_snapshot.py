"""Writes small snapshots by the contract between steps, so that Feast's steps are tested without Spark."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank import schema


def midnight(day: str, plus: int = 0) -> datetime:
    return datetime.combine(date.fromisoformat(day) + timedelta(days=plus), datetime.min.time(), tzinfo=UTC)


def days_until(last: str, count: int) -> list[str]:
    return [(date.fromisoformat(last) - timedelta(days=back)).isoformat() for back in range(count - 1, -1, -1)]


def feature_row(view: schema.FeatureView, key: int, day: str, seed: int) -> dict[str, Any]:
    """One plausible row; its values depend on (view, key, day) only."""
    rng = np.random.default_rng([seed, key, date.fromisoformat(day).toordinal(), len(view.name)])
    row: dict[str, Any] = {
        view.entity: key,
        "event_timestamp": midnight(day, 1),
        "created_timestamp": midnight(day, 1),
    }
    length = int(rng.integers(1, schema.HISTORY_LENGTH))
    for field in view.features:
        if field.name == "attributes":
            row[field.name] = [f"age={20 + key % 5}", f"seen={day}"]
        elif field.name == "topic_clicks":
            row[field.name] = rng.integers(0, 9, schema.TOPIC_BUCKETS).tolist()
        elif field.name == "history_items":
            row[field.name] = rng.integers(1, 40, length).tolist()
        elif field.name == "history_topics":
            row[field.name] = (1 << rng.integers(0, schema.TOPIC_BUCKETS, length)).tolist()
        elif field.name == "topic_mask":
            row[field.name] = int(1 << (key % schema.TOPIC_BUCKETS))
        elif field.name == "title":
            row[field.name] = f"item {key}"
        elif pa.types.is_floating(field.type):
            row[field.name] = float(rng.integers(10, 300))
        else:
            row[field.name] = int(rng.integers(0, 1000))
    return row


def write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def example_rows(day: str, requests: int, users: int, items: int, seed: int, candidates: int = 12) -> list[dict]:
    rng = np.random.default_rng([seed, date.fromisoformat(day).toordinal()])
    rows = []
    for number in range(requests):
        offered = rng.choice(items, size=candidates, replace=False) + 1
        slate = offered[: schema.LIST_LENGTH]
        rows.append(
            {
                "request_id": f"{day}-{number:06d}",
                "user_id": int(rng.integers(1, users + 1)),
                "event_time": midnight(day) + timedelta(seconds=int(rng.integers(0, 86400))),
                "candidates": offered.tolist(),
                "candidate_scores": rng.normal(size=candidates).tolist(),
                "policy": "retriever",
                "dt": day,
                "slate": slate.tolist(),
                "propensities": [0.25] * len(slate),
                "clicks": rng.integers(0, 2, len(slate)).tolist(),
                "likes": [0] * len(slate),
                "watch_seconds": [1.5] * len(slate),
            }
        )
    return rows


def write_snapshot(
    root: Path,
    last: str = "2026-01-04",
    days: int = 3,
    users: int = 20,
    items: int = 40,
    requests: int = 30,
    seed: int = 0,
    extra: dict[tuple[str, str], list[dict]] | None = None,
    skip: dict[tuple[str, str], set[int]] | None = None,
    name: str = "s1",
) -> Path:
    """A snapshot under `root`; the path of its artifact. `extra` adds rows to (view, day), `skip` leaves keys out."""
    entries = []
    listed = days_until(last, days)
    for index, day in enumerate(listed):
        counts = {"examples": requests}
        content = f"{name}-{day}-{len(extra or {})}"
        folder = root / "days" / f"{day}-{name}"
        for view in schema.FEATURE_VIEWS.values():
            everyone = range(1, (users if view.entity == "user_id" else items) + 1)
            # Sparse views: everybody on the first day, then every second entity.
            keys = [key for key in everyone if view.dense_days or index == 0 or (key + index) % 2 == 0]
            left_out = (skip or {}).get((view.name, day), set())
            rows = [feature_row(view, key, day, seed) for key in keys if key not in left_out]
            rows += (extra or {}).get((view.name, day), [])
            counts[view.name] = len(rows)
            write(pa.Table.from_pylist(rows, schema=view.schema), folder / view.name / "part-0.parquet")
        examples = example_rows(day, requests, users, items, seed)
        write(pa.Table.from_pylist(examples, schema=schema.EXAMPLES), folder / "examples" / "part-0.parquet")
        entries.append({"dt": day, "path": f"days/{day}-{name}", "content": content, "rows": counts})
    manifest = {
        "format": 1,
        "date": last,
        "snapshot_id": f"{name}-{last}",
        "code_version": "test",
        "config": {},
        "mode": "full",
        "days": entries,
        "base": None,
        "state": "state",
        "state_rows": {},
        "chain": listed[0],
        "read": [],
        "rows": {},
    }
    path = root / "manifests" / f"{last}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    artifact = root / f"artifact-{name}-{last}.json"
    artifact.write_text(json.dumps({"root": str(root), "manifest": manifest}))
    return artifact
