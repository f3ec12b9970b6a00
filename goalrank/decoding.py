"""Pointer decoder: an autoregressive distribution over lists of distinct candidates.

One function of (what was chosen so far) is written twice, once over whole lists for training and once a token at a time
with cached keys and values for sampling; a test holds the two together. Candidates come encoded and are encoded once,
which is the cost docs/method.md ("The cost to beat") describes.

Legend: B requests, G lists a request, M = B*G, N candidates, L list length, T tokens so far, D width, K heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    cross_entropy,
    embedding,
    layer_norm,
    linear,
    relu,
    scaled_dot_product_attention,
)

from goalrank.dropout import dropout
from goalrank.encoders import EXPANSION, Encoded

BLOCKED = -1e9
"""Logit of an item that may not be chosen; finite, since a row of -inf would turn its gradient into NaN."""


def sinusoid(length: int, width: int, device: torch.device) -> Tensor:
    """positions_LD, sines and cosines of geometrically spaced wavelengths: any length, nothing learned per position."""
    position_L1 = torch.arange(length, device=device, dtype=torch.float32).unsqueeze(1)
    half = (width + 1) // 2
    frequency_D = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / half))
    angle_LD = position_L1 * frequency_D
    return torch.cat([angle_LD.sin(), angle_LD.cos()], dim=1)[:, :width]


PACKED = 128
"""Tokens that a GPU's attention kernels take at once, however few a list has."""


def lists_a_row(group: int, length: int, device: torch.device) -> int:
    """How many of a request's lists attend as one sequence, each seeing itself alone: a divisor of the group.

    A GPU starts a block of threads for each sequence and head: one that holds a list of six leaves most of it idle. A
    CPU would only compute what the mask then hides.
    """
    if device.type == "cpu":
        return 1
    return max(
        count for count in range(1, group + 1) if group % count == 0 and (count == 1 or count * length <= PACKED)
    )


def own_past(lists: int, length: int, device: torch.device) -> Tensor:
    """seen_TT, bool, of so many lists in one sequence: a token sees itself and those of its list before it."""
    list_T = torch.arange(lists, device=device).repeat_interleave(length)
    same_TT = list_T.unsqueeze(1) == list_T
    return same_TT & torch.ones_like(same_TT).tril()


class DecoderLayer(nn.Module):
    """Pre-norm causal self-attention over the list so far, then a two-layer perceptron."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, EXPANSION * width), nn.ReLU(inplace=True), nn.Linear(EXPANSION * width, width)
        )

    def forward(self, tokens_MTD: Tensor, seen_TT: Tensor | None = None) -> Tensor:
        """tokens_MTD -> tokens_MTD, each token seeing itself and those before it, or those that seen_TT says."""
        q, k, v = self.qkv(self.norm_attention(tokens_MTD)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended_MTD = scaled_dot_product_attention(q, k, v, seen_TT, is_causal=seen_TT is None)
        attended_MTD = attended_MTD.transpose(1, 2).flatten(2)
        tokens_MTD = tokens_MTD + dropout(self.out(attended_MTD), self.dropout, self.training)
        return tokens_MTD + dropout(self.mlp(self.norm_mlp(tokens_MTD)), self.dropout, self.training)


class CachedLayer:
    """A DecoderLayer that is fed its lists a token at a time and keeps their keys and values, each [M, K, T, D/K].

    For a single request a module costs as much as the arithmetic in it, so the weights are looked up once; and tokens
    have two dimensions, since linear layers are slower on three.
    """

    def __init__(self, layer: DecoderLayer) -> None:
        self.heads, self.dropout = layer.heads, layer.dropout if layer.training else 0.0
        norms = (layer.norm_attention, layer.norm_mlp)
        self.norms = [(norm.normalized_shape, norm.weight, norm.bias, norm.eps) for norm in norms]
        linears = (layer.qkv, layer.out, *(part for part in layer.mlp if isinstance(part, nn.Linear)))
        self.qkv, self.out, self.expand, self.contract = [(part.weight, part.bias) for part in linears]
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def step(self, token_MD: Tensor) -> Tensor:
        """token_MD -> token_MD, seeing itself and the tokens of the steps before."""
        qkv_ME = linear(layer_norm(token_MD, *self.norms[0]), *self.qkv)
        q, k, v = qkv_ME.view(len(token_MD), 3, self.heads, 1, -1).unbind(1)
        self.keys = k if self.keys is None else torch.cat([self.keys, k], dim=2)
        self.values = v if self.values is None else torch.cat([self.values, v], dim=2)
        attended_MD = scaled_dot_product_attention(q, self.keys, self.values).flatten(1)
        token_MD = token_MD + dropout(linear(attended_MD, *self.out), self.dropout, True)
        hidden = relu(linear(layer_norm(token_MD, *self.norms[1]), *self.expand), inplace=True)
        return token_MD + dropout(linear(hidden, *self.contract), self.dropout, True)

    def reorder(self, row_M: Tensor) -> None:
        """Make list m's cache a copy of that of list row_M[m]."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[row_M], self.values[row_M]


