"""A day's rows put together as lists: repeated rows joined, torn lists left out, places numbered from 1.

Legend: R rows, Q lists (requests), S shown items (rows of the result).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IntArray = npt.NDArray[np.int64]

TORN = ("several users", "two items at one place", "one item at two places")
"""Why a list is left out."""

MOST_SHOWN = 200
"""Items of the longest list that is taken: a longer one is no list that somebody saw, and would cost minutes."""

LONGEST_SECONDS = 3_600
"""Rows after midnight still belong to a list of the day before if they came within this time of its first row: an id
that is used again the next day is another list."""


@dataclass(frozen=True)
class Lists:
    """Whole lists of one day, in order of time; their items in list order."""

    request_Q: list[str]
    user_Q: IntArray
    time_Q: IntArray
    policy_Q: list[str]
    candidates_Q: list[str]
    scores_Q: list[str]
    length_Q: IntArray
    item_S: IntArray
    click_S: npt.NDArray[np.int8]
    like_S: npt.NDArray[np.int8]
    watch_S: npt.NDArray[np.float64]
    propensity_S: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.request_Q)

    @property
    def lists_of_shown(self) -> IntArray:
        """The list of each shown item."""
        return np.repeat(np.arange(len(self)), self.length_Q)

    @property
    def places_of_shown(self) -> IntArray:
        """The place of each shown item in its list, from 0."""
        return np.arange(len(self.item_S)) - np.repeat(np.cumsum(self.length_Q) - self.length_Q, self.length_Q)


def after_midnight(day: pa.Table, following: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows of the following day belong to lists that began on `day`."""
    if not day.num_rows or not following.num_rows:
        return np.zeros(following.num_rows, dtype=bool)
    begun = day.group_by("request").aggregate([("time", "min")])
    at = pc.index_in(following["request"], begun["request"].combine_chunks())
    start_R = pc.fill_null(begun["time_min"].take(at), -(1 << 60)).to_numpy()
    return following["time"].to_numpy() - start_R <= LONGEST_SECONDS * 1_000_000


