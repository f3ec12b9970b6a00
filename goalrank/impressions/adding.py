"""More days for logs that an earlier import of impressions wrote: what that knew, and how the new days get in.

A closed partition never changes: only days after the newest one that is there are added, each of them whole, its
requests last (a day without requests has not arrived). An addition that was killed is made up by typing it again.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from goalrank.errors import DataRefused, UsageError
from goalrank.impressions.completion import TRAILING_DAYS
from goalrank.schema import LOG_TABLES

_LAST = "requests"
KIND = "impressions"


@dataclass(frozen=True)
class Earlier:
    """What is known from earlier imports into the same logs; empty for new ones."""

    logs: Path | None = None
    last: date | None = None
    topics: dict[str, int] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, logs: Path) -> Earlier:
        """What the folder's logs tell.

        Raises:
            UsageError: no import of impressions wrote it.
            DataRefused: one did, but part of it is gone.
        """
        try:
            document = json.loads((logs / "import.json").read_text(encoding="utf-8"))
            if document["kind"] != KIND:
                raise ValueError(document["kind"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(
                f"{logs} holds no logs that `goalrank import csv` wrote, expected some to add days to; "
                "take --add out to write new ones"
            ) from None
        days = sorted(folder.name.removeprefix("dt=") for folder in (logs / _LAST).glob("dt=????-??-??"))
        if lacking := [key for key in ("counts", "days") if not isinstance(document.get(key), dict)]:
            raise _damaged(logs, f"an import.json without {lacking[0]!r}")
        if not days:
            raise _damaged(logs, "no day of requests/")
        file = logs / "topic_ids.parquet"
        topics = {row["original"]: row["id"] for row in pq.read_table(file).to_pylist()} if file.exists() else {}
        return cls(logs, date.fromisoformat(days[-1]), topics, document)

    def numbered(self, kind: str) -> bool | None:
        """Were ids of that kind ("user", "item") numbered? None where there is nothing earlier."""
        return None if self.logs is None else (self.logs / f"{kind}_ids.parquet").exists()

    def _partitions(self, table: str) -> list[tuple[date, Path]]:
        """Whole days of a table, oldest first: what lies beyond is of an addition that was killed."""
        if self.logs is None or self.last is None:
            return []
        folders = ((date.fromisoformat(f.name.removeprefix("dt=")), f) for f in (self.logs / table).glob("dt=*"))
        return sorted((day, folder) for day, folder in folders if day <= self.last)

    def requests(self) -> set[str]:
        """Ids of the lists of the newest day, and of the one before it, whose lists may reach into that."""
        return {
            request
            for _, folder in self._partitions(_LAST)[-2:]
            for request in pq.read_table(folder, columns=["request_id"], partitioning=None)["request_id"].to_pylist()
        }

    def announced(self, table: str) -> npt.NDArray[np.int64]:
        """Ids that the table of items or of users holds already."""
        column = f"{table[:-1]}_id"
        found = [
            pq.read_table(folder, columns=[column], partitioning=None)[column].to_numpy()
            for _, folder in self._partitions(table)
        ]
        return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *found]))

    def items(self) -> list[str]:
        """The file's own ids of all items so far: new lists may get any of them as candidates."""
        if self.logs is None:
            return []
        file = self.logs / "item_ids.parquet"
        if file.exists():
            return pq.read_table(file)["original"].to_pylist()
        return [str(item) for item in self.announced("items").tolist()]

    def shown_and_clicked(
        self, item_id_I: npt.NDArray[np.int64]
    ) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Of each item how often it was shown on each of the last TRAILING_DAYS, and shown and clicked in all."""
        shown_I, clicked_I = np.zeros(len(item_id_I)), np.zeros(len(item_id_I))
        trailing: list[npt.NDArray[np.int32]] = []
        if self.logs is None or self.last is None:
            return trailing, shown_I, clicked_I
        order = np.argsort(item_id_I)
        for day, folder in self._partitions("impressions"):
            rows = pq.read_table(folder, columns=["item_id", "click"], partitioning=None)
            id_S, click_S = rows["item_id"].to_numpy(), rows["click"].to_numpy()
            at_S = order[np.minimum(np.searchsorted(item_id_I[order], id_S), max(len(order) - 1, 0))]
            known_S = item_id_I[at_S] == id_S
            day_I = np.bincount(at_S[known_S], minlength=len(item_id_I))
            shown_I += day_I
            clicked_I += np.bincount(at_S[known_S], weights=click_S[known_S], minlength=len(item_id_I))
            if day > self.last - timedelta(days=TRAILING_DAYS):
                trailing.append(day_I.astype(np.int32))
        return trailing, shown_I, clicked_I


def _damaged(logs: Path, found: str) -> DataRefused:
    return DataRefused(
        f"{logs}: {found} found, expected logs as `goalrank import csv` wrote them; "
        "restore them, or import all days anew into another folder"
    )


@contextmanager
def added_to(logs: Path) -> Iterator[Path]:
    """A folder beside the logs to write in; on leaving, its days become days of the logs."""
    logs = Path(os.path.abspath(logs))
    aside = logs.with_name(f"{logs.name}.partial-{uuid.uuid4().hex[:8]}")
    aside.mkdir()
    try:
        yield aside
        for file in aside.glob("*_ids.parquet"):  # first: a number must never stand in the logs without its original
            os.replace(file, logs / file.name)
        for day in sorted({folder.name for folder in aside.glob("*/dt=*")}):
            for table in sorted(LOG_TABLES, key=lambda name: name == _LAST):
                if (aside / table / day).is_dir():
                    target = logs / table / day
                    target.parent.mkdir(exist_ok=True)
                    if target.exists():  # of an addition that was killed before the day's requests were in
                        shutil.rmtree(target)
                    os.rename(aside / table / day, target)
        os.replace(aside / "import.json", logs / "import.json")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
