"""What reward model and ranker share: a request encoded once, whatever is asked of it afterwards.

Deviates from the authors' public code on purpose: that encodes the candidates anew for each position of each list;
here they are encoded once and all lists of a group read the result (docs/method.md, the cost to beat).

Legend: B requests, N candidates, H history items, D width, T topic buckets, F dense features, S sequence of any kind.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from goalrank.dataset import RequestBatch
from goalrank.dropout import dropout, uniform
from goalrank.errors import ModelRefused
from goalrank.features import ITEM_DENSE, USER_DENSE
from goalrank.presets import Preset
from goalrank.schema import HISTORY_LENGTH, TOPIC_BUCKETS

ATTRIBUTE_BUCKETS = 1024
EXPANSION = 2
"""Width of a layer's feed-forward part, in model widths."""

ID_DROPOUT = 0.1
"""Share of items whose id is hidden while training."""

MATCH_FEATURES = 3
"""Next-item score, topic affinity and "clicked before" of a candidate, given to the network outright."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes a model is built from, kept in its model.json."""

    width: int
    heads: int
    history_layers: int
    candidate_layers: int
    decoder_layers: int
    reward_layers: int
    reward_heads: int
    item_buckets: int
    dropout: float

    @classmethod
    def from_preset(cls, preset: Preset) -> ModelSizes:
        """The sizes among a preset's values."""
        return cls(**{field.name: getattr(preset, field.name) for field in fields(cls)})

    @classmethod
    def from_dict(cls, values: dict) -> ModelSizes:
        """Back from :meth:`to_dict`.

        Raises:
            ModelRefused: a size is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelRefused(f"model sizes found: {sorted(values)}; {error}") from error

    def to_dict(self) -> dict:
        """As plain values, for model.json."""
        return asdict(self)


@dataclass
class Encoded:
    """A batch of requests after encoding."""

    candidates_BND: Tensor
    user_BD: Tensor
    mask_BN: Tensor  # bool, True = a real candidate
    topics_BNT: Tensor  # the candidates' topic bits, for whoever compares items of a list
    match_BN: Tensor  # next-item score of the pretrained history encoder, z-scored within the request

    def rows(self, chosen: Tensor) -> Encoded:
        """Some of the requests, or the same ones repeated: indices [B'] into B."""
        return Encoded(*(getattr(self, field.name)[chosen] for field in fields(self)))


class AttentionLayer(nn.Module):
    """Pre-norm attention and feed-forward layer; queries and keys may be different sequences."""

    def __init__(self, width: int, heads: int, dropout: float, *, cross: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.cross = heads, dropout, cross
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.norm_forward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, EXPANSION * width)
        self.contract = nn.Linear(EXPANSION * width, width)

    def forward(self, x_BSD: Tensor, bias: Tensor | None = None, memory_BMD: Tensor | None = None) -> Tensor:
        """Attend and transform.

        Args:
            x_BSD: queries, and keys too unless `memory_BMD` is given.
            bias: boolean (True = may look) or float (added), four dimensions broadcastable to [B, heads, S, S or M].
            memory_BMD: keys and values of cross-attention, taken as they are.
        """
        normed_BSD = self.norm_attention(x_BSD)
        query = self._split(self.query(normed_BSD))
        key, value = self.key_value(normed_BSD if memory_BMD is None else memory_BMD).chunk(2, dim=-1)
        # No dropout on attention weights: it costs a random number a pair and shuts out the fused kernels.
        mixed = _attention(query, self._split(key), self._split(value), bias)
        x_BSD = x_BSD + self._drop(self.merge(mixed.transpose(1, 2).flatten(2)))
        hidden = functional.relu(self.expand(self.norm_forward(x_BSD)), inplace=True)
        return x_BSD + self._drop(self.contract(hidden))

    def _split(self, x_BSD: Tensor) -> Tensor:
        return x_BSD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(query . key / sqrt(D) + bias) . value."""
    if bias is not None and bias.requires_grad and bias.device.type == "cpu":
        # No fused kernel of the CPU learns its bias, and torch's fallback searches every row for one that sees nothing.
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        return torch.matmul((scores + bias).softmax(dim=-1), value)
    return functional.scaled_dot_product_attention(query, key, value, bias)


class ItemEncoder(nn.Module):
    """An item from what a history also knows of it: its id (hashed into buckets) and its topics."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.buckets, self.id_dropout = sizes.item_buckets, ID_DROPOUT
        self.embedding = nn.Embedding(sizes.item_buckets, sizes.width, padding_idx=0)
        self.topics = nn.Linear(TOPIC_BUCKETS, sizes.width)
        nn.init.normal_(self.embedding.weight, std=0.3 * sizes.width**-0.5)
        with torch.no_grad():
            self.embedding.weight[0].zero_()

    def forward(self, item_id: Tensor, topics: Tensor) -> Tensor:
        """Ids [...] int64 (0 = padding) and topic bits [..., T] to vectors [..., D]."""
        share = topics / topics.sum(-1, keepdim=True).clamp(min=1.0).sqrt()
        known = self.embedding(hash_buckets(item_id, self.buckets))
        # Whole items forget who they are: new items have only their topics, and few clicks are soon learned by heart.
        if self.training and self.id_dropout:
            known = known * (uniform(item_id.shape, known.device) >= self.id_dropout)[..., None]
        return known + self.topics(share)


class HistoryEncoder(nn.Module):
    """A causal transformer over clicked items, pretrained on the next item (goalrank/pretrain.py).

    Order enters through a learned bias by distance, so a history cut to its newest items reads as before.
    """

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        layers = range(sizes.history_layers)
        self.layers = nn.ModuleList(AttentionLayer(sizes.width, sizes.heads, sizes.dropout) for _ in layers)
        self.norm_out = nn.LayerNorm(sizes.width)
        # At first far items count less, at a different pace in each head (as in ALiBi, arXiv 2108.12409).
        pace_K = 2.0 ** -torch.linspace(1, 6, sizes.heads)
        self.distance_bias = nn.Parameter(-pace_K[:, None] * torch.arange(HISTORY_LENGTH))

    def forward(self, items_BHD: Tensor, mask_BH: Tensor) -> Tensor:
        """States [B, H, D]: state h has seen items 0..h. Histories are right-padded, so none sees padding."""
        length = items_BHD.shape[1]
        by_distance_KH = self.distance_bias[
            :, torch.arange(length, device=items_BHD.device).clamp(max=HISTORY_LENGTH - 1)
        ]
        # Row h of the bias is a window on [nothing of the future, then by distance], one further than row h - 1's.
        windows_KHH = functional.pad(by_distance_KH, (length - 1, 0), value=-math.inf).unfold(1, length, 1)
        bias_1KHH = windows_KHH.flip(2)[None]  # fused kernels want four dimensions
        states_BHD = items_BHD * mask_BH[..., None]
        for layer in self.layers:
            states_BHD = layer(states_BHD, bias_1KHH)
        return self.norm_out(states_BHD)


class RequestEncoder(nn.Module):
    """User, history and candidates of a request; candidates see the history and each other, in no order."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        width = sizes.width
        self.sizes = sizes
        self.items = ItemEncoder(sizes)
        self.history = HistoryEncoder(sizes)
        self.no_history = nn.Parameter(torch.zeros(width))
        self.user_dense = nn.Linear(len(USER_DENSE) + TOPIC_BUCKETS, width)
        self.attributes = nn.Embedding(ATTRIBUTE_BUCKETS, width, padding_idx=0)
        self.user_norm = nn.LayerNorm(width)
        self.candidate_input = nn.Linear(len(ITEM_DENSE) + 1 + MATCH_FEATURES, width)
        self.candidate_user = nn.Linear(width, width)
        self.candidate_hidden = nn.Linear(width, width)
        self.recall = AttentionLayer(width, sizes.heads, sizes.dropout, cross=True)
        layers = range(sizes.candidate_layers)
        self.layers = nn.ModuleList(AttentionLayer(width, sizes.heads, sizes.dropout) for _ in layers)
        self.norm_out = nn.LayerNorm(width)
        nn.init.normal_(self.attributes.weight, std=width**-0.5)
        with torch.no_grad():
            self.attributes.weight[0].zero_()

    def forward(self, batch: RequestBatch, history: tuple[Tensor, Tensor, Tensor] | None = None) -> Encoded:
        """Encode B requests; equivariant to the order of candidates, indifferent to padding.

        Args:
            batch: of the requests.
            history: what :meth:`encode_history` said of them, from a caller who needs it too.
        """
        if history is None:
            history = self.encode_history(batch.history_items_BH, batch.history_topics_BH)
        states_BHD, history_mask_BH, taste_BD = history
        user_BD = self._encode_user(batch, taste_BD)
        items_BND = self.items(batch.item_id_BN, batch.item_topics_BNT)
        match_BNM = self._match(batch, items_BND, taste_BD)
        inputs = torch.cat([batch.item_dense_BNF, batch.score_BN[..., None], match_BNM], dim=-1)
        x_BND = items_BND + self.candidate_input(inputs) + self.candidate_user(user_BD)[:, None]
        x_BND = x_BND + self.candidate_hidden(functional.relu(x_BND))
        # A query with nothing to look at would be NaN: an empty history is one token, `no_history`.
        visible_BH = history_mask_BH.clone()
        visible_BH[:, 0] = True
        x_BND = self.recall(x_BND, visible_BH[:, None, None, :], states_BHD)
        visible_B11N = (batch.mask_BN | ~batch.mask_BN.any(dim=1, keepdim=True))[:, None, None, :]
        for layer in self.layers:
            x_BND = layer(x_BND, visible_B11N)
        candidates_BND = self.norm_out(x_BND) * batch.mask_BN[..., None]
        return Encoded(candidates_BND, user_BD, batch.mask_BN, batch.item_topics_BNT, match_BNM[..., 0])

    def encode_history(self, items_BH: Tensor, topics_BH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States [B, H, D], mask [B, H] and the newest state [B, D] of right-padded histories."""
        mask_BH = items_BH != 0
        bits_BHT = mask_bits(topics_BH)
        states_BHD = self.history(self.items(items_BH, bits_BHT), mask_BH)
        empty_B1 = ~mask_BH.any(dim=1, keepdim=True)
        newest_B = (mask_BH.sum(dim=1) - 1).clamp(min=0)
        taste_BD = states_BHD[torch.arange(len(states_BHD), device=states_BHD.device), newest_B]
        taste_BD = torch.where(empty_B1, self.no_history, taste_BD)
        states_BHD = torch.where(empty_B1[..., None], self.no_history, states_BHD)
        return states_BHD, mask_BH, taste_BD

    def _encode_user(self, batch: RequestBatch, taste_BD: Tensor) -> Tensor:
        dense = self.user_dense(torch.cat([batch.user_dense_BF, batch.user_topics_BT], dim=-1))
        attributes = self.attributes(hash_buckets(batch.attributes_BA, ATTRIBUTE_BUCKETS)).sum(dim=1)
        return self.user_norm(dense + attributes + taste_BD)

    def _match(self, batch: RequestBatch, items_BND: Tensor, taste_BD: Tensor) -> Tensor:
        """[B, N, MATCH_FEATURES]; a network of small width needs long to find these products on its own."""
        next_item_BN = self._scaled((items_BND * taste_BD[:, None]).sum(-1), batch.mask_BN)
        share_BNT = batch.item_topics_BNT / batch.item_topics_BNT.sum(-1, keepdim=True).clamp(min=1.0)
        affinity_BN = (share_BNT * batch.user_topics_BT[:, None]).sum(-1)
        seen_BN = (batch.item_id_BN[:, :, None] == batch.history_items_BH[:, None, :]).any(-1) & batch.mask_BN
        return torch.stack([next_item_BN, 4 * affinity_BN, seen_BN.float()], dim=-1)

    def _scaled(self, next_item_BN: Tensor, mask_BN: Tensor) -> Tensor:
        """How the next-item scores are given to the network: as they stand among the request's candidates."""
        return z_scored(next_item_BN, mask_BN)


def z_scored(values_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Values centred and scaled within each request (ddof 0) over its real candidates; 0 where padded."""
    count_B1 = mask_BN.sum(dim=1, keepdim=True).clamp(min=1)
    centred_BN = values_BN - (values_BN * mask_BN).sum(dim=1, keepdim=True) / count_B1
    centred_BN = centred_BN * mask_BN
    return centred_BN / (centred_BN.square().sum(dim=1, keepdim=True) / count_B1 + 1e-6).sqrt()


def mask_bits(masks: Tensor) -> Tensor:
    """Topic masks [...] int64 as bits [..., T] float."""
    shifts = torch.arange(TOPIC_BUCKETS, device=masks.device)
    return ((masks[..., None] >> shifts) & 1).float()


def hash_buckets(ids: Tensor, buckets: int) -> Tensor:
    """Ids [...] int64 spread over buckets 1..buckets-1, 0 for id 0 (the finaliser of SplitMix64)."""
    x = ids
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ _shifted(x, shift)) * factor
    x = (x ^ _shifted(x, 31)) & 0x7FFFFFFFFFFFFFFF
    return torch.where(ids == 0, 0, x % (buckets - 1) + 1)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
