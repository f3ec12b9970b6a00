"""Request ids that clients chose, of the last days: a client that tried again may have reached another process.

Each process of the service refuses what it has answered itself, for LATENESS_DAYS after the day; what two of them
answered meets only in the files. Ids the service makes are unique and are not kept. An id takes eight bytes.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from components.serve_model.bodies import ISSUED_PREFIX
from goalrank.schema import LATENESS_DAYS


class SeenIds:
    """What was added on the last LATENESS_DAYS + 1 days of arrival."""

    def __init__(self) -> None:
        self._hashes: dict[str, np.ndarray] = {}
        """Of each day, sorted."""

    def repeated(self, ids: pa.ChunkedArray) -> np.ndarray:
        """bool [R]: this id was added before."""
        hash_R = _hashes(ids)
        found_R = np.zeros(len(hash_R), dtype=bool)
        for known in self._hashes.values():
            at_R = np.minimum(np.searchsorted(known, hash_R), len(known) - 1)
            found_R |= known[at_R] == hash_R
        return found_R & (hash_R != 0)

    def add(self, day: str, ids: pa.ChunkedArray) -> None:
        """Keep the ids of requests that arrived on `day`, YYYY-MM-DD."""
        new = np.unique(_hashes(ids))
        if new.any():
            known = self._hashes.get(day, np.empty(0, dtype=new.dtype))
            self._hashes[day] = np.insert(known, np.searchsorted(known, new), new)
        oldest = (date.fromisoformat(max([day, *self._hashes])) - timedelta(days=LATENESS_DAYS)).isoformat()
        self._hashes = {day: known for day, known in self._hashes.items() if day >= oldest}


def _hashes(ids: pa.ChunkedArray) -> np.ndarray:
    """int64 [R], of this process only: 0 for an id that the service made."""
    return np.array([0 if one.startswith(ISSUED_PREFIX) else hash(one) for one in ids.to_pylist()], dtype=np.int64)
