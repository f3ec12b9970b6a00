"""PRM: a transformer over the initial list, its items marked with their places (Pei et al., "Personalized Re-ranking
for Recommendation", RecSys 2019, arXiv 1904.06813).

Has, of its paper: items with a learned embedding of their place in the initial list (the retriever's order), the
personalised vector beside them, transformer blocks over the list, and the softmax cross-entropy of what earned
something against the whole list.
Lacks: a click model of its own, trained before, whose hidden layer is the personalised vector. The shared encoder's
vector of user, history and candidate stands for it; its history part is pretrained, on the next item, and all of it
goes on learning. Labels are gains (clicks, likes, minutes), not clicks alone.

Legend: B requests, N candidates, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from goalrank.baselines.capacity import head_filling, own_budget, parameters, pointwise
from goalrank.baselines.scorers import Scorer, initial_ranks
from goalrank.dataset import RequestBatch
from goalrank.encoders import AttentionLayer, ModelSizes, RequestEncoder
from goalrank.objective import supervised_loss
from goalrank.reward import MAX_POSITIONS


class Prm(Scorer):
    """Scores of items that have seen each other and their places in the initial list."""

    objective = staticmethod(supervised_loss)

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width = sizes.width
        self.sizes = sizes
        self.encoder = RequestEncoder(pointwise(sizes))
        self.place = nn.Embedding(MAX_POSITIONS, width)  # places beyond share the last one's
        blocks = range(sizes.candidate_layers + sizes.decoder_layers)
        self.layers = nn.ModuleList(AttentionLayer(width, sizes.heads, sizes.dropout) for _ in blocks)
        self.norm_out = nn.LayerNorm(width)
        spent = parameters(self.place, self.layers, self.norm_out)
        self.out = head_filling(own_budget(sizes) - spent, width)
        nn.init.normal_(self.place.weight, std=0.3)

    def scores(self, batch: RequestBatch) -> Tensor:
        """scores_BN."""
        place_BN = initial_ranks(batch).clamp(max=MAX_POSITIONS - 1)
        x_BND = self.encoder(batch).candidates_BND + self.place(place_BN)
        visible_B11N = (batch.mask_BN | ~batch.mask_BN.any(dim=1, keepdim=True))[:, None, None, :]
        for layer in self.layers:
            x_BND = layer(x_BND, visible_B11N)
        return self.out(self.norm_out(x_BND)).squeeze(-1)