def of_lists(rows: pa.Table, requests: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which rows belong to lists of these ids."""
    return pc.is_in(rows["request"], pa.array(sorted(requests), pa.string())).to_numpy()


def without(rows: pa.Table, damaged: Collection[str], dropped: Counter[str]) -> pa.Table:
    """Rows of lists that are whole: of one that lost a row, what is left would tell another story (only its clicks)."""
    if not damaged:
        return rows
    damaged_R = of_lists(rows, damaged)
    dropped["lists with an unreadable row"] += pc.count_distinct(rows["request"].filter(pa.array(damaged_R))).as_py()
    return rows.filter(pa.array(~damaged_R))


def put_together(rows: pa.Table, dropped: Counter[str], noted: Counter[str], examples: dict[str, str]) -> Lists:
    """Lists of a day's rows.

    Rows that say the same place, item and list again are one: clicked if any of them says so, watched as long as the
    longest. Positions may start anywhere and have gaps; their order counts.

    Args:
        rows: reading.ROWS.
        dropped: gets the rows and lists left out, by reason.
        noted: gets what was mended, by how.
        examples: gets a list's id for each reason in TORN.
    """
    encoded = rows["request"].combine_chunks().dictionary_encode()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    requests = encoded.dictionary
    request_R = encoded.indices.to_numpy().astype(np.int64)
    user_R, item_R, place_R = (rows[name].to_numpy().astype(np.int64) for name in ("user", "item", "position"))
    time_R = rows["time"].to_numpy()
    order_R = np.lexsort((time_R, item_R, place_R, request_R))
    key_RK = np.stack((request_R, place_R, item_R))[:, order_R]
    fresh_R = np.concatenate(([True], (np.diff(key_RK) != 0).any(axis=0)))[: len(order_R)]
    first_S = np.flatnonzero(fresh_R)
    dropped["repeated rows"] += len(order_R) - len(first_S)

    def most(name: str) -> np.ndarray:
        values_R = rows[name].to_numpy()[order_R]
        return np.fmax.reduceat(values_R, first_S) if len(first_S) else values_R[:0]

    at_S = order_R[first_S]
    request_S, place_S, item_S = request_R[at_S], place_R[at_S], item_R[at_S]
    torn_Q = _torn(requests, request_R, user_R, request_S, place_S, item_S, dropped, examples)
    long_Q = (np.bincount(request_S, minlength=len(requests)) > MOST_SHOWN) & ~torn_Q
    dropped[f"lists: more than {MOST_SHOWN} items"] += int(long_Q.sum())
    torn_Q |= long_Q
    kept_S = ~torn_Q[request_S]
    start_Q = np.full(len(requests), np.iinfo(np.int64).max)
    np.minimum.at(start_Q, request_R, time_R)
    begin_Q = np.full(len(requests), -1, dtype=np.int64)
    begin_Q[request_R[::-1]] = np.arange(len(request_R))[::-1]  # the first row of each, for what a list has once
    chosen_Q = np.flatnonzero(~torn_Q)
    chosen_Q = chosen_Q[np.lexsort((chosen_Q, start_Q[chosen_Q]))]
    rank_Q = np.full(len(requests), -1, dtype=np.int64)
    rank_Q[chosen_Q] = np.arange(len(chosen_Q))
    order_S = np.flatnonzero(kept_S)
    order_S = order_S[np.argsort(rank_Q[request_S[order_S]], kind="stable")]
    length_Q = np.bincount(rank_Q[request_S[order_S]], minlength=len(chosen_Q))
    last_Q = np.zeros(len(requests), dtype=np.int64)
    lowest_Q = np.full(len(requests), np.iinfo(np.int64).max)
    np.maximum.at(last_Q, request_S, place_S)
    np.minimum.at(lowest_Q, request_S, place_S)
    noted["lists with gaps"] += int((last_Q[chosen_Q] - lowest_Q[chosen_Q] + 1 > length_Q).sum())
    row_Q = pa.array(begin_Q[chosen_Q])
    return Lists(
        request_Q=requests.take(pa.array(chosen_Q)).to_pylist(),
        user_Q=user_R[begin_Q[chosen_Q]],
        time_Q=start_Q[chosen_Q],
        policy_Q=rows["policy"].take(row_Q).to_pylist(),
        candidates_Q=rows["candidates"].take(row_Q).to_pylist(),
        scores_Q=rows["scores"].take(row_Q).to_pylist(),
        length_Q=length_Q,
        item_S=item_S[order_S],
        click_S=most("click")[order_S],
        like_S=most("like")[order_S],
        watch_S=most("watch")[order_S],
        propensity_S=most("propensity")[order_S],
    )


def _torn(
    requests: pa.Array,
    request_R: IntArray,
    user_R: IntArray,
    request_S: IntArray,
    place_S: IntArray,
    item_S: IntArray,
    dropped: Counter[str],
    examples: dict[str, str],
) -> npt.NDArray[np.bool_]:
    """Lists that contradict themselves."""
    lowest_Q, highest_Q = np.full(len(requests), np.iinfo(np.int64).max), np.full(len(requests), -1, dtype=np.int64)
    np.minimum.at(lowest_Q, request_R, user_R)
    np.maximum.at(highest_Q, request_R, user_R)
    same_place_S = _same_as_before(request_S, place_S)
    by_item_S = np.lexsort((item_S, request_S))
    same_item_S = _same_as_before(request_S[by_item_S], item_S[by_item_S])
    found = {
        "several users": np.flatnonzero(highest_Q > lowest_Q),
        "two items at one place": request_S[same_place_S],
        "one item at two places": request_S[by_item_S][same_item_S],
    }
    torn_Q = np.zeros(len(requests), dtype=bool)
    for reason, lists in found.items():
        new = np.unique(lists[~torn_Q[lists]])
        if len(new):
            dropped[f"lists: {reason}"] += len(new)
            examples.setdefault(reason, requests[int(new[0])].as_py())
            torn_Q[new] = True
    return torn_Q


def _same_as_before(*sorted_columns: IntArray) -> npt.NDArray[np.bool_]:
    """Which rows equal the one before them in all columns."""
    if not len(sorted_columns[0]):
        return np.zeros(0, dtype=bool)
    return np.concatenate(([False], np.all([np.diff(column) == 0 for column in sorted_columns], axis=0)))
