"""DPO and RCPO against plain NumPy, and what ties, duplicates, masks and two lists alone mean to them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from goalrank import objective

BETA = 0.3


def make_groups(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """log_prob_BG, initial_BG, rewards_BG (ties in some groups, of different sizes) and mask_BG."""
    rng = np.random.default_rng(seed)
    log_prob, initial = -rng.random((6, 7)) * 20, -rng.random((6, 7)) * 20
    rewards = rng.normal(size=(6, 7))
    rewards[1] = [1, 1, 2, 3, 3, 3, 0]
    rewards[2] = 0.1
    rewards[3] = [1e30, -1e30, 0, 1, 1e30, 2, -1e30]
    mask = rng.random((6, 7)) < 0.75
    mask[:, 0] = mask[1] = mask[3] = True
    mask[4] = [True, False, False, False, False, False, False]
    mask[5] = False
    return log_prob, initial, rewards, mask


def numpy_dpo(utility: np.ndarray, rewards: np.ndarray) -> float:
    losses = [
        np.log1p(np.exp(-(utility[w] - utility[l])))
        for w in range(len(rewards))
        for l in range(len(rewards))  # noqa: E741 - winner and loser, as in the paper
        if rewards[w] > rewards[l]
    ]
    return float(np.mean(losses)) if losses else 0.0


def numpy_rcpo(utility: np.ndarray, rewards: np.ndarray, choices: int) -> float:
    losses = []
    for j in range(len(rewards)):
        worse = [utility[m] for m in range(len(rewards)) if rewards[m] < rewards[j]]
        if worse and sum(rewards > rewards[j]) < choices:
            losses.append(-np.log(np.exp(utility[j]) / (np.exp(utility[j]) + np.exp(worse).sum())))
    return float(np.mean(losses)) if losses else 0.0


@pytest.mark.parametrize("anchored", [False, True])
def test_dpo_restated(anchored: bool) -> None:
    log_prob, initial, rewards, mask = make_groups()
    found = objective.dpo_loss(
        torch.tensor(np.where(mask, log_prob, np.nan)),  # what is outside the group must not matter, whatever it is
        torch.tensor(np.where(mask, rewards, np.nan)),
        torch.tensor(mask),
        BETA,
        torch.tensor(initial) if anchored else None,
    )
    utility = BETA * (log_prob - initial if anchored else log_prob)
    expected = [numpy_dpo(utility[b, mask[b]], rewards[b, mask[b]]) for b in range(6)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert found[[2, 4, 5]].tolist() == [0.0, 0.0, 0.0]  # equal rewards, one list, none


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("choices", [1, 3, 7, 100])
def test_rcpo_restated(anchored: bool, choices: int) -> None:
    log_prob, initial, rewards, mask = make_groups()
    found = objective.rcpo_loss(
        torch.tensor(np.where(mask, log_prob, np.nan)),
        torch.tensor(np.where(mask, rewards, np.nan)),
        torch.tensor(mask),
        choices,
        BETA,
        torch.tensor(initial) if anchored else None,
    )
    utility = BETA * (log_prob - initial if anchored else log_prob)
    expected = [numpy_rcpo(utility[b, mask[b]], rewards[b, mask[b]], choices) for b in range(6)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert found[[2, 4, 5]].tolist() == [0.0, 0.0, 0.0]


def test_without_ties_rcpo_is_plackett_luce() -> None:
    """exp(-loss * choices) are the probabilities of the rankings: over all of them they sum to 1."""
    utility = torch.tensor([[-1.0, -2.5, -0.3, -4.0]], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    for choices, made in ((2, 2), (4, 3)):  # the last of all is no choice
        total: dict[tuple[int, ...], float] = {}
        for order in permutations(range(4)):
            rewards = torch.empty(1, 4)
            rewards[0, list(order)] = torch.tensor([4.0, 3.0, 2.0, 1.0])
            loss = objective.rcpo_loss(utility, rewards, mask, choices, 1.0)
            total[order[:choices]] = float(torch.exp(-made * loss))
        assert sum(total.values()) == pytest.approx(1.0)


def test_two_lists_make_rcpo_and_dpo_the_same() -> None:
    log_prob, rewards = torch.tensor([[-3.0, -1.0], [-2.0, -9.0]]), torch.tensor([[1.0, 0.0], [-1e30, 1e30]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(
        objective.rcpo_loss(log_prob, rewards, mask, 3, BETA), objective.dpo_loss(log_prob, rewards, mask, BETA)
    )


@pytest.mark.parametrize("loss", [objective.dpo_loss, objective.rcpo_loss])
def test_only_the_order_of_the_rewards_matters(loss) -> None:
    log_prob, _, rewards, mask = (torch.tensor(part) for part in make_groups())
    rewards = torch.where(rewards.abs() > 1e29, rewards.sign() * 50.0, rewards)
    plain = loss(log_prob, rewards, mask)
    torch.testing.assert_close(loss(log_prob, rewards.exp() * 7.0 - 3.0, mask), plain)
    torch.testing.assert_close(loss(log_prob - 11.0, rewards, mask), plain)  # nor what all lists' likelihoods share
    assert not torch.allclose(loss(log_prob, -rewards, mask), plain)


@pytest.mark.parametrize("loss", [objective.dpo_loss, objective.rcpo_loss])
def test_a_list_held_twice_counts_once_or_each_time(loss) -> None:
    lists = torch.tensor([[[0, 1], [1, 0], [0, 1], [2, 0]]])
    log_prob, rewards = torch.tensor([[-1.0, -9.0, -1.0, -4.0]]), torch.tensor([[3.0, 2.0, 3.0, 1.0]])
    once = loss(log_prob, rewards, objective.first_occurrence(lists))
    without = loss(log_prob[:, [0, 1, 3]], rewards[:, [0, 1, 3]], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(once, without)
    each = loss(log_prob, rewards, torch.ones(1, 4, dtype=torch.bool))  # two of the pairs, or of the choices, twice
    assert each.item() != pytest.approx(once.item(), rel=1e-3)


@pytest.mark.parametrize("loss", [objective.dpo_loss, objective.rcpo_loss])
def test_gradients_are_right_and_point_uphill(loss) -> None:
    log_prob, initial, rewards, mask = (torch.tensor(part) for part in make_groups())
    log_prob.requires_grad_()

    def with_options(given: torch.Tensor) -> torch.Tensor:
        return loss(given, rewards, mask, beta=BETA, initial_log_prob_BG=initial)

    assert torch.autograd.gradcheck(with_options, log_prob)
    with_options(log_prob).sum().backward()
    assert log_prob.grad.isfinite().all() and (log_prob.grad[~mask] == 0).all()
    best, worst = rewards[0].masked_fill(~mask[0], -9).argmax(), rewards[0].masked_fill(~mask[0], 9).argmin()
    assert log_prob.grad[0, best] < 0 < log_prob.grad[0, worst]
