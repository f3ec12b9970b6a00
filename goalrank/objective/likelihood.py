"""Losses that pull the ranker's policy towards a reference policy, and the supervised term.

Legend as in goalrank/objective; N candidates of a request.
"""

from __future__ import annotations

import torch
from torch import Tensor


def full_list_loss(log_prob_BG: Tensor, reference_BG: Tensor) -> Tensor:
    """loss_B = - sum over the group of pi_ref * log pi_theta (the paper's loss; docs/method.md, step 3).

    Its optimum depends on which lists the group holds: probability is pulled towards the proposals, bad ones included.
    """
    # Not "above 0": what is not a number must reach the trainer's check.
    return -torch.where(reference_BG != 0, reference_BG * log_prob_BG, 0.0).sum(dim=-1)


def group_renormalised_loss(log_prob_BG: Tensor, reference_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """loss_B = KL(pi_ref || softmax over the group of log pi_theta): only ratios within the group move."""
    log_policy_BG = torch.log_softmax(log_prob_BG.masked_fill(~mask_BG, -torch.inf), dim=-1)
    inside_BG = mask_BG & (reference_BG != 0)
    # Filled before the product: 0 * inf would be NaN in the gradient.
    gap_BG = reference_BG.clamp_min(1e-45).log() - log_policy_BG.masked_fill(~inside_BG, 0.0)
    return torch.where(inside_BG, reference_BG * gap_BG, 0.0).sum(dim=-1)


def reverse_kl_loss(log_prob_BG: Tensor, reference_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """loss_B = KL(softmax over the group of log pi_theta || pi_ref): the other direction, which gives up lists of the
    reference rather than keep what it excludes.

    log pi_ref is at least -87 (float32's smallest normal number): a list that the reference excludes outright costs a
    bounded amount, and so does its gradient.
    """
    log_policy_BG = torch.log_softmax(log_prob_BG.masked_fill(~mask_BG, -torch.inf), dim=-1)
    log_policy_BG = log_policy_BG.masked_fill(~mask_BG, 0.0)  # before the product: 0 * inf would be NaN
    gap_BG = log_policy_BG - reference_BG.clamp_min(torch.finfo(torch.float32).tiny).log()
    return torch.where(mask_BG, log_policy_BG.exp() * gap_BG, 0.0).sum(dim=-1)


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
