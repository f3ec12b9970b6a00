"""Matched temperatures: arms that ought to be equally sharp are, whatever the scale; what cannot be is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import entropy

from goalrank.errors import UsageError
from goalrank.objective import (
    ObjectiveConfig,
    group_reference,
    group_size_temperature,
    matched_temperature,
    sharpness,
    with_matched_temperature,
)

TOP_WEIGHTS = {8: 0.39, 20: 0.23, 100: 0.08}
"""Mean top weight of standardised Gaussian rewards at temperature 1, by group size (docs/method.md's source)."""


def make_rewards(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """rewards_RG of very different spread per request, one group of equal rewards and one of a single list; mask_RG."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(60, 8)) * rng.lognormal(size=(60, 1)) + rng.normal(size=(60, 1)) * 3
    rewards[5] = 1.7
    mask = rng.random((60, 8)) < 0.85
    mask[:, :2] = True
    mask[6] = [True, *[False] * 7]
    return torch.tensor(rewards * scale, dtype=torch.float32), torch.tensor(mask)


def test_sharpness_restated() -> None:
    reference = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.7, 0.1], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(sharpness(reference).numpy(), [0.5, 0.7, 0.0])
    expected = [np.log(2), entropy([0.2, 0.7, 0.1]), 0.0]
    np.testing.assert_allclose(sharpness(reference, "entropy").numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("by", ["top_weight", "entropy"])
@pytest.mark.parametrize("normalisation", ["raw", "centred", "ranks"])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e20])
def test_matched_temperature_restated(by: str, normalisation: str, scale: float) -> None:
    rewards, mask = make_rewards(scale)
    counting = [b for b in range(60) if b not in (5, 6)]  # the rest is uniform at any temperature
    target = float(sharpness(group_reference(rewards, mask, "standardised", 0.25), by)[counting].mean())
    found = matched_temperature(rewards, mask, normalisation, target, by)

    def numpy_sharpness(temperature: float) -> float:
        values = []
        for b in counting:
            r = rewards[b].double().numpy()[mask[b].numpy()]
            if normalisation == "ranks":
                r = np.argsort(np.argsort(r)).astype(float)
                r = (r - r.mean()) / r.std()
            weights = softmax(r / temperature)
            values.append(weights.max() if by == "top_weight" else entropy(weights))
        return float(np.mean(values))

    wide = scale if normalisation != "ranks" else 1.0
    expected = brentq(lambda t: numpy_sharpness(t) - target, 1e-3 * wide, 1e3 * wide, xtol=1e-9 * wide)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_same_policy_matches_at_the_same_temperature() -> None:
    rewards, mask = make_rewards()
    config = ObjectiveConfig(normalisation="divided", temperature=0.4, matched_to="standardised")
    assert with_matched_temperature(config, rewards, mask, 8).temperature == pytest.approx(0.4, rel=1e-6)


@pytest.mark.parametrize("by", ["top_weight", "entropy"])
def test_a_config_is_given_the_temperature_it_asks_for(by: str) -> None:
    rewards, mask = make_rewards()
    config = ObjectiveConfig(normalisation="raw", loss="group_renormalised", matched_to="standardised", matched_by=by)
    found = with_matched_temperature(config, rewards, mask, 8)
    assert not found.matched and (found.normalisation, found.loss) == ("raw", "group_renormalised")
    arms = [
        sharpness(group_reference(rewards, mask, arm, temperature), by).mean().item()
        for arm, temperature in (("raw", found.temperature), ("standardised", config.temperature))
    ]
    assert arms[0] == pytest.approx(arms[1], rel=1e-6)
    # One temperature for all groups: it is the mean that agrees, not each group.
    each = [
        sharpness(group_reference(rewards, mask, arm, temperature), by)
        for arm, temperature in (("raw", found.temperature), ("standardised", config.temperature))
    ]
    assert (each[0] - each[1]).abs().max() > 0.1


def test_top_weights_by_group_size() -> None:
    generator = torch.Generator().manual_seed(1)
    for size, expected in TOP_WEIGHTS.items():
        rewards = torch.randn(4000, size, generator=generator)
        reference = group_reference(rewards, torch.ones_like(rewards, dtype=torch.bool))
        assert sharpness(reference).mean().item() == pytest.approx(expected, abs=0.006)
        matched = group_reference(
            rewards, torch.ones_like(rewards, dtype=torch.bool), temperature=group_size_temperature(1.0, size, 8)
        )
        assert sharpness(matched).mean().item() == pytest.approx(TOP_WEIGHTS[8], abs=0.01)


def test_group_size_temperature() -> None:
    assert group_size_temperature(0.25, 16, 16) == pytest.approx(0.25, rel=1e-6)
    assert group_size_temperature(1.0, 100, 8) < group_size_temperature(1.0, 20, 8) < 1.0
    assert group_size_temperature(1.0, 3, 8) > 1.0
    rewards, mask = make_rewards()
    sized = ObjectiveConfig(temperature=1.0, matched_group_size=8)
    assert with_matched_temperature(sized, rewards, mask, 20).temperature == group_size_temperature(1.0, 20, 8)
    # Both at once: the arm is as sharp as the standardised one is at the temperature for its group size.
    both = ObjectiveConfig(normalisation="raw", temperature=1.0, matched_to="standardised", matched_group_size=20)
    at_size = ObjectiveConfig(
        normalisation="raw", temperature=group_size_temperature(1.0, 8, 20), matched_to="standardised"
    )
    assert with_matched_temperature(both, rewards, mask, 8) == with_matched_temperature(at_size, rewards, mask, 8)


def test_what_cannot_be_matched_is_refused() -> None:
    rewards, mask = torch.tensor([[1.0, 1.0, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(UsageError, match="top_weight 0.9 for raw rewards found, expected between 0.333. and 0.5,"):
        matched_temperature(rewards, mask, "raw", 0.9)
    with pytest.raises(UsageError, match="2 groups of equal rewards found, expected one whose lists differ"):
        matched_temperature(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), "raw", 0.5)
    with pytest.raises(UsageError, match="group sizes 1 and 8 found, expected 2 or more"):
        group_size_temperature(1.0, 1, 8)
