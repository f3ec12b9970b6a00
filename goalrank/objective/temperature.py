"""Temperatures at which two arms are equally sharp, so that a study of one choice does not measure another.

The normalisations differ in how sharp they make a group, and equal temperature is flatter in larger groups: compared
at equal temperature, arms differ in two things at once (docs/method.md).

Legend as in goalrank/objective; R all requests of a data set.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from goalrank.errors import UsageError
from goalrank.objective.config import UNIT_SPREAD, Normalisation, ObjectiveConfig, Sharpness
from goalrank.objective.group import group_std
from goalrank.objective.reference import group_reference, sharpness

_DECADES = 4.0  # searched on both sides of the rewards' own spread
_HALVINGS = 45
_GAUSSIAN_GROUPS = 10_000  # standard error of a mean top weight: 0.002


def mean_sharpness(
    rewards_RG: Tensor, mask_RG: Tensor, normalisation: Normalisation, temperature: float, by: Sharpness
) -> float:
    """The mean over groups of the reference policy's top weight, or entropy in nats. Groups of equal rewards are left
    out: they are uniform at every temperature.

    Raises:
        UsageError: no group has rewards that differ.
    """
    differ_R = group_std(rewards_RG, mask_RG) > 0
    if not differ_R.any():
        raise UsageError(f"{len(rewards_RG)} groups of equal rewards found, expected one whose lists differ")
    reference_RG = group_reference(rewards_RG[differ_R], mask_RG[differ_R], normalisation, temperature)
    return float(sharpness(reference_RG, by).mean())


def matched_temperature(
    rewards_RG: Tensor, mask_RG: Tensor, normalisation: Normalisation, target: float, by: Sharpness = "top_weight"
) -> float:
    """The one temperature for a whole data set at which an arm's mean sharpness is `target`.

    Both statistics are monotone in the temperature, so halving finds it.

    Raises:
        UsageError: no temperature gives that sharpness, or no group has rewards that differ.
    """
    std_R = group_std(rewards_RG, mask_RG)
    spread = 1.0 if normalisation in UNIT_SPREAD or not (std_R > 0).any() else float(std_R[std_R > 0].median())
    low, high = (math.log(spread) + sign * _DECADES * math.log(10.0) for sign in (-1, 1))

    def found(log_temperature: float) -> float:
        return mean_sharpness(rewards_RG, mask_RG, normalisation, math.exp(log_temperature), by)

    sharpest, flattest = found(low), found(high)
    if not min(sharpest, flattest) <= target <= max(sharpest, flattest):
        raise UsageError(
            f"{by} {target:.4g} for {normalisation} rewards found, expected between {min(sharpest, flattest):.4g} and "
            f"{max(sharpest, flattest):.4g}, what these groups can give; choose another temperature to match"
        )
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        too_sharp = found(middle) > target if by == "top_weight" else found(middle) < target
        low, high = (middle, high) if too_sharp else (low, middle)
    return math.exp(0.5 * (low + high))


@lru_cache(maxsize=64)
def group_size_temperature(temperature: float, group_size: int, stated_for: int, by: Sharpness = "top_weight") -> float:
    """The temperature at which groups of `group_size` lists are as sharp as groups of `stated_for` at `temperature`.

    Measured on Gaussian rewards, standardised in the group (seeded draws): the size of a group is all that differs.

    Raises:
        UsageError: a size below 2, or no temperature makes groups of that size so sharp (or so flat).
    """
    if min(group_size, stated_for) < 2:
        raise UsageError(f"group sizes {group_size} and {stated_for} found, expected 2 or more: one list has no rival")
    target = mean_sharpness(*_gaussian(stated_for), "standardised", temperature, by)
    return matched_temperature(*_gaussian(group_size), "standardised", target, by)


def with_matched_temperature(
    config: ObjectiveConfig, rewards_RG: Tensor, mask_RG: Tensor, group_size: int
) -> ObjectiveConfig:
    """`config` with the temperature that its matched_to, matched_by and matched_group_size ask for, and these cleared.

    Args:
        rewards_RG: r_hat of the lists that are known before training begins, those of the helpers.
        mask_RG: what of them counts.
        group_size: lists in a group while training, on-policy ones included.

    Raises:
        UsageError: no temperature gives the sharpness asked for.
    """
    temperature = config.temperature
    if config.matched_group_size:
        temperature = group_size_temperature(temperature, group_size, config.matched_group_size, config.matched_by)
    if config.matched_to != "none":
        target = mean_sharpness(rewards_RG, mask_RG, config.matched_to, temperature, config.matched_by)
        temperature = matched_temperature(rewards_RG, mask_RG, config.normalisation, target, config.matched_by)
    return replace(config, temperature=temperature, matched_to="none", matched_group_size=0)


def _gaussian(group_size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rewards_RG = torch.randn(_GAUSSIAN_GROUPS, group_size, generator=generator, dtype=torch.float64)
    return rewards_RG, torch.ones_like(rewards_RG, dtype=torch.bool)
