"""Candidates of the offline protocol: the slate and up to 44 items its user had not seen (method.md, offline protocol).

"matched": drawn from the slate items' neighbours in popularity, so that popularity alone tells nothing.
"retrieved": the retriever's top items, the paper's way as far as its code shows; sorting them by ascending score is
strong, an artefact to report beside every result.

Legend: Q requests, I items, N candidates, L items of a slate, M draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from goalrank.offline_protocol import HISTORY, IntArray, Requests, Sequences
from goalrank.retriever import Retriever
from goalrank.schema import LIST_LENGTH

CANDIDATES = 50
"""N: the slate's 6 and 44 more."""

NEIGHBOURHOOD = 40
"""A matched item lies at most this many popularity ranks away from an item of the slate."""

KINDS = ("matched", "retrieved")

_CHUNK_CELLS = 16_000_000  # requests x items held at once


class CandidateMaker:
    """Makes the candidates of requests; holds what all requests share."""

    def __init__(self, rows: Sequences, retriever: Retriever, kind: str, seed: int) -> None:
        if kind not in KINDS:
            raise ValueError(f"candidates {kind!r} found, expected one of {', '.join(KINDS)}")
        self._rows, self._retriever, self._kind, self._seed = rows, retriever, kind, seed
        self._items = len(rows.item_ids_I)
        # Popularity of the training period: what the retriever sees too, so no request's own ratings are in it.
        counts_I = np.bincount(rows.item_R[rows.in_first_half], minlength=self._items)
        self._by_popularity_I = np.lexsort((np.arange(self._items), -counts_I))
        self._rank_I = np.empty(self._items, dtype=np.int64)
        self._rank_I[self._by_popularity_I] = np.arange(self._items)

    def make(self, requests: Requests) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Candidates and the retriever's scores of them, shuffled; history requests have their slate and no more.

        Returns:
            item_QN: item indices, -1 beyond a request's own candidates.
            score_QN: the retriever's scores, of any meaning where item_QN is -1.
        """
        item_QN = np.full((len(requests), CANDIDATES), -1, dtype=np.int64)
        item_QN[:, :LIST_LENGTH] = self._slates(requests)
        choice = np.flatnonzero(requests.split_Q != HISTORY)
        size = max(1, min(2048, _CHUNK_CELLS // self._items))
        for first in range(0, len(choice), size):
            chunk = choice[first : first + size]
            # One stream a (day, chunk): the draws of a day do not depend on how many days were made before it.
            random = np.random.default_rng([self._seed, 4, int(requests.day_Q[chunk[0]]), first])
            some = requests.take(chunk)
            seen_QI = self._seen(some)
            extra_QM = self._matched(some, seen_QI, random) if self._kind == "matched" else self._top(some, seen_QI)
            item_QN[chunk, LIST_LENGTH : LIST_LENGTH + extra_QM.shape[1]] = extra_QM
            order_key_QN = random.random((len(chunk), CANDIDATES)) + (item_QN[chunk] < 0) * 2.0
            item_QN[chunk] = np.take_along_axis(item_QN[chunk], np.argsort(order_key_QN, axis=1), axis=1)
        return item_QN, self._retriever.scores(requests.user_Q, item_QN)

    def _slates(self, requests: Requests) -> IntArray:
        place_L = np.arange(LIST_LENGTH)
        row_QL = requests.start_Q[:, None] + np.minimum(place_L, requests.length_Q[:, None] - 1)
        return np.where(place_L < requests.length_Q[:, None], self._rows.item_R[row_QL], -1)

    def _seen(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """What the user has seen before the slate, and the slate itself: [Q, I]."""
        begin_Q = self._rows.start_U[requests.user_Q]
        count_Q = requests.start_Q + requests.length_Q - begin_Q
        request_S = np.repeat(np.arange(len(requests)), count_Q)
        row_S = np.arange(int(count_Q.sum())) - np.repeat(np.cumsum(count_Q) - count_Q - begin_Q, count_Q)
        seen_QI = np.zeros((len(requests), self._items), dtype=bool)
        seen_QI[request_S, self._rows.item_R[row_S]] = True
        return seen_QI

    def _top(self, requests: Requests, seen_QI: npt.NDArray[np.bool_]) -> IntArray:
        """The retriever's best unseen items; equal scores go by item."""
        score_QI = np.where(seen_QI, -np.inf, self._retriever.all_scores(requests.user_Q))
        best_QM = np.argsort(-score_QI, axis=1, kind="stable")[:, : CANDIDATES - LIST_LENGTH]
        return np.where(np.take_along_axis(seen_QI, best_QM, axis=1), -1, best_QM)

    def _matched(self, requests: Requests, seen_QI: npt.NDArray[np.bool_], random: np.random.Generator) -> IntArray:
        """Unseen neighbours in popularity, the slate's items taking turns; a neighbourhood that is used up widens."""
        wanted = CANDIDATES - LIST_LENGTH
        rank_QL = self._rank_I[self._slates(requests)]
        away_M = np.concatenate((np.arange(-NEIGHBOURHOOD, 0), np.arange(1, NEIGHBOURHOOD + 1)))
        drawn_QLM = away_M[np.argsort(random.random((*rank_QL.shape, len(away_M))), axis=2)]
        rank_QM = (rank_QL[:, :, None] + drawn_QLM).transpose(0, 2, 1).reshape(len(requests), -1)
        exists_QM = (rank_QM >= 0) & (rank_QM < self._items)
        item_QM = self._by_popularity_I[np.clip(rank_QM, 0, self._items - 1)]
        free_QM = exists_QM & ~np.take_along_axis(seen_QI, item_QM, axis=1)
        free_QM &= _first_of_its_kind(item_QM, free_QM, self._items)
        chosen_QM = np.full((len(requests), wanted), -1, dtype=np.int64)
        place_QM = np.cumsum(free_QM, axis=1) - 1
        request_S, draw_S = np.nonzero(free_QM & (place_QM < wanted))
        chosen_QM[request_S, place_QM[request_S, draw_S]] = item_QM[request_S, draw_S]
        for request in np.flatnonzero(chosen_QM[:, -1] < 0):
            chosen_QM[request] = self._widened(chosen_QM[request], seen_QI[request], rank_QL[request])
        return chosen_QM

    def _widened(self, chosen_M: IntArray, seen_I: npt.NDArray[np.bool_], rank_L: IntArray) -> IntArray:
        """Fill up with the unseen items nearest in popularity rank to any item of the slate."""
        free_I = ~seen_I
        free_I[chosen_M[chosen_M >= 0]] = False
        rank_F = np.flatnonzero(free_I[self._by_popularity_I])
        near_F = np.argsort(np.abs(rank_F[:, None] - rank_L).min(axis=1), kind="stable")
        missing = np.flatnonzero(chosen_M < 0)[: len(near_F)]
        filled_M = chosen_M.copy()
        filled_M[missing] = self._by_popularity_I[rank_F[near_F[: len(missing)]]]
        return filled_M


def _first_of_its_kind(item_QM: IntArray, free_QM: npt.NDArray[np.bool_], items: int) -> npt.NDArray[np.bool_]:
    """Whether no free draw to the left, of the same request, has the same item."""
    requests, draws = item_QM.shape
    first_C = np.full(requests * items, draws, dtype=np.int32)
    cell_QM = np.arange(requests)[:, None] * items + item_QM
    draw_QM = np.broadcast_to(np.arange(draws, dtype=np.int32), item_QM.shape)
    np.minimum.at(first_C, cell_QM[free_QM], draw_QM[free_QM])
    return first_C[cell_QM] == draw_QM
