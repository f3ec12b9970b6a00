"""The scalar that a training step minimises, for any arm.

Legend as in goalrank/objective.
"""

from __future__ import annotations

from torch import Tensor

from goalrank.errors import UsageError
from goalrank.objective.config import PREFERENCE_LOSSES, ObjectiveConfig
from goalrank.objective.likelihood import full_list_loss, group_renormalised_loss, reverse_kl_loss
from goalrank.objective.preferences import dpo_loss, rcpo_loss
from goalrank.objective.reference import group_reference


def group_relative_loss(
    log_prob_BG: Tensor,
    rewards_BG: Tensor,
    mask_BG: Tensor,
    weight_B: Tensor,
    config: ObjectiveConfig,
    initial_log_prob_BG: Tensor | None = None,
) -> Tensor:
    """The scalar a training step minimises: the mean over requests of weight * loss, for the arm of `config`.

    Divided by B and not by the sum of the weights: a batch without signal must not move the model.

    Args:
        initial_log_prob_BG: of the ranker before its first step, where `config` takes it as the preferences' pi_0.

    Raises:
        UsageError: the temperature still has to be matched, or the initial ranker's log-probabilities are missing.
    """
    if config.matched:
        raise UsageError("a temperature to be matched found, expected a found one; call with_matched_temperature first")
    if config.loss in PREFERENCE_LOSSES:
        loss_B = _preference_loss(log_prob_BG, rewards_BG, mask_BG, config, initial_log_prob_BG)
        return (weight_B * loss_B).mean()
    reference_BG = group_reference(rewards_BG, mask_BG, config.normalisation, config.temperature)
    if config.loss == "full_list":
        loss_B = full_list_loss(log_prob_BG, reference_BG)
    elif config.loss == "group_renormalised":
        loss_B = group_renormalised_loss(log_prob_BG, reference_BG, mask_BG)
    else:
        loss_B = reverse_kl_loss(log_prob_BG, reference_BG, mask_BG)
    return (weight_B * loss_B).mean()


def _preference_loss(
    log_prob_BG: Tensor,
    rewards_BG: Tensor,
    mask_BG: Tensor,
    config: ObjectiveConfig,
    initial_log_prob_BG: Tensor | None,
) -> Tensor:
    if not config.uses_initial_ranker:
        initial_log_prob_BG = None
    elif initial_log_prob_BG is None:
        raise UsageError("preference_reference 'initial' found, expected the initial ranker's log-probabilities beside")
    if config.loss == "dpo":
        return dpo_loss(log_prob_BG, rewards_BG, mask_BG, config.preference_beta, initial_log_prob_BG)
    return rcpo_loss(
        log_prob_BG, rewards_BG, mask_BG, config.ranked_choices, config.preference_beta, initial_log_prob_BG
    )
