"""What makes two extractions the same: code version, configuration, the chain of days' contents, the snapshot id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.extract_features import erasures
from goalrank import schema

_DECIDES_ROWS = (
    "advance.py",
    "content.py",
    "erasures.py",
    "examples.py",
    "item_features.py",
    "log_partitions.py",
    "user_features.py",
    "version.py",
)
"""The files whose text is the extraction's code version. Where and how rows are stored is not part of it."""

EMPTY_CHAIN = ""


def configuration(window_days: int, erased: Sequence[int] = ()) -> dict[str, Any]:
    """Everything besides logs and code that a snapshot's rows depend on."""
    from components.extract_features.item_features import STATS_DAYS

    return {
        "window_days": window_days,
        "history_length": schema.HISTORY_LENGTH,
        "topic_buckets": schema.TOPIC_BUCKETS,
        "lateness_days": schema.LATENESS_DAYS,
        "stats_days": STATS_DAYS,
        **erasures.configuration(erased),
    }


def code_version() -> str:
    """16 hex digits over the source of the extraction and the contracts it fulfils, not over the commit."""
    digest = hashlib.sha256()
    for name in _DECIDES_ROWS:
        digest.update((Path(__file__).parent / name).read_bytes())
    contracts = {**schema.LOG_TABLES, schema.__name__: schema.EXAMPLES}
    contracts.update({name: view.schema for name, view in schema.FEATURE_VIEWS.items()})
    for name, columns in contracts.items():
        digest.update(f"{name}\n{columns.to_string(show_schema_metadata=False)}\n".encode())
    return digest.hexdigest()[:16]


def chained(before: str, days: list[tuple[str, str]]) -> str:
    """The chain's digest after more days, each (dt, content digest); `before` is EMPTY_CHAIN or an earlier chain."""
    for dt, content in days:
        before = hashlib.sha256(f"{before}\n{dt}\n{content}".encode()).hexdigest()
    return before


def snapshot_id(chain: str, code: str, config: dict[str, Any]) -> str:
    """16 hex digits: the same for the same days, code and configuration, however the rows were made."""
    document = json.dumps([chain, code, config], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()[:16]
