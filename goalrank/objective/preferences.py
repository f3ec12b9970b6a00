"""The rivals that learn from preferences between the lists of a group: DPO and RCPO.

Both score a list by the utility u(l) = beta (log pi_theta(l) - log pi_0(l)), the reward that pi_theta would be optimal
for under a KL penalty towards pi_0 (Rafailov et al., NeurIPS 2023, "Direct Preference Optimization", section 4). What
they see of the rewards is their order. Here

- the preferences are those of r_hat between the lists of a group, strict ones only: equal rewards say nothing;
- pi_0 is the uniform policy over lists unless its log-probabilities are given. It cancels, and the penalty is then the
  entropy, as in the optimum that the paper of docs/method.md starts from.

Legend as in goalrank/objective.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_loss(
    log_prob_BG: Tensor,
    rewards_BG: Tensor,
    mask_BG: Tensor,
    beta: float = 0.1,
    initial_log_prob_BG: Tensor | None = None,
) -> Tensor:
    """loss_B = mean over pairs (w better than l) of -log sigmoid(u(w) - u(l)) (Rafailov et al., 2023, equation 7).

    From the paper: the loss of one pair. Ours: one pair a prompt there, all pairs of a group with different rewards
    here, each counting the same. A group without such a pair costs 0.
    """
    utility_BG = _utility(log_prob_BG, mask_BG, beta, initial_log_prob_BG)
    better_BGG = _better(rewards_BG, mask_BG)
    gap_BGG = utility_BG.unsqueeze(2) - utility_BG.unsqueeze(1)
    loss_BGG = torch.where(better_BGG, -logsigmoid(gap_BGG), 0.0)
    loss_B = loss_BGG.sum(dim=(1, 2)) / better_BGG.sum(dim=(1, 2)).clamp_min(1)
    return _nan_where_broken(loss_B, rewards_BG, mask_BG)


def rcpo_loss(
    log_prob_BG: Tensor,
    rewards_BG: Tensor,
    mask_BG: Tensor,
    choices: int = 3,
    beta: float = 0.1,
    initial_log_prob_BG: Tensor | None = None,
) -> Tensor:
    """loss_B = mean over the ranked choices of -log(exp u(chosen) / sum over what was left of exp u).

    Ranked-choice preference optimisation (Tang and Feng, 2025, arXiv 2510.23631). From the paper: preferences over
    many lists are fitted by the likelihood of a ranked choice model; its multinomial logit with DPO's utility gives the
    first `choices` lists, best first, a Plackett-Luce likelihood. With two lists it is DPO. Our reading: all lists of
    the group are on offer and r_hat ranks them; lists of equal reward are never on offer together (a choice is between
    a list and all that are worse), so their order does not matter and a group of equal rewards costs 0; the mean over
    the choices, not their sum, so that ties give no group less weight. The paper's other model, Mallows, is not built.

    Args:
        choices: lists with fewer than this many better ones are choices. G or more is the whole ranking.
    """
    utility_BG = _utility(log_prob_BG, mask_BG, beta, initial_log_prob_BG)
    better_BGG = _better(rewards_BG, mask_BG)
    chosen_BG = (better_BGG.sum(dim=1) < choices) & better_BGG.any(dim=2)
    offered_BGG = better_BGG | torch.eye(better_BGG.shape[1], dtype=torch.bool, device=mask_BG.device)
    offered_utility_BGG = utility_BG.unsqueeze(1).masked_fill(~offered_BGG, -torch.inf)
    log_choice_BG = utility_BG - offered_utility_BGG.logsumexp(dim=2)
    loss_B = -torch.where(chosen_BG, log_choice_BG, 0.0).sum(dim=1) / chosen_BG.sum(dim=1).clamp_min(1)
    return _nan_where_broken(loss_B, rewards_BG, mask_BG)


def _utility(log_prob_BG: Tensor, mask_BG: Tensor, beta: float, initial_log_prob_BG: Tensor | None) -> Tensor:
    """u_BG; 0 outside the group, where a log-probability may be anything."""
    if initial_log_prob_BG is not None:
        log_prob_BG = log_prob_BG - initial_log_prob_BG
    return beta * log_prob_BG.masked_fill(~mask_BG, 0.0)


def _better(rewards_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """better_BGG, True at [b, i, j] where list i earns more than list j, both of the group."""
    above_BGG = rewards_BG.unsqueeze(2) > rewards_BG.unsqueeze(1)
    return above_BGG & mask_BG.unsqueeze(2) & mask_BG.unsqueeze(1)


def _nan_where_broken(loss_B: Tensor, rewards_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """NaN where a reward of the group is not finite: comparisons hide what the trainer's check must see."""
    broken_B = (mask_BG & ~rewards_BG.isfinite()).any(dim=-1)
    return loss_B.masked_fill(broken_B, torch.nan)
