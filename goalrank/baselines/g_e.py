"""G-E: one small generator proposes lists, an evaluator that sees whole lists picks one. It stands for the
evaluator-generator framework, EGRank (Huzhang et al., "AliExpress Learning-To-Rank: Maximizing Online Model Performance
without Going Online", TKDE 2021, arXiv 2003.11941; docs/method.md, the problem).

Has, of its paper: the two parts, a generator of lists and an evaluator of items in the context of their list that
learns from logged feedback.
Lacks: a generator that learns from the evaluator (the paper's maximises its score by reinforcement learning) and the
discriminator that keeps the evaluator to what it generalises to. Ours is a pointwise scorer that learns from the log
alone, so the evaluator must choose at serving time: among the generator's best list and samples around it
(Plackett-Luce on its scores). The evaluator is our list-level reward model, not the paper's.

Legend: B requests, G proposed lists, N candidates, L list length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalrank.baselines.generators import Generators
from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained, best_of, learn_generators
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes, z_scored
from goalrank.policies import PERTURBATION_TEMPERATURE, gumbel, top_lists
from goalrank.reward import RewardModel

PROPOSALS = 100
"""Lists a request, the generator's best one first: as many as MG-E of 100 generators proposes and PIER draws."""


class GeneratorEvaluator(Baseline):
    """One generator, PROPOSALS lists."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.generators = Generators(sizes, 1)
        self.evaluator = RewardModel(sizes)

    def propose(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BGL: the best by score, then samples; the noise is the same at each call."""
        score_BN = z_scored(self.generators.scores(batch)[:, 0], batch.mask_BN)
        lists = [top_lists(score_BN, batch.mask_BN, length)]
        chance = torch.Generator().manual_seed(0)
        for _ in range(PROPOSALS - 1):
            noisy_BN = score_BN / PERTURBATION_TEMPERATURE + gumbel(score_BN.shape, chance, score_BN.device)
            lists.append(top_lists(noisy_BN, batch.mask_BN, length))
        return torch.stack(lists, dim=1)

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL: the proposal that the evaluator likes best."""
        return best_of(self.evaluator, batch, self.propose(batch, length))

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """Train the generator, then the evaluator unless it is given."""
        return learn_generators(self, self.generators, self.evaluator, lesson, progress)
