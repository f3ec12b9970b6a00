"""Requests of made-up features, for benchmarks of time alone: what a model computes does not depend on what it reads.

Legend: B requests, N candidates, G lists a request, L list length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalrank.dataset import RequestBatch
from goalrank.features import ITEM_DENSE, MAX_ATTRIBUTES, USER_DENSE
from goalrank.schema import HISTORY_LENGTH, TOPIC_BUCKETS

CATALOGUE = 100_000
"""Item ids are drawn from 1 to this."""


def random_requests(
    requests: int, candidates: int, chance: torch.Generator, history: int = HISTORY_LENGTH
) -> RequestBatch:
    """B requests with N real candidates and a full history each, in the ranges of the real features."""
    B, N = requests, candidates

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance)

    def ids(*shape: int) -> Tensor:
        return torch.randint(1, CATALOGUE + 1, shape, generator=chance)

    topics_UT = (torch.rand(B, TOPIC_BUCKETS, generator=chance) < 0.2).float()
    return RequestBatch(
        user_dense_BF=normal(B, len(USER_DENSE)),
        user_topics_BT=topics_UT / topics_UT.sum(dim=1, keepdim=True).clamp(min=1.0),
        history_items_BH=ids(B, history),
        history_topics_BH=torch.randint(1, 1 << TOPIC_BUCKETS, (B, history), generator=chance),
        attributes_BA=ids(B, MAX_ATTRIBUTES),
        item_id_BN=ids(B, N),
        item_dense_BNF=normal(B, N, len(ITEM_DENSE)),
        item_topics_BNT=(torch.rand(B, N, TOPIC_BUCKETS, generator=chance) < 0.1).float(),
        score_BN=normal(B, N),
        mask_BN=torch.ones(B, N, dtype=torch.bool),
    )


def random_lists(requests: int, group: int, candidates: int, length: int, chance: torch.Generator) -> Tensor:
    """lists_BGL: distinct candidates in a drawn order."""
    return torch.rand(requests, group, candidates, generator=chance).argsort(dim=-1)[..., :length]
