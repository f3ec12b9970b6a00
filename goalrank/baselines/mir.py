"""MIR: the candidates as a set and the history as a list act on each other, item by item and feature by feature (Xi et
al., "Multi-Level Interaction Reranking with User Behavior History", SIGIR 2022, arXiv 2204.09370).

Has, of its paper: interaction within the set (self-attention) and within the list (a bidirectional LSTM); SLAttention
between them: one affinity of every candidate to every item of the history from item vectors and from each pair of their
features, faded with the item's age at a pace of the user's own, through which either side takes the other in; and
scores that do not depend on the order in which candidates come.
Lacks: times of clicks (a history item's age is its place from the newest one) and feature fields beyond id and topics
(a history here keeps nothing else of an item). The history items are the pretrained encoder's states. Its cross-entropy
of clicks is the Poisson likelihood of the gain (clicks, likes, minutes).

Legend: B requests, N candidates, H history items, D width, F features of an item (FIELDS).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from goalrank.baselines.capacity import head_filling, own_budget, parameters, pointwise
from goalrank.baselines.generators import value_loss
from goalrank.baselines.scorers import Scorer
from goalrank.dataset import RequestBatch
from goalrank.encoders import AttentionLayer, ItemEncoder, ModelSizes, RequestEncoder, hash_buckets, mask_bits

FIELDS = 2
"""Features that a candidate and an item of a history both have: id and topics."""

FIRST_PACE = -3.0
"""Fading starts at softplus of this, 0.05 a history item: half is left after 14."""


class SetToList(nn.Module):
    """SLAttention: what candidates take from the history, and the history from candidates, by one affinity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.by_item = nn.Linear(width, width, bias=False)
        self.by_feature = nn.Linear(width, width, bias=False)
        self.pairs_FF = nn.Parameter(torch.full((FIELDS, FIELDS), 1 / FIELDS))
        self.pace = nn.Linear(width, 1)
        self.of_set = nn.Linear(width, width)
        self.of_list = nn.Linear(width, width)
        self.set_weight = nn.Linear(width, 1, bias=False)
        self.list_weight = nn.Linear(width, 1, bias=False)
        nn.init.constant_(self.pace.bias, FIRST_PACE)

    def affinity(
        self, set_BND: Tensor, list_BHD: Tensor, set_BNFD: Tensor, list_BHFD: Tensor, user_BD: Tensor, age_BH: Tensor
    ) -> Tensor:
        """affinity_BNH in -1..1, of the vectors and the features of either side.

        Args:
            age_BH: how many items of the history are newer.
        """
        scale = set_BND.shape[-1] ** -0.5
        items_BNH = self.by_item(set_BND) @ list_BHD.transpose(1, 2)
        # The sum over pairs of features of a bilinear form that they share: one product of (N, F D) and (F D, H).
        mixed_BNFD = torch.einsum("bnfd,fg->bngd", self.by_feature(set_BNFD), self.pairs_FF)
        features_BNH = mixed_BNFD.flatten(2) @ list_BHFD.flatten(2).transpose(1, 2)
        faded_BH = (-functional.softplus(self.pace(user_BD)) * age_BH).exp()
        return ((items_BNH + features_BNH) * scale).tanh() * faded_BH[:, None]

    def forward(
        self, affinity_BNH: Tensor, set_BND: Tensor, list_BHD: Tensor, mask_BN: Tensor, mask_BH: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates that have taken the history in [B, N, D], and one vector each of set and list [B, D]."""
        own_set_BND = self.of_set(set_BND) * mask_BN[..., None]
        own_list_BHD = self.of_list(list_BHD) * mask_BH[..., None]
        taken_BND = (own_set_BND + affinity_BNH @ own_list_BHD).tanh()
        taken_BHD = (own_list_BHD + affinity_BNH.transpose(1, 2) @ own_set_BND).tanh()
        set_BD = _pooled(self.set_weight(taken_BND), set_BND, mask_BN)
        list_BD = _pooled(self.list_weight(taken_BHD), list_BHD, mask_BH)
        return taken_BND, set_BD, list_BD


class Mir(Scorer):
    """Scores from candidates, history, and what they make of each other."""

    objective = staticmethod(value_loss)

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width = sizes.width
        self.sizes = sizes
        self.encoder = RequestEncoder(pointwise(sizes))
        layers = range(sizes.candidate_layers)
        self.set_layers = nn.ModuleList(AttentionLayer(width, sizes.heads, sizes.dropout) for _ in layers)
        self.set_norm = nn.LayerNorm(width)
        self.onward = nn.LSTM(width, width // 2, batch_first=True)
        self.back = nn.LSTM(width, width - width // 2, batch_first=True)
        self.list_norm = nn.LayerNorm(width)
        self.interact = SetToList(width)
        spent = parameters(self.set_layers, self.set_norm, self.onward, self.back, self.list_norm, self.interact)
        self.out = head_filling(own_budget(sizes) - spent, 5 * width)

    def scores(self, batch: RequestBatch) -> Tensor:
        """scores_BN."""
        history = self.encoder.encode_history(batch.history_items_BH, batch.history_topics_BH)
        encoded = self.encoder(batch, history)
        states_BHD, mask_BH, _ = history
        set_BND = encoded.candidates_BND
        visible_B11N = (batch.mask_BN | ~batch.mask_BN.any(dim=1, keepdim=True))[:, None, None, :]
        for layer in self.set_layers:
            set_BND = layer(set_BND, visible_B11N)
        set_BND = self.set_norm(set_BND)
        list_BHD = self._both_ways(states_BHD, mask_BH)
        count_B1 = mask_BH.sum(dim=1, keepdim=True)
        age_BH = (count_B1 - 1 - torch.arange(mask_BH.shape[1], device=mask_BH.device)).clamp(min=0)
        fields = (
            _fields(self.encoder.items, batch.item_id_BN, batch.item_topics_BNT),
            _fields(self.encoder.items, batch.history_items_BH, mask_bits(batch.history_topics_BH)),
        )
        affinity_BNH = self.interact.affinity(set_BND, list_BHD, *fields, encoded.user_BD, age_BH)
        taken_BND, set_BD, list_BD = self.interact(affinity_BNH, set_BND, list_BHD, batch.mask_BN, mask_BH)
        whole_BE = torch.cat([set_BD, list_BD, encoded.user_BD], dim=-1)
        whole_BNE = whole_BE[:, None].expand(-1, set_BND.shape[1], -1)
        return self.out(torch.cat([set_BND, taken_BND, whole_BNE], dim=-1)).squeeze(-1)

    def _both_ways(self, states_BHD: Tensor, mask_BH: Tensor) -> Tensor:
        """The history read from either end; each row is turned round within its real items, so padding stays behind."""
        count_B1 = mask_BH.sum(dim=1, keepdim=True)
        place_H = torch.arange(mask_BH.shape[1], device=mask_BH.device)
        turned_BH1 = torch.where(mask_BH, count_B1 - 1 - place_H, place_H)[..., None]
        onward_BHD, _ = self.onward(states_BHD)
        back_BHD, _ = self.back(torch.take_along_dim(states_BHD, turned_BH1, dim=1))
        read_BHD = torch.cat([onward_BHD, torch.take_along_dim(back_BHD, turned_BH1, dim=1)], dim=-1)
        return self.list_norm(states_BHD + read_BHD)


def _fields(items: ItemEncoder, ids: Tensor, topics: Tensor) -> Tensor:
    """The features of items [..., F, D] as the shared item encoder embeds them, brought to one size."""
    share = topics / topics.sum(-1, keepdim=True).clamp(min=1.0).sqrt()
    fields = torch.stack([items.embedding(hash_buckets(ids, items.buckets)), items.topics(share)], dim=-2)
    return functional.layer_norm(fields, fields.shape[-1:])


def _pooled(weight_BX1: Tensor, values_BXD: Tensor, mask_BX: Tensor) -> Tensor:
    """The mean of values_BXD by the softmax of their weights over real places; 0 where there is none."""
    share_BX1 = torch.softmax(weight_BX1.masked_fill(~mask_BX[..., None], -1e9), dim=1) * mask_BX[..., None]
    return (share_BX1 * values_BXD).sum(dim=1)
