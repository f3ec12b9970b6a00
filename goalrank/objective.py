"""The group-relative objective: rewards of a group of lists -> reference policy -> loss (docs/method.md, three steps).

Pure functions of tensors; nothing here samples, encodes or trains.

Legend: B requests, G lists in a group, L items in a list, H heads of the reward ensemble. `mask_BG` is True where a
list belongs to the group. Statistics over a group use ddof 0 (the group is the whole population, not a sample of one),
and are taken in float64, so that rewards of 1e30 neither overflow nor lose their order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from goalrank.errors import UsageError

Normalisation = Literal["standardised", "centred", "raw", "ranks"]
Loss = Literal["full_list", "group_renormalised"]
Duplicates = Literal["once", "each"]
Signal = Literal["reliability", "none"]

FLOAT32_RESOLUTION = 1e-6
"""A group whose rewards differ by less than this share of their size is equal as far as float32 rewards can say."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which arm of the objective a training run uses.

    The default is the paper's full-list likelihood at temperature 0.25: chosen by experiment in the simulated world
    (docs/experiments.md), where it earned the highest true reward of the arms tried. The arm renormalised in
    the group earns more predicted reward and less true.
    """

    normalisation: Normalisation = "standardised"
    temperature: float = 0.25
    loss: Loss = "full_list"
    duplicates: Duplicates = "once"
    signal: Signal = "reliability"
    supervised_weight: float = 0.0
    """Weight of the supervised term beside the group-relative one (the authors' public code mixes 1 and 0.01)."""

    def __post_init__(self) -> None:
        choices = {"normalisation": Normalisation, "loss": Loss, "duplicates": Duplicates, "signal": Signal}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"{name} {getattr(self, name)!r} found, expected one of {', '.join(get_args(kind))}")
        if not 0.0 < self.temperature < float("inf"):
            raise UsageError(f"temperature {self.temperature} found, expected a positive number")
        if not 0.0 <= self.supervised_weight < float("inf"):
            raise UsageError(f"supervised_weight {self.supervised_weight} found, expected zero or a positive number")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for model.json and for telling one run's checkpoints from another's."""
        return asdict(self)


# ------------------------------------------------------------------------------------------------------------- groups


def first_occurrence(lists_BGL: Tensor) -> Tensor:
    """mask_BG, False for a list that an earlier column of its group already holds, item for item."""
    same_BGG = (lists_BGL.unsqueeze(2) == lists_BGL.unsqueeze(1)).all(dim=-1)
    return ~same_BGG.tril(diagonal=-1).any(dim=-1)


def group_std(rewards_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """std_B (float64, ddof 0) of the rewards within each group; 0 for a group of one list or none."""
    return _moments(rewards_BG, mask_BG)[1]


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


def group_reference(
    rewards_BG: Tensor,
    mask_BG: Tensor,
    normalisation: Normalisation = "standardised",
    temperature: float = 1.0,
) -> Tensor:
    """pi_ref_BG, the reference policy of each group: softmax over the group of normalised reward / temperature.

    - standardised: (r - mean) / std, ddof 0; the paper's. Groups of equal rewards are uniform.
    - centred: r - mean. The same policy as raw; only the numerics differ.
    - raw: r.
    - ranks: the rewards' ranks (ties share their average rank), standardised; no use is made of the size of a gap.

    Lists outside mask_BG get 0; a row without any list is all 0.
    """
    mean_B, std_B = _moments(rewards_BG, mask_BG)
    rewards = rewards_BG.double().masked_fill(~mask_BG, 0.0)
    if normalisation == "standardised":
        value_BG = _divide(rewards - mean_B.unsqueeze(-1), std_B)
    elif normalisation == "centred":
        value_BG = rewards - mean_B.unsqueeze(-1)
    elif normalisation == "raw":
        value_BG = rewards
    elif normalisation == "ranks":
        ranks_BG = _average_ranks(rewards, mask_BG)
        rank_mean_B, rank_std_B = _moments(ranks_BG, mask_BG)
        value_BG = _divide(ranks_BG - rank_mean_B.unsqueeze(-1), rank_std_B)
    else:
        raise UsageError(f"normalisation {normalisation!r} found, expected one of {', '.join(get_args(Normalisation))}")
    return _masked_softmax(value_BG / temperature, mask_BG).float()


# ------------------------------------------------------------------------------------------------------------- losses


def full_list_loss(log_prob_BG: Tensor, reference_BG: Tensor) -> Tensor:
    """loss_B = - sum over the group of pi_ref * log pi_theta (the paper's loss; docs/method.md, step 3).

    Its optimum depends on which lists the group holds: probability is pulled towards the proposals, bad ones included.
    """
    return -torch.where(reference_BG > 0, reference_BG * log_prob_BG, 0.0).sum(dim=-1)


def group_renormalised_loss(log_prob_BG: Tensor, reference_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """loss_B = KL(pi_ref || softmax over the group of log pi_theta): only ratios within the group move."""
    log_policy_BG = torch.log_softmax(log_prob_BG.masked_fill(~mask_BG, -torch.inf), dim=-1)
    inside_BG = mask_BG & (reference_BG > 0)
    # Filled before the product: 0 * inf would be NaN in the gradient.
    gap_BG = reference_BG.clamp_min(1e-45).log() - log_policy_BG.masked_fill(~inside_BG, 0.0)
    return torch.where(inside_BG, reference_BG * gap_BG, 0.0).sum(dim=-1)


def supervised_loss(logits_BN: Tensor, gain_BN: Tensor, known_BN: Tensor) -> Tensor:
    """loss_B: softmax cross-entropy of the first step's logits against the logged gains of the items that were shown.

    gain_BN >= 0 is what the logged feedback to a candidate was worth; known_BN is True where it was shown (only these
    compete: a candidate that nobody saw is not a negative). A request without any gain counts 0.
    """
    gain_BN = gain_BN.masked_fill(~known_BN, 0.0)
    total_B = gain_BN.sum(dim=-1)
    # Rows without a gain are kept whole, so that no row is all -inf (its gradient would be NaN).
    kept_BN = known_BN | (total_B <= 0).unsqueeze(-1)
    log_prob_BN = torch.log_softmax(logits_BN.masked_fill(~kept_BN, -torch.inf), dim=-1)
    target_BN = gain_BN / total_B.clamp_min(torch.finfo(gain_BN.dtype).tiny).unsqueeze(-1)
    return -torch.where(target_BN > 0, target_BN * log_prob_BN.masked_fill(~kept_BN, 0.0), 0.0).sum(dim=-1)


def group_relative_loss(
    log_prob_BG: Tensor, rewards_BG: Tensor, mask_BG: Tensor, weight_B: Tensor, config: ObjectiveConfig
) -> Tensor:
    """The scalar a training step minimises: the mean over requests of weight * loss, for the arm of `config`.

    Divided by B and not by the sum of the weights: a batch without signal must not move the model.
    """
    reference_BG = group_reference(rewards_BG, mask_BG, config.normalisation, config.temperature)
    if config.loss == "full_list":
        loss_B = full_list_loss(log_prob_BG, reference_BG)
    else:
        loss_B = group_renormalised_loss(log_prob_BG, reference_BG, mask_BG)
    return (weight_B * loss_B).mean()


# ---------------------------------------------------------------------------------------------------------- arithmetic


def _moments(rewards_BG: Tensor, mask_BG: Tensor) -> tuple[Tensor, Tensor]:
    """mean_B and std_B in float64, ddof 0; a std that float32 rewards cannot resolve is 0."""
    rewards = rewards_BG.double().masked_fill(~mask_BG, 0.0)
    count_B = mask_BG.sum(dim=-1).clamp_min(1)
    mean_B = rewards.sum(dim=-1) / count_B
    centred_BG = (rewards - mean_B.unsqueeze(-1)).masked_fill(~mask_BG, 0.0)
    std_B = (centred_BG.square().sum(dim=-1) / count_B).sqrt()
    equal_B = std_B <= FLOAT32_RESOLUTION * rewards.abs().amax(dim=-1)
    return mean_B, std_B.masked_fill(equal_B, 0.0)


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
