"""The list-level reward model r_hat(l | u): what a whole list would earn (docs/method.md, training, step 1).

Items of a list see each other. One trunk reads the list; an ensemble of heads predicts each position's feedback. The
spread of the heads is the model's own estimate of its noise, which the reference policy compares with a group's spread.
Heads share a trunk, so the spread understates the true error: it is a lower bound, cheap enough to have for every list.

Legend: B requests, G lists in a group, L positions, N candidates, D width, H ensemble heads, T topic buckets.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from goalrank.dataset import RequestBatch
from goalrank.encoders import AttentionLayer, Encoded, ModelSizes, RequestEncoder
from goalrank.schema import RewardWeights

MAX_POSITIONS = 64
"""Positions beyond share the last one's embedding."""

TARGETS = 3
"""click, like, watched minutes."""

RELATIONS = 2
"""Topic overlap with the item just above, and summed over all items above."""

_LOG_MINUTES = (-8.0, 6.0)  # what the log of expected minutes is held to


class RewardModel(nn.Module):
    """Expected feedback of lists: encode the request once, then score any number of lists of any length."""

    watch_known: Tensor

    def __init__(self, sizes: ModelSizes, weights: RewardWeights | None = None) -> None:
        super().__init__()
        width, heads = sizes.width, sizes.reward_heads
        self.sizes, self.weights = sizes, weights or RewardWeights()
        self.encoder = RequestEncoder(sizes)
        self.parts = nn.Linear(width, 3 * width)  # of an item: as itself, as the one above, as one of those above
        self.user = nn.Linear(width, width)
        self.relations = nn.Linear(RELATIONS, width)
        self.position = nn.Embedding(MAX_POSITIONS, width)
        layers = range(sizes.reward_layers)
        self.layers = nn.ModuleList(AttentionLayer(width, sizes.heads, sizes.dropout) for _ in layers)
        self.norm_out = nn.LayerNorm(width)
        self.head_hidden = nn.Linear(width, heads * width)
        self.head_weight_HDO = nn.Parameter(torch.randn(heads, width, TARGETS) * 0.3 * width**-0.5)
        self.head_bias_HO = nn.Parameter(torch.zeros(heads, TARGETS))
        # Watch time counts 0 where the training log had none: an untrained output must not earn anything.
        self.register_buffer("watch_known", torch.zeros(()))
        nn.init.normal_(self.position.weight, std=0.3)

    def encode(self, batch: RequestBatch) -> Encoded:
        """The part that does not depend on the list."""
        return self.encoder(batch)

    def forward(self, batch: RequestBatch, lists_BGL: Tensor) -> Tensor:
        """Rewards [B, G] of lists of candidate indices [B, G, L]."""
        return self.reward(self.encode(batch), lists_BGL)

    def reward(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        """Expected reward [B, G], in the units of schema.RewardWeights: the mean over heads."""
        return self.score_lists(encoded, lists_BGL).mean(dim=0)

    def score_lists(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        """Expected reward [H, B, G] of each list by each head: the sum over its positions.

        Args:
            encoded: from :meth:`encode`.
            lists_BGL: int64 candidate indices, -1 (at the end only) where a list has fewer items.
        """
        return self.worth(*self.predict(encoded, lists_BGL)).sum(dim=-1)

    def worth(self, click_HBGL: Tensor, like_HBGL: Tensor, watch_HBGL: Tensor) -> Tensor:
        """What each position adds to its list's reward [H, B, G, L], of what :meth:`predict` gives."""
        worth = self.weights
        return worth.click * click_HBGL + worth.like * like_HBGL + worth.watch_minute * watch_HBGL

    def predict(self, encoded: Encoded, lists_BGL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Click and like probabilities and expected watched minutes, each [H, B, G, L], 0 where a list has no item."""
        outputs_HBGLO = self.outputs(encoded, lists_BGL)
        real_BGL = lists_BGL >= 0
        click_HBGL = outputs_HBGLO[..., 0].sigmoid() * real_BGL
        like_HBGL = outputs_HBGLO[..., 1].sigmoid() * real_BGL
        watch_HBGL = outputs_HBGLO[..., 2].clamp(*_LOG_MINUTES).exp() * real_BGL * self.watch_known
        return click_HBGL, like_HBGL, watch_HBGL

    def outputs(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        """Logit of click, logit of like, log of expected minutes: [H, B, G, L, 3]."""
        B, G, L = lists_BGL.shape
        real_BGL = lists_BGL >= 0
        own, above, earlier = gather_items(self.parts(encoded.candidates_BND), lists_BGL).chunk(3, dim=-1)
        relations_BGLR = _relations(gather_items(encoded.topics_BNT, lists_BGL))
        position_LD = self.position(torch.arange(L, device=lists_BGL.device).clamp(max=MAX_POSITIONS - 1))
        x = own + _shifted(above) + _mean_before(earlier) + self.relations(relations_BGLR) + position_LD
        x = x + self.user(encoded.user_BD)[:, None, None]
        x = x.flatten(0, 1)
        # A list with no item at all would have nothing to attend to.
        visible = (real_BGL | ~real_BGL.any(dim=-1, keepdim=True)).flatten(0, 1)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, visible)
        hidden = functional.relu(self.head_hidden(self.norm_out(x))).unflatten(-1, (self.sizes.reward_heads, -1))
        outputs_HXO = torch.einsum("xlhd,hdo->hxlo", hidden, self.head_weight_HDO) + self.head_bias_HO[:, None, None]
        return outputs_HXO.unflatten(1, (B, G))


def reward_noise(rewards_HBG: Tensor) -> Tensor:
    """Noise [B] of the gaps within each group: heads' standard deviation (ddof 1), root mean square over lists.

    What all lists of a group have in common cancels in the reference policy, so it is taken out first, head by head.
    With fewer than two heads there is no estimate: 0.
    """
    if rewards_HBG.shape[0] < 2:
        return torch.zeros_like(rewards_HBG[0, :, 0])
    gaps_HBG = rewards_HBG - rewards_HBG.mean(dim=-1, keepdim=True)
    return gaps_HBG.var(dim=0, correction=1).mean(dim=-1).sqrt()


def gather_items(values_BND: Tensor, lists_BGL: Tensor) -> Tensor:
    """Rows of the lists' items [B, G, L, D]; 0 where a list has no item (-1)."""
    B, N, _ = values_BND.shape
    start_B = torch.arange(B, device=lists_BGL.device) * N
    flat_BGL = lists_BGL.clamp(min=0) + start_B[:, None, None]
    # An embedding look-up, since its gradient is summed in a fixed order.
    return functional.embedding(flat_BGL, values_BND.flatten(0, 1)) * (lists_BGL >= 0)[..., None]


def _shifted(x_BGLD: Tensor) -> Tensor:
    """Each position's row replaced by the one above it, zeros at the top."""
    return functional.pad(x_BGLD[:, :, :-1], (0, 0, 1, 0))


def _mean_before(x_BGLD: Tensor) -> Tensor:
    """The mean of the rows above each position, zeros at the top."""
    count_L = torch.arange(x_BGLD.shape[2], device=x_BGLD.device).clamp(min=1)
    return _shifted(x_BGLD.cumsum(dim=2)) / count_L[:, None]


def _relations(topics_BGLT: Tensor) -> Tensor:
    """Topic overlap (intersection over union) with the item above, and summed over all above: [B, G, L, 2]."""
    shared = topics_BGLT @ topics_BGLT.transpose(-1, -2)
    size_BGL = topics_BGLT.sum(-1)
    union = size_BGL[..., None] + size_BGL[..., None, :] - shared
    overlap = (shared / union.clamp(min=1.0)).tril(diagonal=-1)
    above = functional.pad(overlap.diagonal(offset=-1, dim1=-2, dim2=-1), (1, 0))
    return torch.stack([above, overlap.sum(dim=-1)], dim=-1)
