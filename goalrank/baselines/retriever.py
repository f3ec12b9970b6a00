"""The retriever's own order, best first or worst first: nothing is learnt.

Worst first is no joke: where a candidate set is made of what a retriever ranks high, ascending scores can look
excellent (docs/method.md, offline protocol for ratings), and a benchmark must show it.
"""

from __future__ import annotations

from torch import Tensor

from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes
from goalrank.policies import top_lists


class RetrieverOrder(Baseline):
    """Candidates by the retriever's score."""

    def __init__(self, sizes: ModelSizes, *, descending: bool) -> None:
        super().__init__()
        self.sizes, self.sign = sizes, 1.0 if descending else -1.0

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL, ties by index."""
        return top_lists(self.sign * batch.score_BN, batch.mask_BN, length)

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """There is nothing to learn."""
        return Trained(self.eval())
