"""What a group of lists is: which lists count, how far their rewards differ, and how much of that is noise.

Legend as in goalrank/objective.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOAT32_RESOLUTION = 1e-6
"""A group whose rewards differ by less than this share of their size is equal as far as float32 rewards can say."""


def first_occurrence(lists_BGL: Tensor) -> Tensor:
    """mask_BG, False for a list that an earlier column of its group already holds, item for item."""
    same_BGG = (lists_BGL.unsqueeze(2) == lists_BGL.unsqueeze(1)).all(dim=-1)
    return ~same_BGG.tril(diagonal=-1).any(dim=-1)


def group_std(rewards_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """std_B (float64, ddof 0) of the rewards within each group; 0 for a group of one list or none."""
    return group_moments(rewards_BG, mask_BG)[1]


def group_moments(rewards_BG: Tensor, mask_BG: Tensor) -> tuple[Tensor, Tensor]:
    """mean_B and std_B in float64, ddof 0; a std that float32 rewards cannot resolve is 0."""
    rewards = rewards_BG.double().masked_fill(~mask_BG, 0.0)
    count_B = mask_BG.sum(dim=-1).clamp_min(1)
    mean_B = rewards.sum(dim=-1) / count_B
    centred_BG = (rewards - mean_B.unsqueeze(-1)).masked_fill(~mask_BG, 0.0)
    std_B = (centred_BG.square().sum(dim=-1) / count_B).sqrt()
    equal_B = std_B <= FLOAT32_RESOLUTION * rewards.abs().amax(dim=-1)
    return mean_B, std_B.masked_fill(equal_B, 0.0)


def group_noise(head_rewards_HBG: Tensor, mask_BG: Tensor) -> Tensor:
    """noise_B (float64): how far the heads of the reward ensemble disagree about the lists of a group.

    Each head is centred within the group first, since what all lists share cannot change their order; then the variance
    over heads (ddof 1) is averaged over the lists and the root taken. It is not divided by H: heads share a trunk, so
    their mean is not as good as that of H independent models. One head alone knows no noise: 0.
    """
    heads = head_rewards_HBG.shape[0]
    if heads < 2:
        return torch.zeros(mask_BG.shape[0], dtype=torch.float64, device=mask_BG.device)
    rewards_HBG = head_rewards_HBG.double().masked_fill(~mask_BG, 0.0)
    count_B1 = mask_BG.sum(dim=-1, keepdim=True).clamp_min(1)
    centred_HBG = rewards_HBG - rewards_HBG.sum(dim=-1, keepdim=True) / count_B1
    variance_BG = centred_HBG.var(dim=0, correction=1).masked_fill(~mask_BG, 0.0)
    return (variance_BG.sum(dim=-1) / count_B1.squeeze(-1)).sqrt()


def signal_weights(std_B: Tensor, noise_B: Tensor) -> Tensor:
    """weight_B in [0, 1]: the share of a group's reward variance that is not the reward model's noise.

    Reliability in the sense of test theory, 1 - noise^2 / std^2, and 0 where the noise is the larger: standardising
    makes a group without signal as sharp as one with it (docs/method.md), so it must count less, or not at all.
    """
    ratio_B = (noise_B / std_B.clamp_min(torch.finfo(std_B.dtype).tiny)).square()
    return torch.where(std_B > 0, (1.0 - ratio_B).clamp(0.0, 1.0), torch.zeros_like(std_B)).float()