@dataclass(frozen=True)
class Draws:
    """Uniform numbers for every step of every list of a batch, drawn ahead.

    A part of the batch that is given its rows of them samples the lists that the whole batch would have.
    """

    uniform_LBGN: Tensor

    @classmethod
    def of(cls, generator: torch.Generator, requests: int, group: int, length: int, candidates: int) -> Draws:
        """What a batch of that shape would draw from the generator as it goes."""
        shape = (requests, group, candidates)
        steps = [torch.rand(shape, generator=generator, device=generator.device) for _ in range(length)]
        return cls(torch.stack(steps))

    @classmethod
    def of_requests(cls, seeds: Sequence[int], group: int, length: int, candidates: int, widest: int) -> Draws:
        """Numbers that are each request's own, whatever else is in its batch.

        Args:
            seeds: one a request.
            group: lists a request.
            length: L.
            candidates: N of the batch.
            widest: the greatest N of any batch; drawn for, so that a request's numbers do not depend on its batch.
        """
        each = [
            torch.rand((length, group, widest), generator=torch.Generator().manual_seed(seed))[..., :candidates]
            for seed in seeds
        ]
        return cls(torch.stack(each, dim=1))

    def rows(self, chosen: slice) -> Draws:
        """Those of some of the requests."""
        return Draws(self.uniform_LBGN[:, chosen])


