"""Requests with one planted effect each: who pays is a rule of our own, so that a test knows what there is to learn.

Candidates are of kinds, told by their topic: of 12, four A and four B may pay, their company of four never does. What
was shown is drawn uniformly, so the log itself prefers nothing.

Legend: E requests, N candidates, L list length, H history, T topic buckets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from goalrank.dataset import Feedback, RequestBatch
from goalrank.features import ITEM_DENSE, MAX_ATTRIBUTES, USER_DENSE
from goalrank.schema import LIST_LENGTH, TOPIC_BUCKETS

A, B = range(2)
"""Topics of the candidates that may pay."""
TASTES = (4, 5)
"""Topics of a history's items, and of the company that A and B have among the candidates: one or the other."""
MANY = 16
"""Topics that candidates are of where each has its own."""
PAYS, BETWEEN, PAYS_NOT = 0.9, 0.45, 0.02
REQUESTS, CANDIDATES, HISTORY, ITEMS = 2000, 12, 3, 300

Pays = Callable[["PlantedRequests", Tensor], Tensor]
"""(requests, lists_EL) -> chance_EL of a click on each item at its place."""


@dataclass
class PlantedRequests:
    """What the harness asks of a training set: batches and feedback by row."""

    requests: RequestBatch
    kind_EN: Tensor
    log: Feedback

    @classmethod
    def draw(cls, pays: Pays, seed: int = 0, *, skewed: bool = False, many: bool = False) -> PlantedRequests:
        """Draw requests, show uniformly drawn lists, click by the rule.

        Args:
            pays: the rule.
            seed: of everything.
            many: every candidate is of a topic of its own, and a history holds three of these topics.
            skewed: the retriever's scores lean one way or the other, so that a score says little of its rank.
        """
        rng = np.random.default_rng(seed)
        kinds = np.tile([A] * 4 + [B] * 4 + [TASTES[0]] * 4, (REQUESTS, 1))
        kinds[rng.random(REQUESTS) < 0.5, 8:] = TASTES[1]
        tastes = rng.choice(TASTES, (REQUESTS, HISTORY))
        if many:
            kinds = rng.permuted(np.tile(np.arange(MANY), (REQUESTS, 1)), axis=1)[:, :CANDIDATES]
            tastes = kinds[:, :HISTORY].copy()
        kind_EN, taste_EH = torch.from_numpy(rng.permuted(kinds, axis=1)), torch.from_numpy(tastes)
        score_EN = rng.normal(size=(REQUESTS, CANDIDATES))
        if skewed:
            score_EN = rng.random((REQUESTS, CANDIDATES)) ** 6 * rng.choice([-1.0, 1.0], (REQUESTS, 1))
        score_EN = (score_EN - score_EN.mean(1, keepdims=True)) / score_EN.std(1, keepdims=True)
        topics = torch.eye(TOPIC_BUCKETS)
        requests = RequestBatch(
            user_dense_BF=torch.zeros(REQUESTS, len(USER_DENSE)),
            user_topics_BT=topics[taste_EH].mean(dim=1),
            history_items_BH=torch.from_numpy(rng.integers(1, ITEMS, (REQUESTS, HISTORY))),
            history_topics_BH=1 << taste_EH,
            attributes_BA=torch.zeros(REQUESTS, MAX_ATTRIBUTES, dtype=torch.int64),
            item_id_BN=torch.from_numpy(rng.integers(1, ITEMS, (REQUESTS, CANDIDATES))),
            item_dense_BNF=torch.zeros(REQUESTS, CANDIDATES, len(ITEM_DENSE)),
            item_topics_BNT=topics[kind_EN],
            score_BN=torch.from_numpy(score_EN).float(),
            mask_BN=torch.ones(REQUESTS, CANDIDATES, dtype=torch.bool),
        )
        shown_EL = torch.from_numpy(rng.random((REQUESTS, CANDIDATES)).argsort(axis=1)[:, :LIST_LENGTH].copy())
        nothing_EL = torch.zeros(REQUESTS, LIST_LENGTH)
        log = Feedback(
            slate_BL=shown_EL,
            click_BL=nothing_EL,
            like_BL=nothing_EL,
            watch_seconds_BL=nothing_EL * torch.nan,
            propensity_BL=nothing_EL * torch.nan,
            mask_BL=torch.ones_like(shown_EL, dtype=torch.bool),
            self_selected_B=torch.zeros(REQUESTS, dtype=torch.bool),
        )
        made = cls(requests, kind_EN, log)
        drawn_EL = torch.from_numpy(rng.random((REQUESTS, LIST_LENGTH)))
        log.click_BL = (drawn_EL < pays(made, shown_EL)).float()
        return made

    def batch(self, indices: np.ndarray) -> RequestBatch:
        """Requests by row."""
        rows = torch.as_tensor(indices)
        return RequestBatch(*(getattr(self.requests, field.name)[rows] for field in fields(RequestBatch)))

    def feedback(self, indices: np.ndarray) -> Feedback:
        """Feedback to the same."""
        rows = torch.as_tensor(indices)
        return Feedback(*(getattr(self.log, field.name)[rows] for field in fields(Feedback)))

    def earned(self, pays: Pays, rows: np.ndarray, lists_BL: Tensor) -> float:
        """Mean chance of a click at a place of these rows' lists."""
        lists_EL = torch.zeros(REQUESTS, lists_BL.shape[1], dtype=torch.int64)
        lists_EL[rows] = lists_BL
        return float(pays(self, lists_EL)[rows].mean())

    def kinds(self, lists_EL: Tensor) -> Tensor:
        """The kind of each item of lists, one list a request."""
        return self.kind_EN.gather(1, lists_EL)


