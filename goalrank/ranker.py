"""The generator-only large ranking model: a request encoder and a pointer decoder (paper, the ranking model).

Deviations from the authors' public code: candidates are encoded once a request, all G lists of a group are scored in
one teacher-forced pass, and sampling caches keys and values (docs/method.md, "The cost to beat").

Legend: B requests, G lists a request, N candidates, L list length, D width. N and L are free at run time. A list is a
row of candidate indices; where a request has fewer than L candidates its lists end in -1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from goalrank.dataset import RequestBatch
from goalrank.decoding import Draws, PointerDecoder, chosen_log_prob
from goalrank.encoders import Encoded, ModelSizes, RequestEncoder


class Ranker(nn.Module):
    """pi_theta(list | request); no evaluator at serving time."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = RequestEncoder(sizes)
        self.decoder = PointerDecoder(sizes.width, sizes.heads, sizes.decoder_layers, sizes.dropout)

    def encode(self, batch: RequestBatch) -> Encoded:
        """Users, histories and candidates of a batch, encoded once for any number of lists."""
        return self.encoder(batch)

    def log_prob(self, encoded: Encoded, lists_BGL: Tensor) -> tuple[Tensor, Tensor]:
        """log pi_theta of every list: (log_prob_BG, steps_BGL), steps_BGL per position and 0 where a list holds -1.

        A list that repeats an item or names padding is impossible: its value is about decoding.BLOCKED.
        """
        logits_BGLN = self.decoder.logits(encoded, lists_BGL)
        # bf16's three digits are too few for a log-softmax, which not every device's autocast takes in float32.
        full = torch.promote_types(logits_BGLN.dtype, torch.float32)
        steps_BGL = chosen_log_prob(logits_BGLN.to(full), lists_BGL)
        return steps_BGL.sum(dim=-1), steps_BGL

    def sample(
        self,
        encoded: Encoded,
        count: int,
        length: int,
        temperature: float = 1.0,
        generator: torch.Generator | Draws | None = None,
    ) -> Tensor:
        """lists_BGL: `count` lists a request, drawn independently, items distinct within a list."""
        return self.decoder.decode(encoded, count, length, temperature, generator)[0]

    def sample_with_log_prob(
        self,
        encoded: Encoded,
        count: int,
        length: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """lists_BGL and steps_BGL, the log-probability of each item under the distribution it was drawn from, the
        temperature included: exp(steps_BGL) are the propensities a log of exploration needs."""
        lists_BGL, logits = self.decoder.decode(encoded, count, length, temperature, generator)
        return lists_BGL, chosen_log_prob(torch.stack(logits, dim=2), lists_BGL)

    def greedy(self, encoded: Encoded, length: int) -> Tensor:
        """lists_BL: the likeliest item at each step; what is served."""
        return self.decoder.decode(encoded, 1, length, None, None)[0].squeeze(1)

    def beam(self, encoded: Encoded, width: int, length: int) -> tuple[Tensor, Tensor]:
        """lists_BWL, the likeliest that a beam search of that width finds, best first, and log_prob_BW.

        Rows of -1 with log-probability -inf where a request has fewer than `width` lists.
        """
        return self.decoder.beam(encoded, width, length)

    def first_step_logits(self, encoded: Encoded) -> Tensor:
        """logits_BN of the first position: one score a candidate, for pointwise metrics (AUC over the candidates)."""
        empty_B11 = torch.full_like(encoded.mask_BN[:, :1], -1, dtype=torch.int64).unsqueeze(1)
        return self.decoder.logits(encoded, empty_B11).flatten(1)
