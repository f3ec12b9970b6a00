"""The pretrained next-item model alone: what every other method starts from, and sees as an input.

No feedback on lists is used; candidates stand in the order of their next-item score (goalrank/pretrain.py).
"""

from __future__ import annotations

from torch import Tensor

from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes, RequestEncoder
from goalrank.policies import top_lists
from goalrank.pretrain import SHARED_PARTS, copy_pretrained


class Sequence(Baseline):
    """Candidates by next-item score."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = RequestEncoder(sizes)
        # What is not pretrained is not part of the method.
        for name, _ in list(self.encoder.named_children()):
            if not f"{name}.".startswith(SHARED_PARTS):
                delattr(self.encoder, name)

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL by descending score."""
        _, _, taste_BD = self.encoder.encode_history(batch.history_items_BH, batch.history_topics_BH)
        items_BND = self.encoder.items(batch.item_id_BN, batch.item_topics_BNT)
        return top_lists((items_BND @ taste_BD[..., None]).squeeze(-1), batch.mask_BN, length)

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """Take the lesson's encoder as it is."""
        copy_pretrained(lesson.encoder, self.encoder)
        return Trained(self.eval())
