"""Dropout drops the share it is told, evenly and repeatably, and lets gradients through what it kept."""

from __future__ import annotations

import pytest
import torch

from goalrank.dropout import LEVELS, dropout


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_share_and_mean(share: float) -> None:
    torch.manual_seed(0)
    ones = torch.ones(1_000_003)  # not a multiple of four: the last word of random bits is used in part
    dropped = dropout(ones, share, training=True)
    spread = (share * (1 - share) / len(ones)) ** 0.5
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=5 * spread + 1 / LEVELS)
    assert dropped.mean().item() == pytest.approx(1.0, abs=5 * spread / (1 - share) + 1 / LEVELS)
    for part in range(4):  # the four numbers of a word, its sign bit included, are alike
        assert (dropped[part::4] == 0).float().mean().item() == pytest.approx(share, abs=10 * spread + 1 / LEVELS)
    pairs = ((dropped[:-1] == 0) & (dropped[1:] == 0)).float().mean().item()
    assert pairs == pytest.approx(share**2, abs=5 * spread)


def test_seeded() -> None:
    x = torch.randn(7, 13)
    torch.manual_seed(3)
    first = dropout(x, 0.3, training=True)
    torch.manual_seed(3)
    assert dropout(x, 0.3, training=True).equal(first)
    assert not dropout(x, 0.3, training=True).equal(first)


def test_gradient_is_that_of_what_was_kept() -> None:
    x = torch.randn(50, 20, requires_grad=True)
    dropped = dropout(x, 0.25, training=True)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, dropped.detach() / x.detach(), rtol=1e-5, atol=1e-6)
    assert x.grad.unique().tolist() == pytest.approx([0.0, 4 / 3])


def test_nothing_and_everything() -> None:
    x = torch.randn(5, dtype=torch.bfloat16)
    assert dropout(x, 0.3, training=False) is x and dropout(x, 0.0, training=True) is x
    assert not dropout(x, 1.0, training=True).any()
    assert dropout(x, 0.3, training=True).dtype == torch.bfloat16
