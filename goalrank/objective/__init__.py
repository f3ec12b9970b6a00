"""The group-relative objective: rewards of a group of lists -> reference policy -> loss (docs/method.md, three steps).

    config.py       which arm a training run uses        group.py        duplicates, spread, noise of a group
    reference.py    pi_ref from rewards, its sharpness   temperature.py  temperatures that make arms equally sharp
    likelihood.py   full list, within the group, both    preferences.py  the rivals: DPO and RCPO
                    directions of KL, supervised term    loss.py         the scalar that a training step minimises

Pure functions of tensors; nothing here samples, encodes or trains.

Legend: B requests, G lists in a group, L items in a list, H heads of the reward ensemble. `mask_BG` is True where a
list belongs to the group. Statistics over a group use ddof 0 (the group is the whole population, not a sample of one),
and are taken in float64, so that rewards of 1e30 neither overflow nor lose their order.
"""

from goalrank.objective.config import (
    Duplicates,
    Loss,
    Normalisation,
    ObjectiveConfig,
    PreferenceReference,
    Sharpness,
    Signal,
    objective_of,
)
from goalrank.objective.group import (
    FLOAT32_RESOLUTION,
    first_occurrence,
    group_noise,
    group_std,
    signal_weights,
)
from goalrank.objective.likelihood import (
    full_list_loss,
    group_renormalised_loss,
    reverse_kl_loss,
    supervised_loss,
)
from goalrank.objective.loss import group_relative_loss
from goalrank.objective.preferences import dpo_loss, rcpo_loss
from goalrank.objective.reference import group_reference, sharpness
from goalrank.objective.temperature import (
    group_size_temperature,
    matched_temperature,
    with_matched_temperature,
)

__all__ = [
    "FLOAT32_RESOLUTION",
    "Duplicates",
    "Loss",
    "Normalisation",
    "ObjectiveConfig",
    "PreferenceReference",
    "Sharpness",
    "Signal",
    "dpo_loss",
    "first_occurrence",
    "full_list_loss",
    "group_noise",
    "group_reference",
    "group_relative_loss",
    "group_renormalised_loss",
    "group_size_temperature",
    "group_std",
    "matched_temperature",
    "objective_of",
    "rcpo_loss",
    "reverse_kl_loss",
    "sharpness",
    "signal_weights",
    "supervised_loss",
    "with_matched_temperature",
]
