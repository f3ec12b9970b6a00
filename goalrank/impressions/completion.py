"""Candidates of lists whose log names none: the shown items, and others that were shown to somebody in the same week.

The others are drawn among items that were shown about as often as those of the list: so popularity alone does not tell
who was shown, and a reward model has seen each of them at work. Their scores are each item's click rate on the days
before, drawn towards everybody's: the order to beat until a real retriever's scores are logged.

Legend: Q lists, S shown items, I items (codes), N candidates, L the longest list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from goalrank.candidates import CANDIDATES, NEIGHBOURHOOD
from goalrank.impressions.lists import IntArray, Lists

TRAILING_DAYS = 7
"""How long an item that is not shown any more may still be drawn."""

PRIOR_IMPRESSIONS = 20.0
"""How many impressions of everybody's click rate an item's own is mixed with."""

_CHUNK_LISTS = 2048


class Completion:
    """What the days so far tell about items; asked day by day, in order."""

    def __init__(
        self,
        item_id_I: IntArray,
        seed: int,
        trailing: Sequence[npt.NDArray[np.int32]] = (),
        shown_I: npt.NDArray[np.float64] | None = None,
        clicked_I: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """`item_id_I`: each item's number, for an order that does not depend on how they came.

        `trailing`, `shown_I`, `clicked_I`: how often items were shown on days before, of each day and in all.
        """
        items = len(item_id_I)
        self._seed, self._item_id_I, self._items = seed, item_id_I, items
        self._shown_days = deque(trailing, maxlen=TRAILING_DAYS)
        self._shown_I = np.zeros(items) if shown_I is None else shown_I  # all days before
        self._clicked_I = np.zeros(items) if clicked_I is None else clicked_I

    def rates(self) -> npt.NDArray[np.float64]:
        """Click rate [I] of every item on the days before, mixed with everybody's."""
        overall = self._clicked_I.sum() / max(self._shown_I.sum(), 1.0)
        return np.round((self._clicked_I + PRIOR_IMPRESSIONS * overall) / (self._shown_I + PRIOR_IMPRESSIONS), 6)

    def candidates(self, lists: Lists, day: int) -> tuple[IntArray, IntArray]:
        """Candidates of every list, in an order of no meaning, and how many each has.

        The shown items and as many others as make CANDIDATES, but at least as many others as were shown; fewer where no
        more items were shown in TRAILING_DAYS. `day` is the stream of the draws. Returns (item_C, count_Q).
        """
        self._shown_days.append(np.bincount(lists.item_S, minlength=self._items).astype(np.int32))
        shown_I = np.sum(np.stack(list(self._shown_days)), axis=0)
        pool = np.flatnonzero(shown_I)
        by_popularity_P = pool[np.lexsort((self._item_id_I[pool], -shown_I[pool]))]
        rank_I = np.zeros(self._items, dtype=np.int64)
        rank_I[by_popularity_P] = np.arange(len(by_popularity_P))
        made = []
        end_Q = np.cumsum(lists.length_Q)
        for number, first in enumerate(range(0, len(lists), _CHUNK_LISTS)):
            chunk = slice(first, min(first + _CHUNK_LISTS, len(lists)))
            begin = int(end_Q[first - 1]) if first else 0
            items_S = lists.item_S[begin : int(end_Q[chunk.stop - 1])]
            random = np.random.default_rng([self._seed, 6, day, number])
            made.append(_complete(items_S, lists.length_Q[chunk], by_popularity_P, rank_I, random))
        items, counts = zip(*made, strict=True) if made else ((), ())
        empty = np.zeros(0, dtype=np.int64)
        return np.concatenate((empty, *items)), np.concatenate((empty, *counts))

    def learn(self, lists: Lists) -> None:
        """The day is over: what happened on it counts from the next on."""
        self._shown_I += np.bincount(lists.item_S, minlength=self._items)
        self._clicked_I += np.bincount(lists.item_S, weights=lists.click_S, minlength=self._items)


def _complete(
    item_S: IntArray, length_Q: IntArray, by_popularity_P: IntArray, rank_I: IntArray, random: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """The shown items of some lists and the others drawn for them: each list's best keys, its own items first."""
    lists, longest, pool = len(length_Q), int(length_Q.max()), len(by_popularity_P)
    place_S = np.arange(len(item_S)) - np.repeat(np.cumsum(length_Q) - length_Q, length_Q)
    shown_QL = np.full((lists, longest), -1, dtype=np.int64)
    shown_QL[np.repeat(np.arange(lists), length_Q), place_S] = item_S
    wanted_Q = np.minimum(np.maximum(CANDIDATES - length_Q, length_Q), pool - length_Q)
    most = int(wanted_Q.max(initial=0))
    # Neighbours in popularity of the list's items, which take turns; more draws than wanted, since some come twice.
    turn_QD = random.permuted(np.tile(np.arange(4 * most), (lists, 1)), axis=1) % length_Q[:, None]
    near_QD = rank_I[np.take_along_axis(shown_QL, turn_QD, axis=1)]
    reach = min(NEIGHBOURHOOD, pool)
    near_QD += random.integers(1, reach + 1, near_QD.shape) * random.choice((-1, 1), near_QD.shape)
    # Beyond either end it is counted from the other side of the neighbourhood, so that the ends are not drawn twice.
    near_QD = np.where(near_QD < 0, -near_QD - 1, near_QD)
    near_QD = np.where(near_QD >= pool, 2 * pool - 1 - near_QD, near_QD)
    drawn_QD = np.concatenate(
        (
            by_popularity_P[np.clip(near_QD, 0, pool - 1)],
            np.tile(random.permutation(by_popularity_P), (lists, 1))[:, : 4 * most + longest],
        ),
        axis=1,
    )
    item_QD = np.concatenate((shown_QL, drawn_QD), axis=1)
    free_QD = (item_QD >= 0) & _first_of_its_kind(item_QD)
    taken_QD = free_QD & (np.cumsum(free_QD, axis=1) <= (length_Q + wanted_Q)[:, None])
    count_Q = taken_QD.sum(axis=1)
    # Shuffled, or the first candidates would be the shown ones.
    key_QD = random.random(item_QD.shape) + ~taken_QD * 2.0
    mixed_QD = np.take_along_axis(item_QD, np.argsort(key_QD, axis=1), axis=1)
    return mixed_QD[np.arange(item_QD.shape[1]) < count_Q[:, None]], count_Q


def _first_of_its_kind(item_QD: IntArray) -> npt.NDArray[np.bool_]:
    """Whether no place to the left in the row holds the same."""
    order_QD = np.argsort(item_QD, axis=1, kind="stable")
    sorted_QD = np.take_along_axis(item_QD, order_QD, axis=1)
    first_QD = np.concatenate((np.ones((len(item_QD), 1), dtype=bool), np.diff(sorted_QD, axis=1) != 0), axis=1)
    result_QD = np.empty_like(first_QD)
    np.put_along_axis(result_QD, order_QD, first_QD, axis=1)
    return result_QD
