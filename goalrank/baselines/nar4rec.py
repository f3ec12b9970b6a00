"""NAR4Rec: all places of a list are filled at once, from a matrix of how well each candidate matches each place (Ren
et al., "Non-autoregressive Generative Models for Reranking Recommendation", KDD 2024, arXiv 2402.06871).

Has, of its paper: the matching model (candidates that see each other; places with shared embeddings that see each other
and the candidates; the probability of a candidate at a place by their inner product), unlikelihood training (what the
feedback speaks for is made likely, the rest unlikely), contrastive decoding (a place takes the candidate of high
probability that is unlike those placed before it), and an evaluator that picks among several decoded lists: the
list-level reward model.
Deviates: feedback speaks place by place, not by the list as a whole as in the paper. Whole lists, called good where
they earned more than the mean, taught our generator hardly more than to imitate the log (docs/experiments.md). Where
the user chose the list (schema.SELF_SELECTED) the lists with known feedback are partitions of the candidates, as for
the reward model.

Legend: B requests, N candidates, G lists, L places of a list, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from goalrank.baselines.capacity import pointwise
from goalrank.baselines.distillation import Student, taught
from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained, best_of, learn_generators
from goalrank.dataset import Feedback, RequestBatch
from goalrank.encoders import EXPANSION, AttentionLayer, Encoded, ModelSizes, RequestEncoder
from goalrank.policies import gumbel
from goalrank.reward import MAX_POSITIONS, RewardModel
from goalrank.reward_training import label_lists, place_gains
from goalrank.schema import LIST_LENGTH, RewardWeights

PENALTIES = (0.0, 0.1, 0.2, 0.4)
"""Weight of likeness in contrastive decoding, a probability being worth 1 less it (the paper's alpha)."""
KEPT = 2 * LIST_LENGTH
"""Only so many of the likeliest candidates of a place compete, so that likeness never brings in an unlikely one."""
DRAWS = 5
"""Lists a penalty: one decoded as it is, the others after noise on the logits."""
BLOCKED = -1e9


class Matching(Student):
    """Matches candidates and places; trained on logged lists by what they earned."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width = sizes.width
        self.weights = RewardWeights()
        self.encoder = RequestEncoder(pointwise(sizes))
        layers = range(sizes.candidate_layers)
        self.layers = nn.ModuleList(AttentionLayer(width, sizes.heads, sizes.dropout) for _ in layers)
        self.norm_out = nn.LayerNorm(width)
        self.place = nn.Embedding(MAX_POSITIONS, width)  # places beyond share the last one's
        self.user = nn.Linear(width, width)
        self.place_layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, sizes.heads, EXPANSION * width, sizes.dropout, batch_first=True, norm_first=True
            )
            for _ in range(sizes.decoder_layers)
        )
        self.place_norm = nn.LayerNorm(width)
        nn.init.normal_(self.place.weight, std=0.3)

    def match(self, encoded: Encoded, length: int) -> tuple[Tensor, Tensor]:
        """Logits [B, L, N] of every candidate at every place (BLOCKED where padded), and the candidates [B, N, D]."""
        x_BND = encoded.candidates_BND
        visible_BN = encoded.mask_BN | ~encoded.mask_BN.any(dim=1, keepdim=True)
        for layer in self.layers:
            x_BND = layer(x_BND, visible_BN[:, None, None, :])
        x_BND = self.norm_out(x_BND)
        place_L = torch.arange(length, device=x_BND.device).clamp(max=MAX_POSITIONS - 1)
        place_BLD = self.place(place_L) + self.user(encoded.user_BD)[:, None]
        for layer in self.place_layers:
            place_BLD = layer(place_BLD, x_BND, memory_key_padding_mask=~visible_BN)
        logits_BLN = self.place_norm(place_BLD) @ x_BND.transpose(1, 2) * x_BND.shape[-1] ** -0.5
        return logits_BLN.masked_fill(~encoded.mask_BN[:, None], BLOCKED), x_BND

    def loss(
        self, batch: RequestBatch, feedback: Feedback, rows_B: np.ndarray | None, chance: torch.Generator
    ) -> Tensor:
        """Likelihood of what earned something at its place, unlikelihood of what did not."""
        encoded = self.encoder(batch)
        labelled = label_lists(encoded, feedback, chance)
        length = labelled.lists.shape[2]
        logits_BLN, x_BND = self.match(encoded, max(length, LIST_LENGTH))
        loss = unlikelihood_loss(logits_BLN[:, :length], labelled.lists, place_gains(labelled, self.weights))
        if self.teacher is None:
            return loss
        logits_BLN, own_BGL = logits_BLN[:, :LIST_LENGTH], None
        if self.training:
            own = [decode(noisy(logits_BLN, chance), x_BND, batch.mask_BN, 0.0) for _ in range(self.teacher.own_lists)]
            own_BGL = torch.stack(own, dim=1)
        return loss + self.teacher.loss(
            batch, feedback, own_BGL, chance, lambda lists: at_places(logits_BLN, lists).sum(dim=-1)
        )


class Nar4Rec(Baseline):
    """Match, decode several lists, take the one the evaluator likes best."""

    def __init__(self, sizes: ModelSizes, *, with_reward: bool = False) -> None:
        """`with_reward`: the generator, too, is to learn from the reward model (distillation.py)."""
        super().__init__()
        self.sizes, self.with_reward = sizes, with_reward
        self.generator = Matching(sizes)
        self.evaluator = RewardModel(sizes)

    def propose(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BGL, the likeliest one first; the noise is the same at each call."""
        logits_BLN, x_BND = self.generator.match(self.generator.encoder(batch), length)
        chance, lists = torch.Generator().manual_seed(0), []
        for draw in range(DRAWS):
            for penalty in PENALTIES:
                seen_BLN = noisy(logits_BLN, chance) if draw else logits_BLN
                lists.append(decode(seen_BLN, x_BND, batch.mask_BN, penalty))
        return torch.stack(lists, dim=1)

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL: the proposal that the evaluator likes best."""
        return best_of(self.evaluator, batch, self.propose(batch, length))

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """Train the generator and, unless it is given, the evaluator: before it where the generator learns from it."""
        if self.with_reward:
            figures = taught(self.generator, self.evaluator, lesson, progress)
            self.eval()
            return Trained(self, figures)
        return learn_generators(self, self.generator, self.evaluator, lesson, progress)


def unlikelihood_loss(logits_BLN: Tensor, lists_BGL: Tensor, gain_BGL: Tensor) -> Tensor:
    """The scalar, a mean over the places of all lists: -gain log p of the item at a place where it earned something,
    -log(1 - p) where it earned nothing (Welleck et al., ICLR 2020; the paper's section on unlikelihood training)."""
    real_BGL = lists_BGL >= 0
    log_prob_BGL = at_places(torch.log_softmax(logits_BLN, dim=-1), lists_BGL)
    log_rest_BGL = (1.0 - log_prob_BGL.exp()).clamp_min(1e-6).log()
    loss_BGL = -torch.where(gain_BGL > 0, gain_BGL * log_prob_BGL, log_rest_BGL)
    return (loss_BGL * real_BGL).sum() / real_BGL.sum().clamp(min=1)


def at_places(values_BLN: Tensor, lists_BGL: Tensor) -> Tensor:
    """values_BGL of each list's item at its place, 0 where there is none."""
    picked_BGL = values_BLN.gather(2, lists_BGL.clamp(min=0).transpose(1, 2)).transpose(1, 2)
    return picked_BGL * (lists_BGL >= 0)


def noisy(logits_BLN: Tensor, chance: torch.Generator) -> Tensor:
    """The logits with Gumbel noise, drawn on the CPU: each place's likeliest is then a draw from its distribution."""
    return logits_BLN + gumbel(logits_BLN.shape, chance, logits_BLN.device)


def decode(logits_BLN: Tensor, x_BND: Tensor, mask_BN: Tensor, penalty: float) -> Tensor:
    """lists_BL, place after place: of its KEPT likeliest candidates that are left, the one of the highest (1 - penalty)
    p - penalty times the likeness (cosine) to the most alike placed before; -1 where candidates run out."""
    unit_BND = functional.normalize(x_BND.detach(), dim=-1)
    left_BN, nearest_BN = mask_BN.clone(), torch.zeros_like(mask_BN, dtype=unit_BND.dtype)
    columns = []
    for place_BN in logits_BLN.detach().unbind(dim=1):
        place_BN = place_BN.masked_fill(~left_BN, BLOCKED)
        prob_BN = torch.softmax(place_BN, dim=-1)
        value_BN = (1.0 - penalty) * prob_BN - penalty * nearest_BN
        kept_BN = place_BN >= place_BN.topk(min(KEPT, place_BN.shape[1]), dim=1).values[:, -1:]
        chosen_B1 = value_BN.masked_fill(~(kept_BN & left_BN), -torch.inf).argmax(dim=1, keepdim=True)
        columns.append(chosen_B1.masked_fill(~left_BN.any(dim=1, keepdim=True), -1))
        left_BN = left_BN.scatter(1, chosen_B1, False)
        likeness_BN = (unit_BND @ torch.take_along_dim(unit_BND, chosen_B1[..., None], dim=1).transpose(1, 2))[..., 0]
        nearest_BN = torch.maximum(nearest_BN, likeness_BN)
    return torch.cat(columns, dim=1)
