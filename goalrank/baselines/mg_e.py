"""MG-E: k generators propose a list each, an evaluator picks one (Yang et al., "Comprehensive List Generation for
Multi-Generator Reranking", SIGIR 2025, arXiv 2504.15625; docs/method.md, theorem 1 and the field).

Has, of its paper: several generators that differ, one list of each, and one evaluator that the lists compete before.
GoalRank's rows have k = 3, 20 and 100.
Lacks: the search for complementary generators, whose policy is rewarded for the comprehensiveness of all lists together
(how much each adds to the others), and generators that are re-ranking models of their own. Ours are light scorers on
one shared encoder (generators.py says what makes them differ, and that k separate models would differ more); they learn
from the log, not from the evaluator. The evaluator is our list-level reward model.

Legend: B requests, K generators, L list length.
"""

from __future__ import annotations

from torch import Tensor

from goalrank.baselines.generators import Generators
from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained, best_of, learn_generators
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes
from goalrank.reward import RewardModel


class MultiGeneratorEvaluator(Baseline):
    """K generators, K lists."""

    def __init__(self, sizes: ModelSizes, generators: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.generators = Generators(sizes, generators)
        self.evaluator = RewardModel(sizes)

    def propose(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BKL: one of each generator."""
        return self.generators.lists(batch, length)

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL: the proposal that the evaluator likes best."""
        return best_of(self.evaluator, batch, self.propose(batch, length))

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """Train all generators at once, then the evaluator unless it is given."""
        return learn_generators(self, self.generators, self.evaluator, lesson, progress)
