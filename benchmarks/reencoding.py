"""Two slower ways of computing what goalrank/ranker.py computes, with the very same weights, for comparison only.

Re-encoding, the authors' public code's way (docs/method.md, the cost to beat): for each list and each of its positions
the whole request encoder runs again, then the decoder over the items chosen so far, without cached keys and values.
Requests are batched; lists and positions are not.

Step by step: the request is encoded once, all lists of a group go together, but each position is a pass of its own over
the items chosen so far, without cached keys and values and without teacher forcing.

Legend: B requests, G lists a request, N candidates, L list length, T items chosen so far, D width, M = B*G.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from goalrank.dataset import RequestBatch
from goalrank.decoding import BLOCKED, PointerDecoder, chosen_log_prob, sinusoid
from goalrank.encoders import Encoded
from goalrank.ranker import Ranker


@dataclass
class Projected:
    """A batch encoded and projected for the decoder: what one encoding is good for."""

    items_XD: Tensor  # X = B * N
    keys_BDN: Tensor
    user_BD: Tensor
    mask_BN: Tensor

    @classmethod
    def of(cls, decoder: PointerDecoder, encoded: Encoded) -> Projected:
        """The projections that do not depend on the list."""
        candidates_BND = encoded.candidates_BND
        items_XD, keys_BDN = decoder.item(candidates_BND).flatten(0, 1), decoder.keys(candidates_BND).transpose(1, 2)
        return cls(items_XD, keys_BDN, encoded.user_BD, encoded.mask_BN)


def next_logits(decoder: PointerDecoder, given: Projected, prefix_BGT: Tensor) -> Tensor:
    """logits_BGN of the position after the prefix: a pass over start and T items, of which only the last is asked."""
    batch, group, chosen = prefix_BGT.shape
    candidates, device = given.mask_BN.shape[1], prefix_BGT.device
    row_B11 = torch.arange(0, batch * candidates, candidates, device=device).view(-1, 1, 1)
    start_BG1D = decoder.start(given.user_BD).unsqueeze(1).expand(-1, group, -1).unsqueeze(2)
    tokens_MTD = torch.cat([start_BG1D, embedding(prefix_BGT + row_B11, given.items_XD)], dim=2).flatten(0, 1)
    tokens_MTD = tokens_MTD + decoder.position(sinusoid(chosen + 1, decoder.width, device))
    for layer in decoder.layers:
        tokens_MTD = layer(tokens_MTD)
    query_BGD = decoder.query(decoder.norm(tokens_MTD[:, -1])).view(batch, group, decoder.width)
    logits_BGN = torch.bmm(query_BGD, given.keys_BDN)
    used_BGN = torch.zeros(logits_BGN.shape, dtype=torch.bool, device=device).scatter_(2, prefix_BGT, True)
    return logits_BGN.masked_fill_(used_BGN | ~given.mask_BN.unsqueeze(1), BLOCKED)


def reencoded_steps(ranker: Ranker, batch: RequestBatch, lists_BGL: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(g, log_prob_B of one position of list g), list by list and position by position: an encoding each, G * L in all.

    Lists are full. Each is yielded before the next is computed, so a caller may go backward from it and let it go.
    """
    for g, list_BL in enumerate(lists_BGL.unbind(1)):
        for step in range(list_BL.shape[1]):
            given = Projected.of(ranker.decoder, ranker.encode(batch))
            logits_B1N = next_logits(ranker.decoder, given, list_BL[:, None, :step])
            yield g, chosen_log_prob(logits_B1N.unsqueeze(2), list_BL[:, None, step : step + 1]).flatten()


def reencoded_log_prob(ranker: Ranker, batch: RequestBatch, lists_BGL: Tensor) -> Tensor:
    """log_prob_BG of full lists."""
    steps = [step_B for _, step_B in reencoded_steps(ranker, batch, lists_BGL)]
    return torch.stack(steps, dim=1).unflatten(1, lists_BGL.shape[1:]).sum(dim=2)


def stepwise_log_prob(ranker: Ranker, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
    """log_prob_BG of full lists of requests that are encoded already."""
    given, steps = Projected.of(ranker.decoder, encoded), range(lists_BGL.shape[2])
    logits = [next_logits(ranker.decoder, given, lists_BGL[..., :step]) for step in steps]
    return chosen_log_prob(torch.stack(logits, dim=2), lists_BGL).sum(dim=-1)


def reencoded_greedy(ranker: Ranker, batch: RequestBatch, length: int) -> Tensor:
    """lists_BL: the likeliest item at each step, the request encoded anew for each; candidates are at least L."""
    list_BL = torch.zeros(len(batch), 0, dtype=torch.int64, device=batch.mask_BN.device)
    for _ in range(length):
        list_BL = _longer(ranker, Projected.of(ranker.decoder, ranker.encode(batch)), list_BL)
    return list_BL


def stepwise_greedy(ranker: Ranker, encoded: Encoded, length: int) -> Tensor:
    """lists_BL: the same, the request encoded once, keys and values of the list not cached."""
    list_BL = torch.zeros(len(encoded.mask_BN), 0, dtype=torch.int64, device=encoded.mask_BN.device)
    given = Projected.of(ranker.decoder, encoded)
    for _ in range(length):
        list_BL = _longer(ranker, given, list_BL)
    return list_BL


def _longer(ranker: Ranker, given: Projected, list_BL: Tensor) -> Tensor:
    return torch.cat([list_BL, next_logits(ranker.decoder, given, list_BL.unsqueeze(1)).argmax(dim=-1)], dim=1)