class PointerDecoder(nn.Module):
    """p(list | request) = product over positions of softmax(query . key / sqrt(D)) over the candidates not yet used.

    The input sequence is [start(user), e(l1), ..., e(l_{L-1})] plus positions; position t's output is the query that
    chooses item t.
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.start = nn.Linear(width, width)
        self.item = nn.Linear(width, width)
        self.position = nn.Linear(width, width, bias=False)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)

    def keys(self, candidates_BND: Tensor) -> Tensor:
        """keys_BND, scaled so that a dot product with a query is a logit."""
        return self.key(candidates_BND) / math.sqrt(self.width)

    def logits(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        """logits_BGLN of every position of every list, teacher-forced in one pass; BLOCKED where an item is used by an
        earlier position of the list or is padding. Positions at and after a list's first -1 mean nothing."""
        candidates_BND, user_BD = encoded.candidates_BND, encoded.user_BD
        batch, group, length = lists_BGL.shape
        candidates = candidates_BND.shape[1]
        row_B11 = torch.arange(batch, device=lists_BGL.device).view(-1, 1, 1) * candidates
        before_BGT = lists_BGL[:, :, : length - 1].clamp_min(0) + row_B11
        # An embedding look-up, since its gradient is summed in a fixed order.
        chosen_BGTD = embedding(before_BGT, self.item(candidates_BND).flatten(0, 1))
        start_BGD = self.start(user_BD).unsqueeze(1).expand(-1, group, -1)
        tokens_BGLD = torch.cat([start_BGD.unsqueeze(2), chosen_BGTD], dim=2)
        tokens_MLD = tokens_BGLD.flatten(0, 1) + self.position(sinusoid(length, self.width, user_BD.device))
        together, seen_TT = lists_a_row(group, length, tokens_MLD.device), None
        if together > 1:
            tokens_MLD = tokens_MLD.reshape(-1, together * length, self.width)
            seen_TT = own_past(together, length, tokens_MLD.device)
        for layer in self.layers:
            tokens_MLD = layer(tokens_MLD, seen_TT)
        query_BXD = self.query(self.norm(tokens_MLD)).reshape(batch, group * length, self.width)
        logits_BGLN = torch.bmm(query_BXD, self.keys(candidates_BND).transpose(1, 2)).unflatten(1, (group, length))

        # An item is used at step t if its place in the list is before t: one scatter, no mask built up by steps.
        place_BGN = torch.full((batch, group, candidates + 1), length, dtype=torch.int32, device=lists_BGL.device)
        steps_L = torch.arange(length, dtype=torch.int32, device=lists_BGL.device)
        target_BGL = torch.where(lists_BGL >= 0, lists_BGL, candidates)  # -1 goes to a spare column
        place_BGN = place_BGN.scatter_reduce(2, target_BGL, steps_L.expand_as(target_BGL), "amin")[:, :, :candidates]
        blocked_BGLN = (place_BGN.unsqueeze(2) < steps_L.view(1, 1, -1, 1)) | ~encoded.mask_BN[:, None, None, :]
        return logits_BGLN.masked_fill_(blocked_BGLN, BLOCKED)

    @torch.no_grad()
    def decode(
        self,
        encoded: Encoded,
        group: int,
        length: int,
        temperature: float | None,
        generator: torch.Generator | Draws | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """lists_BGL, drawn a token at a time, and the logits_BGN of each step they were drawn from, the temperature
        included.

        temperature None takes the likeliest item at each step; its logits are those at temperature 1.
        """
        growing = GrowingLists(self, encoded, group, length)
        lists, logits = [], []
        for step in range(length):
            logits_BGN = growing.logits(temperature)
            greedy = temperature is None
            chosen_BG = logits_BGN.argmax(dim=-1) if greedy else _drawn(logits_BGN, generator, step)
            lists.append(chosen_BG)
            logits.append(logits_BGN)
            growing.append(chosen_BG)
        beyond_B1L = _beyond(encoded.mask_BN, length).unsqueeze(1)
        return torch.stack(lists, dim=2).masked_fill_(beyond_B1L, -1), logits

    @torch.no_grad()
    def beam(self, encoded: Encoded, width: int, length: int) -> tuple[Tensor, Tensor]:
        """lists_BWL that a beam search of that width finds likeliest, best first, and their log-probabilities_BW.

        At each step the `width` likeliest beginnings are kept; width 1 is greedy, and one as wide as there are
        beginnings is exact. A request with fewer lists than that ends in rows of -1 with log-probability -inf.
        """
        growing = GrowingLists(self, encoded, width, length)
        batch, candidates = encoded.mask_BN.shape
        beyond_BL = _beyond(encoded.mask_BN, length)
        score_BW = torch.full((batch, width), -torch.inf, device=encoded.mask_BN.device)
        score_BW[:, 0] = 0.0  # all beginnings are empty yet, hence one
        own_1W = torch.arange(width, device=score_BW.device).unsqueeze(0)
        lists_BWL = torch.full((batch, width, 0), -1, device=score_BW.device)
        for step in range(length):
            logits_BWN = growing.logits(None)
            log_prob_BWN = logits_BWN.log_softmax(dim=-1).masked_fill(growing.blocked_BGN, -torch.inf)
            grown_BX = (score_BW.unsqueeze(2) + log_prob_BWN).flatten(1)
            best_BW, place_BW = grown_BX.topk(width, dim=1)
            # A list that has all candidates is whole: it stays as it is, with -1 from here on.
            whole_B1 = beyond_BL[:, step].unsqueeze(1)
            score_BW = torch.where(whole_B1, score_BW, best_BW)
            parent_BW = torch.where(whole_B1, own_1W, place_BW // candidates)
            chosen_BW = place_BW % candidates
            growing.continue_from(parent_BW)
            growing.append(chosen_BW)
            lists_BWL = torch.take_along_dim(lists_BWL, parent_BW.unsqueeze(2), dim=1)
            lists_BWL = torch.cat([lists_BWL, chosen_BW.masked_fill(whole_B1, -1).unsqueeze(2)], dim=2)
        return lists_BWL.masked_fill_(score_BW.isinf().unsqueeze(2), -1), score_BW


class GrowingLists:
    """Lists of a batch that are written a token at a time, G a request, with cached keys and values."""

    def __init__(self, decoder: PointerDecoder, encoded: Encoded, group: int, length: int) -> None:
        candidates_BND, mask_BN = encoded.candidates_BND, encoded.mask_BN
        batch, candidates = mask_BN.shape
        self.decoder, self.group, self.written = decoder, group, 0
        self.items_XD = decoder.item(candidates_BND).flatten(0, 1)
        self.keys_BDN = decoder.keys(candidates_BND).transpose(1, 2)
        self.row_B1 = torch.arange(0, batch * candidates, candidates, device=mask_BN.device).unsqueeze(1)
        self.positions_LD = decoder.position(sinusoid(length, decoder.width, mask_BN.device))
        self.token_MD = (decoder.start(encoded.user_BD) + self.positions_LD[0]).repeat_interleave(group, dim=0)
        self.blocked_BGN = (~mask_BN).unsqueeze(1).repeat(1, group, 1)
        self.layers = [CachedLayer(cast(DecoderLayer, layer)) for layer in decoder.layers]

    def logits(self, temperature: float | None) -> Tensor:
        """logits_BGN of the next item, over the temperature if there is one; to be asked once a token."""
        state_MD = self.token_MD
        for layer in self.layers:
            state_MD = layer.step(state_MD)
        decoder = self.decoder
        query_BGD = decoder.query(decoder.norm(state_MD)).view(-1, self.group, decoder.width)
        logits_BGN = torch.bmm(query_BGD, self.keys_BDN)
        if temperature is not None:
            logits_BGN = logits_BGN / temperature
        return logits_BGN.masked_fill_(self.blocked_BGN, BLOCKED)

    def append(self, chosen_BG: Tensor) -> None:
        """Add an item to every list."""
        self.written += 1
        if self.written < len(self.positions_LD):
            self.blocked_BGN.scatter_(2, chosen_BG.unsqueeze(2), True)
            token_MD = embedding((chosen_BG + self.row_B1).flatten(), self.items_XD)
            self.token_MD = token_MD + self.positions_LD[self.written]

    def continue_from(self, parent_BG: Tensor) -> None:
        """Make list g of each request a copy of its list parent_BG[:, g], before the next item is added."""
        self.blocked_BGN = torch.take_along_dim(self.blocked_BGN, parent_BG.unsqueeze(2), dim=1)
        first_B1 = torch.arange(0, parent_BG.numel(), self.group, device=parent_BG.device).unsqueeze(1)
        for layer in self.layers:
            layer.reorder((parent_BG + first_B1).flatten())


def _beyond(mask_BN: Tensor, length: int) -> Tensor:
    """beyond_BL: positions for which no candidate is left."""
    return torch.arange(length, device=mask_BN.device) >= mask_BN.sum(dim=1, keepdim=True)


def chosen_log_prob(logits_BGLN: Tensor, lists_BGL: Tensor) -> Tensor:
    """steps_BGL: log-softmax of the logits at each list's items, 0 where a list holds -1."""
    # Fused in both directions, where a gather less a logsumexp goes over the logits several times more.
    loss_X = cross_entropy(logits_BGLN.flatten(0, 2), lists_BGL.flatten(), reduction="none", ignore_index=-1)
    return -loss_X.view(lists_BGL.shape)


def _drawn(logits_BGN: Tensor, generator: torch.Generator | Draws | None, step: int) -> Tensor:
    """chosen_BG, drawn from softmax(logits): the argmax after Gumbel noise."""
    if isinstance(generator, Draws):
        uniform = generator.uniform_LBGN[step]
    else:
        # Drawn where the generator lives: a CPU generator gives the same lists on every device.
        device = logits_BGN.device if generator is None else generator.device
        uniform = torch.rand(logits_BGN.shape, generator=generator, device=device)
    uniform = uniform.to(logits_BGN.device)
    tiny = torch.finfo(uniform.dtype).tiny
    return (logits_BGN - (-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()).argmax(dim=-1)
