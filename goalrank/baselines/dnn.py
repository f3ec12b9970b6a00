"""DNN: each candidate scored by itself, from user, history and its own features; no other candidate is looked at.

Has: the shared encoder without its candidate layers (user, history, attention of the candidate to the history, as in
DIN; Zhou et al., KDD 2018), residual feed-forward layers in their place, and one score a candidate.
Lacks: nothing that a pointwise scorer of this kind has. Its usual cross-entropy of clicks is the Poisson likelihood of
the whole gain here (clicks, likes, minutes), since that is what lists are judged by. The next-item score is an input
as it is: z-scored within the request, as the other methods get it, it would tell what else stands there. The
retriever's score is z-scored by the data and tells that little.

Legend: B requests, N candidates, D width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from goalrank.baselines.capacity import head_filling, own_budget, parameters, pointwise
from goalrank.baselines.generators import value_loss
from goalrank.baselines.scorers import Scorer
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes, RequestEncoder

EXPANSION = 4
"""Width of a feed-forward layer, in model widths: it then has the parameters of an attention layer."""


class PointwiseEncoder(RequestEncoder):
    """The shared encoder, its candidates blind to each other."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__(pointwise(sizes))

    def _scaled(self, next_item_BN: Tensor, mask_BN: Tensor) -> Tensor:
        return next_item_BN * mask_BN


class FeedForward(nn.Module):
    """A pre-norm residual layer of each candidate by itself."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, EXPANSION * width)
        self.contract = nn.Linear(EXPANSION * width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """x_BND to x_BND."""
        changed_BND = self.contract(functional.relu(self.expand(self.norm(x_BND))))
        return x_BND + functional.dropout(changed_BND, self.dropout, self.training)


class Dnn(Scorer):
    """A pointwise scorer of the log of the expected gain."""

    objective = staticmethod(value_loss)

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = PointwiseEncoder(sizes)
        depth = range(sizes.candidate_layers + sizes.decoder_layers)
        self.layers = nn.ModuleList(FeedForward(sizes.width, sizes.dropout) for _ in depth)
        self.norm_out = nn.LayerNorm(sizes.width)
        self.out = head_filling(own_budget(sizes) - parameters(self.layers, self.norm_out), sizes.width)

    def scores(self, batch: RequestBatch) -> Tensor:
        """scores_BN."""
        x_BND = self.encoder(batch).candidates_BND
        for layer in self.layers:
            x_BND = layer(x_BND)
        return self.out(self.norm_out(x_BND)).squeeze(-1)
