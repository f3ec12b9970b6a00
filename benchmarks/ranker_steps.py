"""One training step of the ranker on given lists, computed in three ways with the same weights: forward, the
group-relative loss, backward, clipping, optimiser. What a night's step does besides (batch, sampling, rewards) is alike
in all and left out.

    teacher-forced  goalrank/ranker.py: one encoding, all positions of all lists in one pass
    step-by-step    one encoding, a pass for each position over the items before it
    re-encoding     the authors' way: an encoding for each position of each list

Re-encoding goes backward after each position, so that it holds the graph of one encoding only: the loss is linear in
log-probabilities, hence the gradients are the same. "One graph" goes backward once, as the authors' code does.

Legend: B requests, G lists a request, L list length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.random_requests import random_lists, random_requests
from benchmarks.reencoding import reencoded_log_prob, reencoded_steps, stepwise_log_prob
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes
from goalrank.objective import ObjectiveConfig, group_reference, group_relative_loss
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.schema import LIST_LENGTH
from goalrank.train import BETAS, CLIP_NORM, EPSILON, WEIGHT_DECAY

CANDIDATES = 50
AUTHORS_GROUP = 20
"""Lists a request in the authors' public code (docs/method.md, the cost to beat)."""

OURS, STEPWISE, REENCODING, ONE_GRAPH = "teacher-forced", "step-by-step", "re-encoding", "re-encoding, one graph"

OBJECTIVE = ObjectiveConfig()


@dataclass
class Work:
    """What a step learns from."""

    batch: RequestBatch
    lists_BGL: Tensor
    rewards_BG: Tensor
    mask_BG: Tensor
    weight_B: Tensor

    @classmethod
    def drawn(cls, requests: int, group: int = AUTHORS_GROUP, seed: int = 0) -> Work:
        """Made-up requests, lists and rewards."""
        chance = torch.Generator().manual_seed(seed)
        return cls(
            batch=random_requests(requests, CANDIDATES, chance),
            lists_BGL=random_lists(requests, group, CANDIDATES, LIST_LENGTH, chance),
            rewards_BG=torch.randn(requests, group, generator=chance),
            mask_BG=torch.ones(requests, group, dtype=torch.bool),
            weight_B=torch.rand(requests, generator=chance),
        )

    def to(self, device: torch.device | str) -> Work:
        """The same on another device."""
        return Work(self.batch.to(device), *(value.to(device) for name, value in vars(self).items() if name != "batch"))

    @property
    def lists(self) -> int:
        """B * G."""
        return self.lists_BGL.shape[0] * self.lists_BGL.shape[1]

    def coefficient_BG(self) -> Tensor:  # noqa: N802
        """What the loss weighs each list's log-probability by."""
        reference_BG = group_reference(self.rewards_BG, self.mask_BG, OBJECTIVE.normalisation, OBJECTIVE.temperature)
        return -self.weight_B.unsqueeze(1) * reference_BG / len(self.weight_B)


def fresh(name: str, seed: int = 0) -> tuple[Ranker, torch.optim.Optimizer]:
    """A ranker of that preset without dropout (evaluation mode; gradients flow all the same) and its optimiser."""
    torch.manual_seed(seed)
    ranker = Ranker(ModelSizes.from_preset(preset(name))).eval()
    return ranker, optimizer_of(ranker, preset(name).learning_rate)


def optimizer_of(ranker: Ranker, rate: float) -> torch.optim.Optimizer:
    """As goalrank/train.py's."""
    weights = ranker.parameters()
    return torch.optim.AdamW(weights, lr=rate, betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY, fused=True)


def log_prob(way: str, ranker: Ranker, work: Work) -> Tensor:
    """log_prob_BG of the work's lists; encoding included."""
    if way == OURS:
        return ranker.log_prob(ranker.encode(work.batch), work.lists_BGL)[0]
    if way == STEPWISE:
        return stepwise_log_prob(ranker, ranker.encode(work.batch), work.lists_BGL)
    return reencoded_log_prob(ranker, work.batch, work.lists_BGL)


def backward(way: str, ranker: Ranker, work: Work) -> float:
    """Leave the gradients of the loss in the ranker's weights; the loss."""
    if way != REENCODING:
        log_prob_BG = log_prob(way, ranker, work)
        loss = group_relative_loss(log_prob_BG, work.rewards_BG, work.mask_BG, work.weight_B, OBJECTIVE)
        loss.backward()
        return float(loss.detach())
    total = 0.0
    coefficient_BG = work.coefficient_BG()
    for g, step_B in reencoded_steps(ranker, work.batch, work.lists_BGL):
        term = (coefficient_BG[:, g] * step_B).sum()
        term.backward()
        total += float(term.detach())
    return total


def step(way: str, ranker: Ranker, optimizer: torch.optim.Optimizer, work: Work) -> float:
    """One training step; the loss before it."""
    optimizer.zero_grad(set_to_none=True)
    loss = backward(way, ranker, work)
    nn.utils.clip_grad_norm_(ranker.parameters(), CLIP_NORM)
    optimizer.step()
    return loss


def prepared(way: str, name: str, requests: int, group: int) -> Callable[[], float]:
    """For benchmarks/peak_memory.py: a step of that kind, everything built and the optimiser's state in place."""
    torch.set_num_threads(1)
    ranker, optimizer = fresh(name)
    step(OURS, ranker, optimizer, Work.drawn(2, 2))
    optimizer.zero_grad(set_to_none=True)
    work = Work.drawn(requests, group)
    return lambda: step(way, ranker, optimizer, work)
