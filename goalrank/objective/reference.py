"""The reference policy of a group, from the rewards of its lists (docs/method.md, three steps, 3).

Legend as in goalrank/objective.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from goalrank.errors import UsageError
from goalrank.objective.config import Normalisation, Sharpness
from goalrank.objective.group import group_moments


def group_reference(
    rewards_BG: Tensor,
    mask_BG: Tensor,
    normalisation: Normalisation = "standardised",
    temperature: float = 1.0,
) -> Tensor:
    """pi_ref_BG, the reference policy of each group: softmax over the group of normalised reward / temperature.

    - standardised: (r - mean) / std, ddof 0; the paper's. Groups of equal rewards are uniform.
    - divided: r / std. The same policy as standardised; only the numerics differ.
    - centred: r - mean. The same policy as raw; only the numerics differ.
    - raw: r.
    - ranks: the rewards' ranks (ties share their average rank), standardised; no use is made of the size of a gap.

    Lists outside mask_BG get 0; a row without any list is all 0.

    Raises:
        UsageError: the normalisation is none of these.
    """
    mean_B, std_B = group_moments(rewards_BG, mask_BG)
    rewards = rewards_BG.double().masked_fill(~mask_BG, 0.0)
    if normalisation == "standardised":
        value_BG = _divide(rewards - mean_B.unsqueeze(-1), std_B)
    elif normalisation == "divided":
        value_BG = _divide(rewards, std_B)
    elif normalisation == "centred":
        value_BG = rewards - mean_B.unsqueeze(-1)
    elif normalisation == "raw":
        value_BG = rewards
    elif normalisation == "ranks":
        ranks_BG = _average_ranks(rewards, mask_BG)
        rank_mean_B, rank_std_B = group_moments(ranks_BG, mask_BG)
        value_BG = _divide(ranks_BG - rank_mean_B.unsqueeze(-1), rank_std_B)
    else:
        raise UsageError(f"normalisation {normalisation!r} found, expected one of {', '.join(get_args(Normalisation))}")
    return _masked_softmax(value_BG / temperature, mask_BG).float()


def sharpness(reference_BG: Tensor, by: Sharpness = "top_weight") -> Tensor:
    """sharpness_B (float64) of each group's reference policy: its largest weight, or its entropy in nats."""
    reference = reference_BG.double()
    if by == "top_weight":
        return reference.amax(dim=-1)
    return -torch.special.xlogy(reference, reference).sum(dim=-1)


def _divide(value_BG: Tensor, std_B: Tensor) -> Tensor:
    """value / std, and 0 where there is no spread; NaN stays NaN, so that the trainer's check sees it."""
    std_B1 = std_B.unsqueeze(-1)
    return torch.where(std_B1 == 0, 0.0, value_BG / torch.where(std_B1 == 0, 1.0, std_B1))


def _average_ranks(rewards_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """ranks_BG: how many lists of the group are below, plus half of those level with it."""
    difference_BGG = rewards_BG.unsqueeze(2) - rewards_BG.unsqueeze(1)
    other_BGG = mask_BG.unsqueeze(1)
    below_BG = ((difference_BGG > 0) & other_BGG).sum(dim=-1).double()
    level_BG = ((difference_BGG == 0) & other_BGG).sum(dim=-1).double()
    ranks_BG = below_BG + 0.5 * level_BG
    return torch.where(rewards_BG.isnan(), rewards_BG, ranks_BG)


def _masked_softmax(value_BG: Tensor, mask_BG: Tensor) -> Tensor:
    top_B1 = value_BG.masked_fill(~mask_BG, -torch.inf).amax(dim=-1, keepdim=True)
    weight_BG = torch.exp(value_BG - top_B1.masked_fill(top_B1 == -torch.inf, 0.0)).masked_fill(~mask_BG, 0.0)
    total_B1 = weight_BG.sum(dim=-1, keepdim=True)
    return weight_BG / torch.where(total_B1 == 0, 1.0, total_B1)
