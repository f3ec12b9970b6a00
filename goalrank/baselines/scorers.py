"""Methods that score the candidates and show the best: what they have in common.

A score may depend on all candidates of the request (list-wise scorers) or on the one alone; the list is made by sorting
all the same. Their lists are the requests' candidates: of these only the shown ones have feedback and enter the
objectives, unless the user chose (schema.SELF_SELECTED).

Legend: B requests, N candidates, L list length, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from goalrank.baselines.distillation import Student, taught
from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained, fit
from goalrank.dataset import Feedback, RequestBatch
from goalrank.encoders import ModelSizes, z_scored
from goalrank.policies import PERTURBATION_TEMPERATURE, gumbel, top_lists
from goalrank.reward import RewardModel, gather_items
from goalrank.schema import LIST_LENGTH
from goalrank.train import logged_gains

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(score_BN, gain_BN, known_BN) -> loss_B"""


class Scorer(Student):
    """A model of the candidates' scores, fitted to the logged gains of the items that were shown."""

    sizes: ModelSizes
    objective: Objective

    def scores(self, batch: RequestBatch) -> Tensor:
        """scores_BN, the higher the better; on the scale of a logarithm of gains."""
        raise NotImplementedError

    def loss(
        self, batch: RequestBatch, feedback: Feedback, rows_B: np.ndarray | None, chance: torch.Generator
    ) -> Tensor:
        """The method's own objective, and its teacher's where it has one."""
        score_BN = self.scores(batch)
        loss = type(self).objective(score_BN, *logged_gains(feedback, batch)).mean()
        if self.teacher is None:
            return loss
        own_BGL = self._sampled(score_BN.detach(), batch, chance) if self.training else None
        return loss + self.teacher.loss(batch, feedback, own_BGL, chance, lambda lists: list_values(score_BN, lists))

    def _sampled(self, score_BN: Tensor, batch: RequestBatch, chance: torch.Generator) -> Tensor:
        """lists_BGL around the scores (Plackett-Luce), as many as GoalRank samples of its own."""
        assert self.teacher is not None
        sharp_BN = z_scored(score_BN, batch.mask_BN) / PERTURBATION_TEMPERATURE
        lists = []
        for _ in range(self.teacher.own_lists):
            noisy_BN = sharp_BN + gumbel(sharp_BN.shape, chance, sharp_BN.device)
            lists.append(top_lists(noisy_BN, batch.mask_BN, LIST_LENGTH))
        return torch.stack(lists, dim=1)


class TopScored(Baseline):
    """The best candidates by a scorer, best first."""

    def __init__(self, scorer: Scorer, *, with_reward: bool = False) -> None:
        """Of an untrained scorer; `with_reward`: it is to learn from the reward model too (distillation.py)."""
        super().__init__()
        self.sizes, self.with_reward = scorer.sizes, with_reward
        self.scorer = scorer

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL by descending score."""
        return top_lists(self.scorer.scores(batch), batch.mask_BN, length)

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """Train the scorer, after its guide if it is to have one that is not given."""
        if self.with_reward:
            figures = taught(self.scorer, RewardModel(self.sizes), lesson, progress)
        else:
            figures = {"scorer": fit(self.scorer, lesson, progress)}
        self.eval()
        return Trained(self, figures)


def initial_ranks(batch: RequestBatch) -> Tensor:
    """rank_BN int64 of each candidate in the retriever's order, 0 the highest score, ties by index, padding last."""
    score_BN = batch.score_BN.masked_fill(~batch.mask_BN, -torch.inf)
    return score_BN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def list_values(score_BN: Tensor, lists_BGL: Tensor) -> Tensor:
    """value_BG of lists by their items' scores, discounted by place as in DCG: 1 / log2(place + 1), places from 1."""
    place_L = torch.arange(2, lists_BGL.shape[2] + 2, device=score_BN.device)
    return (gather_items(score_BN[..., None], lists_BGL).squeeze(-1) / place_L.log2()).sum(dim=-1)
