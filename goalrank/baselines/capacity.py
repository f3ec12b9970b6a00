"""How large a method of the field may be: about as large as GoalRank's own ranker at the same preset.

The re-rankers of the field bring their own way for candidates to see each other, so they read the shared encoder
without its candidate layers (`pointwise`) and get what those layers and the ranker's decoder have: `own_budget`. Each
takes its layers from the preset and its last, wide layer takes what is left. Evaluators are counted apart.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from goalrank.encoders import ModelSizes, RequestEncoder
from goalrank.ranker import Ranker


def pointwise(sizes: ModelSizes) -> ModelSizes:
    """The same sizes for an encoder whose candidates do not attend to each other.

    A trace of the others stays in it: the retriever's and the next-item score are z-scored within the request.
    """
    return replace(sizes, candidate_layers=0)


def own_budget(sizes: ModelSizes) -> int:
    """Parameters a method may have beside the pointwise encoder."""
    with torch.device("meta"):
        return parameters(Ranker(sizes)) - parameters(RequestEncoder(pointwise(sizes)))


def parameters(*parts: nn.Module) -> int:
    """Trainable numbers of these modules."""
    return sum(weight.numel() for part in parts for weight in part.parameters())


def head_filling(budget: int, inputs: int) -> nn.Sequential:
    """Two layers from `inputs` to one number, the hidden one as wide as the budget allows (at least 1)."""
    hidden = max(1, (budget - 1) // (inputs + 2))
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))
