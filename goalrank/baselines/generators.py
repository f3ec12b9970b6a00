"""k light list generators: pointwise scorers on one shared encoder, each with a character of its own.

The generator-evaluator papers leave the generators open ("a small generator"; docs/method.md). Ours are two-layer heads
on the request encoder's candidates, so k = 100 costs little more than k = 1. What makes them differ:

- the objective, in turn: click (cross-entropy), value (Poisson likelihood of the logged gain), list-wise (softmax
  cross-entropy of the gains), pair-wise (logistic loss, what earned more above what earned less);
- the requests: each weighs them by its own Poisson(1) numbers, the online bootstrap (Oza and Russell, 2001);
- the features: each sees a drawn half of the encoder's dimensions (random subspaces; Ho, 1998);
- the taste for diversity: lists are built greedily by maximal marginal relevance (Carbonell and Goldstein, 1998) with
  topic similarity weighing 0 (every other generator) or up to MAX_DIVERSITY.

They share the encoder, so they are less diverse than k separate models would be.

Legend: B requests, N candidates, K generators, D width, W hidden width, L list length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from goalrank.baselines.harness import Learner
from goalrank.dataset import Feedback, RequestBatch
from goalrank.encoders import ModelSizes, RequestEncoder, z_scored
from goalrank.objective import supervised_loss
from goalrank.schedule import derived_seed
from goalrank.train import logged_gains

HIDDEN = 16
MAX_DIVERSITY = 1.5
"""Weight of topic similarity (0..1) against z-scored scores, for the most diverse generator."""

_BOOTSTRAP = 11  # purpose of the derived seed


class Generators(Learner):
    """K scorers of candidates."""

    diversity_K: Tensor
    seen_KD: Tensor

    def __init__(self, sizes: ModelSizes, count: int) -> None:
        super().__init__()
        self.count, self.sizes = count, sizes
        self.encoder = RequestEncoder(sizes)
        self.weight_KDW = nn.Parameter(torch.randn(count, sizes.width, HIDDEN) * (2 / sizes.width) ** 0.5)
        self.bias_KW = nn.Parameter(torch.zeros(count, HIDDEN))
        self.out_KW = nn.Parameter(torch.randn(count, HIDDEN) * 0.1 * HIDDEN**-0.5)
        self.offset_K = nn.Parameter(torch.zeros(count))
        # A lone generator has all features and no taste of its own.
        share_K = torch.arange(count) % 2 * torch.linspace(0, 1, max(count, 2))[:count]
        self.register_buffer("diversity_K", MAX_DIVERSITY * share_K)
        seen_KD = torch.rand(count, sizes.width).argsort(dim=1) < (sizes.width + 1) // 2
        self.register_buffer("seen_KD", seen_KD.float() if count > 1 else torch.ones(1, sizes.width))

    def scores(self, batch: RequestBatch) -> Tensor:
        """scores_BKN, the higher the better."""
        encoded = self.encoder(batch)
        weight_KDW = self.weight_KDW * self.seen_KD[..., None]
        hidden_BKNW = functional.relu(
            torch.einsum("bnd,kdw->bknw", encoded.candidates_BND, weight_KDW) + self.bias_KW[:, None]
        )
        return torch.einsum("bknw,kw->bkn", hidden_BKNW, self.out_KW) + self.offset_K[:, None]

    def lists(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BKL: the list of each generator."""
        return diverse_lists(self.scores(batch), batch, length, self.diversity_K)

    def loss(
        self, batch: RequestBatch, feedback: Feedback, rows_B: np.ndarray | None, chance: torch.Generator
    ) -> Tensor:
        """The mean over generators of each one's own objective, on the shown items alone."""
        scores_BKN = self.scores(batch)
        gain_BN, known_BN = logged_gains(feedback, batch)
        weight_BK = self._weights(rows_B, len(batch)).to(scores_BKN.device)
        loss_BK = torch.zeros_like(weight_BK)
        for first, objective in enumerate(OBJECTIVES[: self.count]):
            own_BKN = scores_BKN[:, first :: len(OBJECTIVES)]
            count = own_BKN.shape[1]
            gain_XN, known_XN = (part.repeat_interleave(count, dim=0) for part in (gain_BN, known_BN))
            loss_BK[:, first :: len(OBJECTIVES)] = objective(own_BKN.flatten(0, 1), gain_XN, known_XN).view(-1, count)
        return (loss_BK * weight_BK).mean()

    def _weights(self, rows_B: np.ndarray | None, size: int) -> Tensor:
        """Bootstrap weights [B, K] of requests, the same whenever a request comes by; 1 on held-out ones."""
        if rows_B is None or self.count == 1:
            return torch.ones(size, self.count)
        drawn = [
            np.random.default_rng(derived_seed(int(row), _BOOTSTRAP, 0)).poisson(1.0, self.count) for row in rows_B
        ]
        return torch.from_numpy(np.stack(drawn)).float()


