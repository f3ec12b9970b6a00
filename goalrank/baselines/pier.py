"""PIER: permutations selected by hashed interest, the best of them by a context-aware prediction (Shi et al., "PIER:
Permutation-Level Interest-Based End-to-End Re-ranking Framework in E-commerce", KDD 2023, arXiv 2302.03487).

Has, of its paper: the fine-grained permutation selection module (FPSM: permutations and user as vectors, SimHash codes
of both, the nearest by Hamming distance kept), the omnidirectional context-aware prediction module (OCPM: each item
sees the whole permutation, both neighbours outright; feedback predicted per place and summed), and training end to
end: OCPM on logged lists, FPSM by a contrastive loss whose positives are the permutations OCPM likes best.
Lacks: the paper's permutation-level history (our logs' histories are of clicked items, so the user's side of FPSM is
the encoded user and history), and the enumeration of all permutations: of 50 candidates there are too many, so a
pointwise scorer keeps PREFILTER of them and PERMUTATIONS are drawn from its Plackett-Luce distribution.

Legend: B requests, N candidates, G permutations, L list length, D width, S hash bits, X lists of all requests.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from goalrank.baselines.distillation import Student, taught
from goalrank.baselines.generators import click_loss
from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained, fit
from goalrank.baselines.scorers import list_values
from goalrank.dataset import Feedback, RequestBatch
from goalrank.encoders import AttentionLayer, Encoded, ModelSizes, RequestEncoder, z_scored
from goalrank.policies import PERTURBATION_TEMPERATURE, gumbel, top_lists
from goalrank.reward import MAX_POSITIONS, RewardModel, gather_items
from goalrank.reward_training import label_lists
from goalrank.schema import LIST_LENGTH, RewardWeights
from goalrank.train import logged_gains

PREFILTER = 12
PERMUTATIONS = 100
SELECTED = 16
"""Permutations that OCPM judges, of those drawn."""
HASH_BITS = 128
POSITIVES = 0.25
"""Share of the drawn permutations, OCPM's favourites, that the contrastive loss calls positive."""
CONTRAST_TEMPERATURE = 0.2
CONTRAST_WEIGHT = 0.1
OVERLAPS = 3
"""Topic overlap with the item above, with the one below, and summed over the whole list: the list-level reward model
gets such inputs too (goalrank/reward.py)."""


