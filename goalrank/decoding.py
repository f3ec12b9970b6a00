"""Pointer decoder: an autoregressive distribution over lists of distinct candidates.

One function of (what was chosen so far) is written twice, once over whole lists for training and once a token at a time
with cached keys and values for sampling; a test holds the two together. Candidates come encoded and are encoded once,
which is the cost docs/method.md ("The cost to beat") describes.

Legend: B requests, G lists a request, M = B*G, N candidates, L list length, T tokens so far, D width, K heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention

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


class DecoderLayer(nn.Module):
    """Pre-norm causal self-attention over the list so far, then a two-layer perceptron."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, EXPANSION * width), nn.ReLU(), nn.Linear(EXPANSION * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_MTD: Tensor, cache: list[Tensor] | None = None) -> Tensor:
        """tokens_MTD -> tokens_MTD. With a cache, T is 1 and `cache` ([keys, values], or empty) grows by one token."""
        q, k, v = self._split(self.qkv(self.norm_attention(tokens_MTD)))
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        attended = scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        tokens_MTD = tokens_MTD + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return tokens_MTD + self.dropout(self.mlp(self.norm_mlp(tokens_MTD)))

    def _split(self, qkv_MTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv_MTE.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [M, K, T, D/K]
        return q, k, v


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
        for layer in self.layers:
            tokens_MLD = layer(tokens_MLD)
        query_BXD = self.query(self.norm(tokens_MLD)).reshape(batch, group * length, self.width)
        logits_BGLN = torch.bmm(query_BXD, self.keys(candidates_BND).transpose(1, 2)).unflatten(1, (group, length))

        # An item is used at step t if its place in the list is before t: one scatter, no mask built up by steps.
        place_BGN = torch.full((batch, group, candidates + 1), length, dtype=torch.int32, device=lists_BGL.device)
        steps_L = torch.arange(length, dtype=torch.int32, device=lists_BGL.device)
        target_BGL = torch.where(lists_BGL >= 0, lists_BGL, candidates)  # -1 goes to a spare column
        place_BGN = place_BGN.scatter_reduce(2, target_BGL, steps_L.expand_as(target_BGL), "amin")[:, :, :candidates]
        blocked_BGLN = (place_BGN.unsqueeze(2) < steps_L.view(1, 1, -1, 1)) | ~encoded.mask_BN[:, None, None, :]
        return logits_BGLN.masked_fill(blocked_BGLN, BLOCKED)

    @torch.no_grad()
    def decode(
        self,
        encoded: Encoded,
        group: int,
        length: int,
        temperature: float | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """lists_BGL and the log-probabilities steps_BGL they were drawn with, a token at a time.

        temperature None takes the likeliest item at each step; its log-probabilities are those at temperature 1.
        """
        batch = encoded.mask_BN.shape[0]
        items_BND, keys_BDN = self.item(encoded.candidates_BND), self.keys(encoded.candidates_BND).transpose(1, 2)
        positions_LD = self.position(sinusoid(length, self.width, encoded.user_BD.device))
        token_BGD = self.start(encoded.user_BD).unsqueeze(1).expand(-1, group, -1)
        available_BGN = encoded.mask_BN.unsqueeze(1).repeat(1, group, 1)
        caches: list[list[Tensor]] = [[] for _ in self.layers]
        lists, steps = [], []
        for step in range(length):
            state_M1D = (token_BGD + positions_LD[step]).reshape(batch * group, 1, self.width)
            for layer, cache in zip(self.layers, caches, strict=True):
                state_M1D = layer(state_M1D, cache)
            query_BGD = self.query(self.norm(state_M1D)).view(batch, group, self.width)
            logits_BGN = torch.bmm(query_BGD, keys_BDN) / (temperature or 1.0)
            logits_BGN = logits_BGN.masked_fill(~available_BGN, BLOCKED)
            chosen_BG1 = _choose(logits_BGN, temperature is not None, generator)
            left_BG1 = available_BGN.any(dim=-1, keepdim=True)  # False once a request's candidates are used up
            step_BG1 = torch.log_softmax(logits_BGN, dim=-1).gather(2, chosen_BG1)
            available_BGN = available_BGN.scatter(2, chosen_BG1, False)
            token_BGD = torch.take_along_dim(items_BND, chosen_BG1, dim=1)
            lists.append(chosen_BG1.masked_fill(~left_BG1, -1))
            steps.append(step_BG1.masked_fill(~left_BG1, 0.0))
        return torch.cat(lists, dim=2), torch.cat(steps, dim=2)


def _choose(logits_BGN: Tensor, sample: bool, generator: torch.Generator | None) -> Tensor:
    """chosen_BG1: the argmax, after Gumbel noise if a draw from softmax(logits) is wanted."""
    if sample:
        # Drawn where the generator lives: a CPU generator gives the same lists on every device.
        device = logits_BGN.device if generator is None else generator.device
        uniform = torch.rand(logits_BGN.shape, generator=generator, device=device).to(logits_BGN.device)
        tiny = torch.finfo(uniform.dtype).tiny
        logits_BGN = logits_BGN - (-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()
    return logits_BGN.argmax(dim=-1, keepdim=True)
