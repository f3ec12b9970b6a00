"""Feature rows of the requests in hand: read online in large pieces, encoded once, kept until a night brings new ones.

Features change when a night materialises or a user is erased, and not in between, so a row is kept until then
(OnlineReader.stamp), and in no case longer than `keep_seconds`: whoever writes to the store by other ways is seen by
that time. After a night the kept rows are read anew within seconds, spread over those, not all at once: nobody waits
for it. Rows live in one array per feature, hence a batch is gathered by index as in training.

Legend: B requests, N candidates, U user slots, I item slots, F dense features.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Expired
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from components.feature_store import views_of
from goalrank import schema
from goalrank.errors import TryAgain
from goalrank.features import ItemRows, UserRows, encode_items, encode_users

KEEP_SECONDS = 300.0
READ_SECONDS = 0.5
"""A read of CHUNK rows that takes longer counts as "the store is away": users do not wait for it."""
CHUNK = 256
RENEW_SECONDS, RENEWED_A_SECOND = 10.0, 1000
"""After a night: kept rows are renewed within so long, or at this pace if there are many (Feast reads 5,000/s)."""
REST_SECONDS = 0.5
"""After a failed read the store is left alone for so long; requests meanwhile need not wait for it to fail again."""
KEPT = {"user_id": 50_000, "item_id": 200_000}
"""Rows kept at most; the oldest go first. About 50 and 40 MB."""

_ENCODERS: dict[str, Callable[[pa.Table], Any]] = {"user_id": encode_users, "item_id": encode_items}

_log = logging.getLogger("goalrank.serve")


class Reader(Protocol):
    """What rows are read from: components.feature_store.OnlineReader, or a stand-in."""

    def rows(self, entity: str, keys: Sequence[int]) -> pa.Table:
        """Rows of the keys, in their order; any error means that the store gives none."""

    def stamp(self) -> tuple[object, ...] | None:
        """Changes when what is online has changed; None: it is being written to, or was left half written."""


@dataclass
class Gathered:
    """Rows of B requests: `users` and `items` are read by index."""

    users: UserRows
    items: ItemRows
    user_rows_B: np.ndarray
    rows_BN: np.ndarray
    mask_BN: np.ndarray  # True = a real candidate
    away_B: np.ndarray  # True = the store did not give this request's rows
    known_user_B: np.ndarray  # True = the store has features of the user
    known_items_B: np.ndarray  # how many candidates the store has features of


class FeatureRows:
    """Rows by id, for one thread at a time."""

    def __init__(
        self,
        reader: Reader,
        keep_seconds: float = KEEP_SECONDS,
        read_seconds: float = READ_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            reader: the online store.
            keep_seconds: longest time a row is kept; 0 keeps none beyond its batch.
            read_seconds: longest time a batch waits for the store.
            clock: seconds.
        """
        self._reader, self.keep_seconds, self._read_seconds, self._clock = reader, keep_seconds, read_seconds, clock
        self._slabs = {entity: _Slab(entity) for entity in KEPT}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="online-store")
        self._pending: tuple[_Slab, list[int], Future[pa.Table]] | None = None
        self._rest_until = 0.0
        self._stamp = reader.stamp()
        self.rows_read = dict.fromkeys(KEPT, 0)
        self._away = False

    def gather(self, users: Sequence[int], candidates: Sequence[list[int]]) -> Gathered:
        """Rows of each request's user and candidates; what the store does not give is marked in `away_B`."""
        self._renew_if_new()
        user_slots_B = self._slots("user_id", list(users))
        lengths_B = np.array([len(ids) for ids in candidates])
        slots = self._slots("item_id", [item for ids in candidates for item in ids])
        mask_BN = np.arange(lengths_B.max(initial=1)) < lengths_B[:, None]
        rows_BN = np.zeros(mask_BN.shape, dtype=np.int64)
        rows_BN[mask_BN] = slots
        away_B = (user_slots_B < 0) | ((rows_BN < 0) & mask_BN).any(axis=1)
        user_slab, item_slab = self._slabs["user_id"], self._slabs["item_id"]
        known_items_B = (item_slab.known[np.maximum(rows_BN, 0)] & mask_BN).sum(axis=1)
        return Gathered(
            users=user_slab.rows,
            items=item_slab.rows,
            user_rows_B=user_slots_B,
            rows_BN=rows_BN,
            mask_BN=mask_BN,
            away_B=away_B,
            known_user_B=user_slab.known[np.maximum(user_slots_B, 0)],
            known_items_B=known_items_B,
        )

    def counts(self) -> dict[str, float]:
        """Rows read so far of users and items."""
        return {"user": self.rows_read["user_id"], "item": self.rows_read["item_id"]}

    def close(self) -> None:
        """Let go of the reading thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _renew_if_new(self) -> None:
        stamp = self._reader.stamp()
        for slab in self._slabs.values():
            if self.keep_seconds <= 0:
                slab.clear()
            # While a night writes, what was online before it is still right; it goes once the new rows are there.
            elif stamp is not None and stamp != self._stamp:
                slab.expire_within(max(RENEW_SECONDS, len(slab) / RENEWED_A_SECOND), self._clock())
        self._stamp = stamp or self._stamp

    def _slots(self, entity: str, keys: list[int]) -> np.ndarray:
        """Slot of each key, -1 where the store did not give its row."""
        slab = self._slabs[entity]
        slots = slab.find(keys, self._clock())
        missing = [keys[at] for at in np.flatnonzero(slots < 0).tolist()]
        if not missing:
            return slots
        if not self._read_all(slab, list(dict.fromkeys(missing))):
            return slab.find(keys, self._clock())
        slots = slab.find(keys, 0.0)
        if (slots < 0).any():  # storing the missing rows pushed out others of this very batch
            slab.clear()
            self._read_all(slab, list(dict.fromkeys(keys)))
            slots = slab.find(keys, 0.0)
        return slots

    def _read_all(self, slab: _Slab, keys: list[int]) -> bool:
        return all(self._read(slab, keys[first : first + CHUNK]) for first in range(0, len(keys), CHUNK))

    def _read(self, slab: _Slab, keys: list[int]) -> bool:
        """Read and keep rows; False where the store does not give them in time."""
        if self._pending is not None:
            if not self._pending[2].done():
                return False
            late_slab, late_keys, late = self._pending
            self._pending = None
            # One that failed has been said when it was late; what it read may be no rows either.
            with suppress(Exception):
                self._keep(late_slab, late_keys, late.result())
        if self._clock() < self._rest_until:
            return False
        reading = self._thread.submit(self._reader.rows, slab.entity, keys)
        try:
            self._keep(slab, keys, reading.result(self._read_seconds))
        except Exception as error:  # whatever goes wrong in a store or its client, users get lists
            if not reading.done():
                self._pending = (slab, keys, reading)
            self._rest_until = self._clock() + REST_SECONDS
            if not self._away:
                self._say(error)
            self._away = True
            return False
        if self._away:
            _log.warning("the online store answers again")
        self._away = False
        return True

    def _say(self, error: Exception) -> None:
        if isinstance(error, (TryAgain, Expired)):
            reason = str(error) or f"no answer within {self._read_seconds} s"
            _log.warning("answering without features: %s", reason)
        else:
            _log.exception("answering without features: what the online store holds cannot be read")

    def _keep(self, slab: _Slab, keys: list[int], table: pa.Table) -> None:
        self.rows_read[slab.entity] += len(keys)
        # Spread, so that rows read together are not all read again together.
        now = self._clock()
        slab.store(keys, table, [now + self.keep_seconds * random.uniform(0.5, 1.0) for _ in keys])


class _Slab:
    """Encoded rows of one entity by slot; grows up to its limit, then the oldest slots are taken again."""

    def __init__(self, entity: str) -> None:
        self.entity, self.limit = entity, KEPT[entity]
        self._encode = _ENCODERS[entity]
        self._columns = [field.name for view in views_of(entity) for field in view.features]
        self._empty = self._encode(schema.training_rows_schema(entity).empty_table())
        self.rows = self._empty
        self.known = np.zeros(0, dtype=bool)
        self._expires = np.zeros(0)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._slot_of: dict[int, int] = {}
        self._key_of: list[int] = []
        self._next = 0
        self._grow_to(256, empty=True)

    def __len__(self) -> int:
        return len(self._key_of)

    def expire_within(self, seconds: float, now: float) -> None:
        """Have every row read anew within so long, evenly spread."""
        spread = now + seconds * np.random.default_rng().random(len(self))
        self._expires[: len(self)] = np.minimum(self._expires[: len(self)], spread)

    def find(self, keys: list[int], now: float) -> np.ndarray:
        """Slot of each key, -1 where it is not kept or its time is over."""
        slot_of = self._slot_of
        slots = np.array([slot_of.get(key, -1) for key in keys], dtype=np.int64)
        if now and len(slots):
            slots[(slots >= 0) & (self._expires[slots] < now)] = -1
        return slots

    def store(self, keys: list[int], table: pa.Table, expires: list[float]) -> None:
        """Keep a row for each key.

        Raises:
            ValueError: there are more rows or fewer.
        """
        if table.num_rows != len(keys):
            raise ValueError(f"{table.num_rows} rows found for {len(keys)} keys of {self.entity}, expected one each")
        encoded = self._encode(table)
        known = np.zeros(len(keys), dtype=bool)
        for column in self._columns:
            known |= table[column].is_valid().to_numpy()
        slots = np.array([self._slot_for(key) for key in keys], dtype=np.int64)
        if slots.max(initial=0) >= len(self.known):
            self._grow_to(min(self.limit, max(2 * len(self.known), int(slots.max()) + 1)))
        for field in fields(encoded):
            getattr(self.rows, field.name)[slots] = getattr(encoded, field.name)
        self.known[slots] = known
        self._expires[slots] = expires

    def _slot_for(self, key: int) -> int:
        slot = self._slot_of.get(key)
        if slot is not None:
            return slot
        if len(self._key_of) < self.limit:
            slot = len(self._key_of)
            self._key_of.append(key)
        else:
            slot = self._next
            self._next = (slot + 1) % self.limit
            del self._slot_of[self._key_of[slot]]
            self._key_of[slot] = key
        self._slot_of[key] = slot
        return slot

    def _grow_to(self, size: int, empty: bool = False) -> None:
        def grown(old: np.ndarray) -> np.ndarray:
            new = np.zeros((size, *old.shape[1:]), dtype=old.dtype)
            if not empty:
                new[: len(old)] = old
            return new

        self.rows = type(self._empty)(**{one.name: grown(getattr(self.rows, one.name)) for one in fields(self._empty)})
        self.known, self._expires = grown(self.known), grown(self._expires)