def diverse_lists(scores_BKN: Tensor, batch: RequestBatch, length: int, diversity_K: Tensor) -> Tensor:
    """lists_BKL by maximal marginal relevance: z-scored score less diversity times the similarity of topics (cosine) to
    the most similar item chosen before; -1 where candidates run out."""
    B, K, N = scores_BKN.shape
    topics_BNT = functional.normalize(batch.item_topics_BNT, dim=-1)
    similarity_BNN = topics_BNT @ topics_BNT.transpose(1, 2)
    mask_XN = batch.mask_BN[:, None].expand(B, K, N).reshape(-1, N)
    relevance_BKN = z_scored(scores_BKN.reshape(-1, N), mask_XN).view(B, K, N)
    available_BKN = mask_XN.view(B, K, N).clone()
    nearest_BKN = torch.zeros_like(relevance_BKN)
    columns = []
    for _ in range(length):
        value_BKN = relevance_BKN - diversity_K[:, None] * nearest_BKN
        chosen_BK1 = value_BKN.masked_fill(~available_BKN, -torch.inf).argmax(dim=2, keepdim=True)
        columns.append(chosen_BK1.masked_fill(~available_BKN.any(dim=2, keepdim=True), -1))
        available_BKN = available_BKN.scatter(2, chosen_BK1, False)
        chosen_BKN = similarity_BNN.gather(1, chosen_BK1.expand(-1, -1, N))
        nearest_BKN = torch.maximum(nearest_BKN, chosen_BKN)
    return torch.cat(columns, dim=2)


# ---------------------------------------------------------------------------------------------------------- objectives


def click_loss(score_BN: Tensor, gain_BN: Tensor, known_BN: Tensor) -> Tensor:
    """loss_B: cross-entropy of "earned anything", mean over the shown items."""
    target_BN = (gain_BN > 0).float()
    loss_BN = functional.binary_cross_entropy_with_logits(score_BN, target_BN, reduction="none")
    return (loss_BN * known_BN).sum(dim=1) / known_BN.sum(dim=1).clamp_min(1)


def value_loss(score_BN: Tensor, gain_BN: Tensor, known_BN: Tensor) -> Tensor:
    """loss_B: Poisson likelihood of the gain, the score its logarithm."""
    loss_BN = functional.poisson_nll_loss(score_BN.clamp(-8.0, 6.0), gain_BN, reduction="none")
    return (loss_BN * known_BN).sum(dim=1) / known_BN.sum(dim=1).clamp_min(1)


def pair_loss(score_BN: Tensor, gain_BN: Tensor, known_BN: Tensor) -> Tensor:
    """loss_B: logistic loss of all pairs of shown items of which one earned more."""
    above_BNN = (gain_BN[:, :, None] > gain_BN[:, None, :]) & known_BN[:, :, None] & known_BN[:, None, :]
    loss_BNN = functional.softplus(score_BN[:, None, :] - score_BN[:, :, None])
    return (loss_BNN * above_BNN).sum(dim=(1, 2)) / above_BNN.sum(dim=(1, 2)).clamp_min(1)


OBJECTIVES = (click_loss, value_loss, supervised_loss, pair_loss)
