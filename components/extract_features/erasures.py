"""Users whose data were asked to be erased: extraction reads their rows no more, from the next night on.

    SNAPSHOTS/erasures.json   {"format": 1, "users": [{"user_id", "asked_at"}, ...]}

The id itself stays on the list: without it the next rebuild from logs that still hold the user would bring them back.

Closed partitions of the logs never change, so the filter stands here. A request of an erased user keeps its id and
loses its user: impressions that arrive later still find it, and are left out with it. The list is part of the
configuration a snapshot id stands for, so the night after an erasure rebuilds from all days.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.step import write_atomic
from goalrank.errors import DataRefused

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FORMAT = 1
FILE = "erasures.json"
NOBODY = 0
"""What an erased user's requests are attributed to; ids start at schema.SMALLEST_ID."""


def read(root: Path) -> list[int]:
    """The erased users' ids, ascending.

    Raises:
        DataRefused: the list is damaged: nobody must come back because of that.
    """
    return sorted(user["user_id"] for user in _document(root)["users"])


def add(root: Path, user_id: int) -> None:
    """Put a user on the list, on disk before this returns; once is enough."""
    document = _document(root)
    if user_id not in [user["user_id"] for user in document["users"]]:
        document["users"].append({"user_id": user_id, "asked_at": datetime.now(UTC).isoformat(timespec="seconds")})
        write_atomic(root / FILE, json.dumps(document, indent=1))


def configuration(erased: Sequence[int]) -> dict[str, Any]:
    """What the list adds to the configuration of a snapshot: nothing as long as it is empty."""
    return {"erased": hashlib.sha256(json.dumps(sorted(erased)).encode()).hexdigest()[:16]} if erased else {}


def without(frame: DataFrame, table: str, erased: Sequence[int]) -> DataFrame:
    """Rows of a log table without the erased users: their requests belong to NOBODY, their profiles are gone."""
    from pyspark.sql import functions as F  # noqa: N812  (PySpark's own convention)

    if not erased or table not in ("requests", "users"):
        return frame
    is_erased = F.col("user_id").isin([int(user) for user in erased])
    if table == "users":
        return frame.where(~is_erased)
    return frame.withColumn("user_id", F.when(is_erased, F.lit(NOBODY).cast("bigint")).otherwise(F.col("user_id")))


def _document(root: Path) -> dict[str, Any]:
    path = root / FILE
    if not path.exists():
        return {"format": FORMAT, "users": []}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        known = document["format"] == FORMAT and all(type(user["user_id"]) is int for user in document["users"])
    except (OSError, ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise DataRefused(f"{path} is no list of erased users of format {FORMAT}; restore it from a backup")
    return document