class Permuter(Student):
    """Scorer, FPSM and OCPM on one encoder, trained together."""

    planes_DS: Tensor
    watch_known: Tensor

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width = sizes.width
        self.weights = RewardWeights()
        self.encoder = RequestEncoder(sizes)
        self.scorer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        # FPSM
        self.item_interest = nn.Linear(width, width)
        self.place_interest = nn.Embedding(MAX_POSITIONS, width)
        self.mix_interest = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.user_interest = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.register_buffer("planes_DS", torch.randn(width, HASH_BITS))
        # OCPM
        self.parts = nn.Linear(width, 3 * width)  # of an item: as itself, as the one above, as the one below
        self.user = nn.Linear(width, width)
        self.overlaps = nn.Linear(OVERLAPS, width)
        self.position = nn.Embedding(MAX_POSITIONS, width)
        layers = range(max(1, sizes.reward_layers))
        self.layers = nn.ModuleList(AttentionLayer(width, sizes.heads, sizes.dropout) for _ in layers)
        self.norm_out = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
        # Watch time counts 0 where the training log had none: an untrained output must not earn anything.
        self.register_buffer("watch_known", torch.zeros(()))
        nn.init.normal_(self.position.weight, std=0.3)
        nn.init.normal_(self.place_interest.weight, mean=1.0, std=0.3)

    def draw(self, encoded: Encoded, count: int, length: int, chance: torch.Generator) -> Tensor:
        """lists_BGL: permutations of the PREFILTER best candidates, the order by score first."""
        score_BN = z_scored(self.scorer(encoded.candidates_BND).squeeze(-1).detach(), encoded.mask_BN)
        rank_BN = score_BN.masked_fill(~encoded.mask_BN, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank_BN = rank_BN.argsort(dim=1)
        kept_BN = encoded.mask_BN & (rank_BN < max(PREFILTER, length))
        lists = [top_lists(score_BN, kept_BN, length)]
        for _ in range(count - 1):
            noisy_BN = score_BN / PERTURBATION_TEMPERATURE + gumbel(score_BN.shape, chance, score_BN.device)
            lists.append(top_lists(noisy_BN, kept_BN, length))
        return torch.stack(lists, dim=1)

    def interests(self, encoded: Encoded, lists_BGL: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of permutations [B, G, D] and of users [B, D], whose angle FPSM goes by."""
        items_BGLD = gather_items(self.item_interest(encoded.candidates_BND), lists_BGL)
        place_L = torch.arange(lists_BGL.shape[2], device=lists_BGL.device).clamp(max=MAX_POSITIONS - 1)
        mixed_BGD = (items_BGLD * self.place_interest(place_L)).sum(dim=2)
        return self.mix_interest(mixed_BGD), self.user_interest(encoded.user_BD)

    def select(self, encoded: Encoded, lists_BGL: Tensor, count: int) -> Tensor:
        """lists_BGL: the `count` permutations nearest to the user by Hamming distance of their SimHash codes (Charikar,
        2002), and always the first; ties by order."""
        list_BGD, user_BD = self.interests(encoded, lists_BGL)
        differ_BGS = (list_BGD @ self.planes_DS > 0) != (user_BD @ self.planes_DS > 0)[:, None]
        distance_BG = differ_BGS.sum(dim=2)
        distance_BG[:, 0] = -1
        nearest_BG = distance_BG.argsort(dim=1, stable=True)[:, :count]
        return lists_BGL.gather(1, nearest_BG[..., None].expand(-1, -1, lists_BGL.shape[2]))

    def predict(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        """Logit of click, logit of like, log of expected minutes at each place: [B, G, L, 3]."""
        B, G, L = lists_BGL.shape
        real_BGL = lists_BGL >= 0
        own, above, below = gather_items(self.parts(encoded.candidates_BND), lists_BGL).chunk(3, dim=-1)
        x = own + functional.pad(above[:, :, :-1], (0, 0, 1, 0)) + functional.pad(below[:, :, 1:], (0, 0, 0, 1))
        x = x + self.overlaps(_overlaps(gather_items(encoded.topics_BNT, lists_BGL)))
        place_L = torch.arange(L, device=lists_BGL.device).clamp(max=MAX_POSITIONS - 1)
        x_XLD = (x + self.position(place_L) + self.user(encoded.user_BD)[:, None, None]).flatten(0, 1)
        visible = (real_BGL | ~real_BGL.any(dim=-1, keepdim=True)).flatten(0, 1)[:, None, None, :]
        for layer in self.layers:
            x_XLD = layer(x_XLD, visible)
        return self.out(self.norm_out(x_XLD)).unflatten(0, (B, G))

    def reward(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        """OCPM's expected reward [B, G], in the units of schema.RewardWeights."""
        click, like, minutes = self.predict(encoded, lists_BGL).unbind(dim=-1)
        worth = self.weights
        value_BGL = worth.click * click.sigmoid() + worth.like * like.sigmoid()
        value_BGL = value_BGL + worth.watch_minute * self.watch_known * minutes.clamp(-8.0, 6.0).exp()
        return (value_BGL * (lists_BGL >= 0)).sum(dim=-1)

    def loss(
        self, batch: RequestBatch, feedback: Feedback, rows_B: np.ndarray | None, chance: torch.Generator
    ) -> Tensor:
        """OCPM on logged lists, the scorer on shown items, FPSM against OCPM's favourites; with a teacher, OCPM and the
        scorer on its groups too, whose own lists are permutations as FPSM chooses among."""
        encoded = self.encoder(batch)
        if self.training and not feedback.watch_seconds_BL.isnan().all():
            self.watch_known.fill_(1.0)
        gain_BN, known_BN = logged_gains(feedback, batch)
        score_BN = self.scorer(encoded.candidates_BND).squeeze(-1)
        pointwise = click_loss(score_BN, gain_BN, known_BN).mean()
        loss = (
            self._prediction_loss(encoded, feedback, chance)
            + pointwise
            + CONTRAST_WEIGHT * self._contrast(encoded, chance)
        )
        if self.teacher is None:
            return loss
        own_BGL = self.draw(encoded, self.teacher.own_lists, LIST_LENGTH, chance) if self.training else None
        return loss + self.teacher.loss(
            batch,
            feedback,
            own_BGL,
            chance,
            lambda lists: self.reward(encoded, lists),
            lambda lists: list_values(score_BN, lists),
        )

    def _prediction_loss(self, encoded: Encoded, feedback: Feedback, chance: torch.Generator) -> Tensor:
        """As the reward model's: cross-entropy of click and like, Poisson likelihood of minutes, a mean over places."""
        labelled, worth = label_lists(encoded, feedback, chance), self.weights
        click, like, minutes = self.predict(encoded, labelled.lists).unbind(dim=-1)
        real_BGL = labelled.lists >= 0
        bce = functional.binary_cross_entropy_with_logits
        loss_BGL = worth.click * bce(click, labelled.click, reduction="none")
        loss_BGL = loss_BGL + worth.like * bce(like, labelled.like, reduction="none")
        watched = labelled.minutes.nan_to_num(nan=0.0)
        poisson = functional.poisson_nll_loss(minutes.clamp(-8.0, 6.0), watched, reduction="none")
        loss_BGL = loss_BGL + worth.watch_minute * poisson * ~labelled.minutes.isnan()
        return (loss_BGL * real_BGL).sum() / real_BGL.sum().clamp(min=1)

    def _contrast(self, encoded: Encoded, chance: torch.Generator) -> Tensor:
        """InfoNCE: permutations that OCPM likes best lie in the user's direction, the others do not."""
        lists_BGL = self.draw(encoded, 2 * SELECTED, LIST_LENGTH, chance)
        with torch.no_grad():
            reward_BG = self.reward(encoded, lists_BGL)
            best_BG = reward_BG.argsort(dim=1, descending=True).argsort(dim=1) < POSITIVES * lists_BGL.shape[1]
        list_BGD, user_BD = self.interests(encoded, lists_BGL)
        near_BG = functional.cosine_similarity(list_BGD, user_BD[:, None], dim=-1) / CONTRAST_TEMPERATURE
        return (near_BG.logsumexp(dim=1) - near_BG.masked_fill(~best_BG, -torch.inf).logsumexp(dim=1)).mean()


class Pier(Baseline):
    """Draw permutations, select by hash, predict, take the best."""

    def __init__(self, sizes: ModelSizes, *, with_reward: bool = False) -> None:
        """`with_reward`: OCPM and the scorer are to learn from the reward model too (distillation.py)."""
        super().__init__()
        self.sizes, self.with_reward = sizes, with_reward
        self.permuter = Permuter(sizes)

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL: of the selected permutations the one OCPM likes best; the draws are the same at each call."""
        encoded = self.permuter.encoder(batch)
        drawn_BGL = self.permuter.draw(encoded, PERMUTATIONS, length, torch.Generator().manual_seed(0))
        selected_BGL = self.permuter.select(encoded, drawn_BGL, SELECTED)
        best_B = self.permuter.reward(encoded, selected_BGL).argmax(dim=1)
        return selected_BGL[torch.arange(len(best_B), device=best_B.device), best_B]

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """Train all parts together, after the guide if there is to be one that is not given."""
        if self.with_reward:
            figures = taught(self.permuter, RewardModel(self.sizes), lesson, progress)
        else:
            figures = {"permuter": fit(self.permuter, lesson, progress)}
        self.eval()
        return Trained(self, figures)


def _overlaps(topics_BGLT: Tensor) -> Tensor:
    """Topic overlap (intersection over union) with the item above, the one below, and all others: [B, G, L, 3]."""
    shared_BGLL = topics_BGLT @ topics_BGLT.transpose(-1, -2)
    size_BGL = topics_BGLT.sum(-1)
    union_BGLL = size_BGL[..., None] + size_BGL[..., None, :] - shared_BGLL
    overlap_BGLL = shared_BGLL / union_BGLL.clamp(min=1.0)
    neighbour = overlap_BGLL.diagonal(offset=-1, dim1=-2, dim2=-1)
    above_BGL, below_BGL = functional.pad(neighbour, (1, 0)), functional.pad(neighbour, (0, 1))
    others_BGL = overlap_BGLL.sum(dim=-1) - overlap_BGLL.diagonal(dim1=-2, dim2=-1)
    return torch.stack([above_BGL, below_BGL, others_BGL], dim=-1)
