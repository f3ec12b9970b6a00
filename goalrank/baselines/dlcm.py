"""DLCM: a recurrent network reads the initial ranking from its end to its top, and its last state re-scores every item
(Ai et al., "Learning a Deep Listwise Context Model for Ranking Refinement", SIGIR 2018, arXiv 1804.05936).

Has, of its paper: the input layers (two ELU layers beside the plain features), a GRU from the lowest to the highest
item of the initial ranking (the retriever's), the local ranking function phi(o, s) = V . (o tanh(W s + b)) of an
item's state and the last one, and the attention-rank loss (AttRank).
Lacks: the cut to the top n of the initial ranking (all candidates are read), and hand-made features of query and
document (the shared encoder's vectors of the candidates stand for them).

Legend: B requests, N candidates in the order of the batch or (R) from the lowest of the ranking up, D width,
K latent products of phi.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from goalrank.baselines.capacity import own_budget, parameters, pointwise
from goalrank.baselines.scorers import Scorer, initial_ranks
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes, RequestEncoder


def attention_rank_loss(score_BN: Tensor, gain_BN: Tensor, known_BN: Tensor) -> Tensor:
    """loss_B, AttRank (the paper's section on the loss function): cross-entropy, item by item, between the attention
    the gains ask for, exp(gain) where it is above 0 and else 0, and the softmax of the scores; both over the shown
    items. A request without any gain counts 0."""
    wanted_BN = torch.where(known_BN & (gain_BN > 0), gain_BN.exp(), 0.0)
    total_B1 = wanted_BN.sum(dim=1, keepdim=True)
    kept_BN = known_BN | (total_B1 <= 0)  # a row that is all -inf would have a gradient of NaN
    wanted_BN = wanted_BN / total_B1.clamp_min(torch.finfo(wanted_BN.dtype).tiny)
    given_BN = torch.softmax(score_BN.masked_fill(~kept_BN, -torch.inf), dim=1)
    smallest = 1e-7
    yes_BN, no_BN = given_BN.clamp_min(smallest).log(), (1.0 - given_BN).clamp_min(smallest).log()
    loss_BN = -(wanted_BN * yes_BN + (1.0 - wanted_BN) * no_BN)
    return torch.where(known_BN & (total_B1 > 0), loss_BN, 0.0).sum(dim=1)


class Dlcm(Scorer):
    """Scores in the light of the whole initial ranking, its top above all."""

    objective = staticmethod(attention_rank_loss)

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width = sizes.width
        self.sizes = sizes
        self.encoder = RequestEncoder(pointwise(sizes))
        self.abstract = nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, width), nn.ELU())
        self.read = nn.GRU(2 * width, width, batch_first=True)
        spent = parameters(self.abstract, self.read)
        products = max(1, (own_budget(sizes) - spent) // (width * width + width + 1))
        self.context = nn.Linear(width, products * width)
        self.out = nn.Linear(products, 1, bias=False)

    def scores(self, batch: RequestBatch) -> Tensor:
        """scores_BN."""
        x_BND = self.encoder(batch).candidates_BND
        # From the lowest of the ranking up, padding behind the top, where it changes no state that is looked at.
        rank_BN = initial_ranks(batch)
        order_BR = torch.where(batch.mask_BN, -rank_BN, 1).argsort(dim=1, stable=True)
        inputs_BNE = torch.cat([x_BND, self.abstract(x_BND)], dim=-1)
        states_BRD, _ = self.read(torch.take_along_dim(inputs_BNE, order_BR[..., None], dim=1))
        top_B = (batch.mask_BN.sum(dim=1) - 1).clamp(min=0)
        last_BD = states_BRD[torch.arange(len(top_B), device=top_B.device), top_B]
        states_BND = torch.take_along_dim(states_BRD, order_BR.argsort(dim=1)[..., None], dim=1)
        context_BKD = self.context(last_BD).tanh().unflatten(-1, (-1, states_BND.shape[-1]))
        return self.out(states_BND @ context_BKD.transpose(1, 2)).squeeze(-1)
