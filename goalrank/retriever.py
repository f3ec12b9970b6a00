"""The retriever of the offline protocol: matrix factorisation of who touched what (docs/method.md, offline protocol).

PureSVD (Cremonesi, Koren, Turrin: Performance of recommender algorithms on top-N recommendation tasks, RecSys 2010,
section 3.2): the truncated singular value decomposition of the 0/1 matrix of interactions. It has no step size and no
random initialisation that matters, so the same interactions always give the same scores.

Legend: U users, I items, R interactions, K factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import svds

FACTORS = 40
"""K. Chosen on MovieLens-1M so that its order gives H@6 0.265 descending, 0.060 ascending (docs/experiments.md)."""

SCORE_DECIMALS = 6
"""Scores are rounded: the last bits depend on the machine's linear algebra, and a ranking must not."""

_ROWS_AT_ONCE = 2048  # bounds the memory of gathered item factors


@dataclass(frozen=True)
class Retriever:
    """Factors of users and items; a score is their inner product."""

    user_UK: npt.NDArray[np.float64]
    item_IK: npt.NDArray[np.float64]

    def scores(self, user_Q: npt.NDArray[np.int64], item_QN: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Scores [Q, N] of each user's own items (indices, not ids); an index of -1 gives an arbitrary number."""
        score_QN = np.empty(item_QN.shape)
        for first in range(0, len(user_Q), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            np.einsum("qk,qnk->qn", self.user_UK[user_Q[rows]], self.item_IK[item_QN[rows]], out=score_QN[rows])
        return np.round(score_QN, SCORE_DECIMALS)

    def all_scores(self, user_Q: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Scores [Q, I] of every item for each user."""
        return np.round(self.user_UK[user_Q] @ self.item_IK.T, SCORE_DECIMALS)


def fit_retriever(
    user_R: npt.NDArray[np.int64],
    item_R: npt.NDArray[np.int64],
    users: int,
    items: int,
    seed: int,
    factors: int = FACTORS,
) -> Retriever:
    """Factorise the 0/1 matrix of the given interactions.

    Args:
        user_R, item_R: indices below ``users`` and ``items``; a pair that comes twice counts once.
        users, items: the matrix's shape; whoever has no interaction gets zero factors, hence zero scores.
        seed: of the iteration's starting vector.
        factors: K, lowered to what the matrix has.
    """
    matrix = sparse.csr_matrix((np.ones(len(user_R)), (user_R, item_R)), shape=(users, items))
    matrix.data[:] = 1.0
    smaller = min(users, items)
    if smaller <= 2 * factors:  # the iterative solver needs K well below both sides
        left_UK, value_K, right_KI = np.linalg.svd(matrix.toarray(), full_matrices=False)
        left_UK, value_K, right_KI = left_UK[:, :factors], value_K[:factors], right_KI[:factors]
    else:
        start = np.random.default_rng([seed, 1]).uniform(0.5, 1.5, smaller)
        left_UK, value_K, right_KI = svds(matrix, k=factors, v0=start)
    return Retriever(left_UK * value_K, np.ascontiguousarray(right_KI.T))
