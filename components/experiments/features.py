"""Requests of days to come with the features the online store has now: what the ranking service would read.

The store is read once, so all days of an experiment see the features of the last night that materialised; users and
items that are newer than that have none, as they would have none online.

Legend: R requests of a day, B of them, N candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from components.feature_store import online_rows
from goalrank.dataset import RequestBatch, assemble
from goalrank.features import encode_items, encode_users
from goalrank.simulator import Requests, WorldConfig
from goalrank.simulator.world import FIRST_ITEM_ID, FIRST_USER_ID

if TYPE_CHECKING:
    from feast import FeatureStore

_KEYS_A_READ = 2000


class OnlineFeatures:
    """Features of every user and item that the world has until some day, by their rows in the world."""

    def __init__(self, store: FeatureStore, config: WorldConfig, last_day: int) -> None:
        """Read and encode them.

        Raises:
            TryAgain: the online store is away.
        """
        self._users = encode_users(_rows(store, "user_id", FIRST_USER_ID, config.user_count(last_day)))
        self._items = encode_items(_rows(store, "item_id", FIRST_ITEM_ID, config.item_count(last_day)))

    def __call__(self, requests: Requests, rows_B: np.ndarray) -> RequestBatch:
        """A batch of some of a day's requests; candidates in the day's order."""
        item_BN = requests.item_RN[rows_B]
        mask_BN = np.ones(item_BN.shape, dtype=bool)
        return assemble(self._users, self._items, requests.user_R[rows_B], item_BN, requests.score_RN[rows_B], mask_BN)


def _rows(store: FeatureStore, entity: str, first: int, count: int) -> pa.Table:
    """Online rows of ids first..first + count - 1."""
    ids = range(first, first + count)
    parts = [online_rows(store, entity, ids[start : start + _KEYS_A_READ]) for start in range(0, count, _KEYS_A_READ)]
    return pa.concat_tables(parts)