def _chance(pays_EL: Tensor) -> Tensor:
    return torch.where(pays_EL, PAYS, PAYS_NOT)


def by_little(made: PlantedRequests, lists_EL: Tensor) -> Tensor:
    """B pays somewhat better than all others."""
    return torch.where(made.kinds(lists_EL) == B, 0.55, BETWEEN)


def by_company(made: PlantedRequests, lists_EL: Tensor) -> Tensor:
    """A pays where its company among the candidates, shown or not, is of the second taste, B in between anywhere: on
    the whole the two are worth the same."""
    kind_EL = made.kinds(lists_EL)
    good_E1 = (made.kind_EN == TASTES[1]).any(dim=1, keepdim=True)
    return torch.where(kind_EL == A, _chance(good_E1), torch.where(kind_EL == B, BETWEEN, PAYS_NOT))


def by_match(made: PlantedRequests, lists_EL: Tensor) -> Tensor:
    """A candidate pays whose topic an item of the history has."""
    kind_EL1 = 1 << made.kinds(lists_EL)[..., None]
    return _chance((kind_EL1 == made.requests.history_topics_BH[:, None]).any(dim=-1))


def by_initial_place(made: PlantedRequests, lists_EL: Tensor) -> Tensor:
    """The items in the middle of the retriever's order pay: its places 5 to 8 of 12."""
    rank_EN = made.requests.score_BN.argsort(dim=1, descending=True).argsort(dim=1)
    rank_EL = rank_EN.gather(1, lists_EL)
    return _chance((rank_EL >= 4) & (rank_EL < 8))


def by_initial_neighbour(made: PlantedRequests, lists_EL: Tensor) -> Tensor:
    """An item pays if the one just below it in the retriever's order is an A."""
    order_EN = made.requests.score_BN.argsort(dim=1, descending=True)
    below_EN = made.kind_EN.gather(1, order_EN).roll(-1, dims=1) == A
    below_EN[:, -1] = False
    return _chance(below_EN.gather(1, order_EN.argsort(dim=1)).gather(1, lists_EL))


def by_place(made: PlantedRequests, lists_EL: Tensor) -> Tensor:
    """A pays on the first half of the list, B on the second."""
    first_L = torch.arange(lists_EL.shape[1]) < lists_EL.shape[1] // 2
    return _chance(made.kinds(lists_EL) == torch.where(first_L, A, B))
