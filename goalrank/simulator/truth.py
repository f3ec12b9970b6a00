"""The true reward of lists for logged requests: what the evaluation step and the benchmarks ask the world.

Requests are rows of the logs' requests table (or anything with its columns): the day comes from event_time, so that
late rows are judged by the world of the day on which they happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from goalrank.errors import DataRefused
from goalrank.schema import RewardWeights
from goalrank.simulator.config import WorldConfig
from goalrank.simulator.feedback import CandidateFacts, expected_reward
from goalrank.simulator.search import best_lists, order_by_single_item_value
from goalrank.simulator.world import FIRST_ITEM_ID, FIRST_USER_ID, World, world_of

NO_ITEM = -1
_DEFAULT_WEIGHTS = RewardWeights()
_CHUNK_LISTS_ITEMS = 60_000


def true_reward(
    config: WorldConfig,
    requests: pa.Table,
    lists: np.ndarray | Sequence[Sequence[int]],
    weights: RewardWeights = _DEFAULT_WEIGHTS,
) -> np.ndarray:
    """Exact expected total reward of lists of item ids, for requests of the simulated world.

    Args:
        requests: R rows with user_id and event_time.
        lists: item ids, (R, L) or (R, G, L), position 1 first; -1 at the end of a shorter list, or ragged lists.

    Returns:
        (R,) or (R, G), as `lists` is.

    Raises:
        DataRefused: a user, item or day is not of this world.
    """
    ids = _rectangle(lists)
    if len(ids) != requests.num_rows:
        raise DataRefused(f"{len(ids)} lists found for {requests.num_rows} requests, expected one row of lists each")
    ids_RGL = ids if ids.ndim == 3 else ids[:, None]
    reward_RG = np.zeros(ids_RGL.shape[:2])
    if ids_RGL.size:
        chunk = max(1, _CHUNK_LISTS_ITEMS // (ids_RGL.shape[1] * ids_RGL.shape[2]))
        for world, rows_r, user_r in _by_day(config, requests, chunk):
            ids_rX = ids_RGL[rows_r].reshape(len(rows_r), -1)
            item_rX = _item_rows(world, np.where(ids_rX == NO_ITEM, FIRST_ITEM_ID, ids_rX))
            rows_rX = np.where(ids_rX == NO_ITEM, -1, np.arange(ids_rX.shape[1]))
            facts = CandidateFacts.of(world, user_r, item_rX)
            reward_RG[rows_r] = expected_reward(facts, rows_rX.reshape(ids_RGL[rows_r].shape), weights)
    return reward_RG if ids.ndim == 3 else reward_RG[:, 0]


def true_best(
    config: WorldConfig,
    requests: pa.Table,
    length: int | None = None,
    width: int = 48,
    weights: RewardWeights = _DEFAULT_WEIGHTS,
) -> tuple[np.ndarray, np.ndarray]:
    """The best list found among each request's candidates: item ids (R, L), true expected reward (R,)."""
    length = config.list_length if length is None else length
    lists_RL = np.full((requests.num_rows, length), NO_ITEM, dtype=np.int64)
    reward_R = np.zeros(requests.num_rows)
    for rows_r, ids_rN, facts in candidate_facts(config, requests, length):
        found_rL, reward_R[rows_r] = best_lists(facts, length, width, weights)
        lists_RL[rows_r] = np.take_along_axis(ids_rN, found_rL, 1)
    return lists_RL, reward_R


def true_single_item_order(
    config: WorldConfig, requests: pa.Table, length: int | None = None, weights: RewardWeights = _DEFAULT_WEIGHTS
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates by true single-item value: item ids (R, L), true expected reward (R,). What pointwise can reach."""
    length = config.list_length if length is None else length
    lists_RL = np.full((requests.num_rows, length), NO_ITEM, dtype=np.int64)
    reward_R = np.zeros(requests.num_rows)
    for rows_r, ids_rN, facts in candidate_facts(config, requests, length):
        order_rL = order_by_single_item_value(facts, length, weights)
        reward_R[rows_r] = expected_reward(facts, order_rL[:, None], weights)[:, 0]
        lists_RL[rows_r] = np.take_along_axis(ids_rN, order_rL, 1)
    return lists_RL, reward_R


def candidate_facts(
    config: WorldConfig, requests: pa.Table, length: int
) -> Iterator[tuple[np.ndarray, np.ndarray, CandidateFacts]]:
    """Requests of one day and one number of candidates at a time: rows, candidate ids, facts.

    Raises:
        DataRefused: a request has fewer than `length` candidates, or knows what is not of this world.
    """
    candidates = requests.column("candidates").to_pylist()
    counts_R = np.array([len(row) for row in candidates], dtype=np.int64)
    if len(counts_R) and counts_R.min() < length:
        raise DataRefused(f"a request has {counts_R.min()} candidates, expected at least the list length {length}")
    for world, rows_r, user_r in _by_day(config, requests, chunk=1024):
        for count in np.unique(counts_R[rows_r]):
            same = counts_R[rows_r] == count
            ids_rN = np.array([candidates[row] for row in rows_r[same]], dtype=np.int64)
            yield rows_r[same], ids_rN, CandidateFacts.of(world, user_r[same], _item_rows(world, ids_rN))


def _by_day(config: WorldConfig, requests: pa.Table, chunk: int) -> Iterator[tuple[World, np.ndarray, np.ndarray]]:
    """World, row numbers and user rows, at most `chunk` requests of one day at a time."""
    user_R = requests.column("user_id").to_numpy().astype(np.int64) - FIRST_USER_ID
    seconds_R = requests.column("event_time").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy() // 10**6
    first = datetime(config.first_day.year, config.first_day.month, config.first_day.day, tzinfo=UTC)
    day_R = (seconds_R - int(first.timestamp())) // 86_400
    if len(day_R) and day_R.min() < 0:
        raise DataRefused(f"a request is {-day_R.min()} days before this world's first day, {config.first_day}")
    for day in np.unique(day_R):
        world = world_of(config, int(day))
        rows_R = np.flatnonzero(day_R == day)
        unknown = user_R[rows_R][(user_R[rows_R] < 0) | (user_R[rows_R] >= world.users)]
        if len(unknown):
            raise DataRefused(f"user_id {unknown[0] + FIRST_USER_ID} is not of this world on day {day}")
        for start in range(0, len(rows_R), chunk):
            yield world, rows_R[start : start + chunk], user_R[rows_R[start : start + chunk]]


def _item_rows(world: World, ids: np.ndarray) -> np.ndarray:
    """Rows of the world's items.

    Raises:
        DataRefused: an id is of no item that exists on that day.
    """
    rows = ids - FIRST_ITEM_ID
    unknown = ids[(rows < 0) | (rows >= world.items)]
    if unknown.size:
        raise DataRefused(f"item_id {unknown[0]} is not of this world on day {world.day}")
    return rows


def _rectangle(lists: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Lists as an int64 array of 2 or 3 dimensions; ragged ones are padded with -1.

    Raises:
        DataRefused: neither.
    """
    if not isinstance(lists, np.ndarray):
        longest = max((len(row) for row in lists), default=0)
        if all(np.ndim(row) == 1 for row in lists):
            padded = np.full((len(lists), longest), NO_ITEM, dtype=np.int64)
            for row, items in zip(padded, lists, strict=True):
                row[: len(items)] = items
            return padded
        lists = np.asarray(lists)
    if lists.ndim not in (2, 3):
        raise DataRefused(f"lists have {lists.ndim} dimensions, expected (R, L) or (R, G, L)")
    return lists.astype(np.int64)
