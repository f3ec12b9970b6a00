"""Each function of goalrank.objective against a plain NumPy restatement, and at the edges."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import xlogy
from scipy.stats import rankdata

from goalrank import objective
from goalrank.errors import UsageError
from goalrank.objective import ObjectiveConfig

NORMALISATIONS = ("standardised", "divided", "centred", "raw", "ranks")


ONES = torch.ones(8, 16, dtype=torch.bool)
LOSSES = get_args(objective.Loss)


def numpy_reference(rewards: list[float], normalisation: str, temperature: float) -> np.ndarray:
    r = np.array(rewards, dtype=np.float64)
    if normalisation == "ranks":
        r = rankdata(r)
    if normalisation in ("standardised", "divided", "ranks"):
        centre = 0.0 if normalisation == "divided" else r.mean()
        r = (r - centre) / r.std(ddof=0) if len(set(rewards)) > 1 else np.zeros_like(r)
    z = r / temperature
    e = np.exp(z - z.max())
    return e / e.sum()


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_reference_restated(normalisation: str, temperature: float) -> None:
    rng = np.random.default_rng(0)
    rewards = rng.normal(2.0, 0.7, (5, 8)).astype(np.float32)
    rewards[1] = [1, 1, 2, 3, 3, 3, 0, 3]  # ties of different sizes
    mask = rng.random((5, 8)) < 0.7
    mask[:, 0] = mask[1] = True
    poisoned = np.where(mask, rewards, np.nan)  # what is outside the group must not matter, whatever it is
    found = objective.group_reference(torch.tensor(poisoned), torch.tensor(mask), normalisation, temperature).numpy()
    for b in range(5):
        expected = np.zeros(8)
        expected[mask[b]] = numpy_reference(rewards[b, mask[b]].tolist(), normalisation, temperature)
        np.testing.assert_allclose(found[b], expected, atol=1e-6)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, 1e30, -1e30])
def test_equal_rewards_are_uniform(normalisation: str, value: float) -> None:
    found = objective.group_reference(torch.full((1, 7), value), torch.ones(1, 7, dtype=torch.bool), normalisation)
    np.testing.assert_allclose(found.numpy(), np.full((1, 7), 1 / 7), atol=1e-7)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_enormous_rewards_stay_ordered(normalisation: str) -> None:
    rewards = torch.tensor([[-1e30, 0.0, 1.0, 1e30]])
    found = objective.group_reference(rewards, torch.ones(1, 4, dtype=torch.bool), normalisation)[0]
    assert found.isfinite().all()
    assert found.sum() == pytest.approx(1.0)
    assert found.argmax() == 3 and found[0] <= found[1] <= found[2]


@pytest.mark.parametrize("rewards", [[1e30, -1e30, 0.0, 1.0, 1.0], [1e30, 1e30, -1e30, -1e30, 0.3]], ids=str)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("loss", ["full_list", "group_renormalised", "reverse_kl"])
def test_losses_under_enormous_rewards_restated(loss: str, normalisation: str, rewards: list[float]) -> None:
    """The last list is outside of the second group."""
    log_prob = np.array([-2.0, -9.0, -0.5, -20.0, -4.0])
    mask = np.array([[True] * 5, [True] * 4 + [False]])
    found = objective.group_relative_loss(
        torch.tensor(np.stack([log_prob, log_prob])),
        torch.tensor([rewards, rewards]),
        torch.tensor(mask),
        torch.tensor([1.0, 0.5]),
        ObjectiveConfig(normalisation=normalisation, loss=loss),  # type: ignore[arg-type]
    )
    expected = []
    for inside in mask:
        p = numpy_reference(np.array(rewards)[inside].tolist(), normalisation, ObjectiveConfig().temperature)
        q = np.exp(log_prob[inside]) / np.exp(log_prob[inside]).sum()
        least = np.finfo(np.float32).tiny  # what the reference excludes costs a bounded amount
        expected.append(
            {
                "full_list": -(p * log_prob[inside]).sum(),
                "group_renormalised": (xlogy(p, p) - p * np.log(q)).sum(),
                "reverse_kl": (q * (np.log(q) - np.log(np.maximum(p, least)))).sum(),
            }[loss]
        )
    assert found.item() == pytest.approx((expected[0] + 0.5 * expected[1]) / 2, rel=1e-5, abs=1e-6)


def test_scale_and_shift_cancel_when_standardised() -> None:
    rewards = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(rewards, dtype=torch.bool)
    plain = objective.group_reference(rewards, mask)
    torch.testing.assert_close(objective.group_reference(rewards * 37.0 - 5.0, mask), plain, atol=1e-5, rtol=1e-4)
    centred = objective.group_reference(rewards, mask, "centred")
    torch.testing.assert_close(objective.group_reference(rewards, mask, "raw"), centred)


@pytest.mark.parametrize("offset", [0.0, -7.5, 1e5])
def test_dividing_without_centring_is_the_same_policy(offset: float) -> None:
    """Softmax cancels what is constant in a group: of the paper's normalisation only the division does anything."""
    rewards = torch.randn(5, 9, generator=torch.Generator().manual_seed(2)) + offset
    mask = torch.rand(5, 9, generator=torch.Generator().manual_seed(3)) < 0.8
    for temperature in (0.25, 1.0):
        divided = objective.group_reference(rewards, mask, "divided", temperature)
        torch.testing.assert_close(divided, objective.group_reference(rewards, mask, "standardised", temperature))
        assert (divided - objective.group_reference(rewards, mask, "raw", temperature)).abs().max() > 0.01


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=12), st.sampled_from(NORMALISATIONS))
def test_reference_is_always_a_distribution(rewards: list[float], normalisation: str) -> None:
    found = objective.group_reference(
        torch.tensor([rewards]), torch.ones(1, len(rewards), dtype=torch.bool), normalisation
    )
    assert found.isfinite().all() and (found >= 0).all()
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    assert found[0, int(np.argmax(rewards))] == pytest.approx(found.max().item(), abs=1e-6)


def test_empty_group_is_all_zero_and_costs_nothing() -> None:
    mask = torch.zeros(1, 3, dtype=torch.bool)
    reference = objective.group_reference(torch.randn(1, 3), mask)
    assert reference.tolist() == [[0.0, 0.0, 0.0]]
    log_prob = torch.tensor([[-1.0, -torch.inf, -2.0]], requires_grad=True)
    loss = objective.full_list_loss(log_prob, reference)
    loss.sum().backward()
    assert loss.item() == 0.0 and log_prob.grad.isfinite().all()


def test_not_a_number_reaches_the_loss() -> None:
    rewards = torch.tensor([[1.0, torch.nan, 2.0]])
    for normalisation in NORMALISATIONS:
        reference = objective.group_reference(rewards, torch.ones(1, 3, dtype=torch.bool), normalisation)
        assert reference.isnan().any()
    infinite = objective.group_reference(torch.tensor([[1.0, torch.inf]]), torch.ones(1, 2, dtype=torch.bool))
    assert infinite.isnan().any()


def test_full_list_loss_restated() -> None:
    rng = np.random.default_rng(2)
    log_prob, weights = -rng.random((4, 6)) * 20, rng.random((4, 6))
    weights[0, 3] = 0.0
    log_prob[0, 3] = -np.inf  # an impossible list outside the group is no NaN
    weights /= weights.sum(axis=1, keepdims=True)
    expected = [-sum(w * p for w, p in zip(weights[b], log_prob[b], strict=True) if w > 0) for b in range(4)]
    found = objective.full_list_loss(torch.tensor(log_prob), torch.tensor(weights))
    np.testing.assert_allclose(found.numpy(), expected)


def test_group_renormalised_loss_restated() -> None:
    rng = np.random.default_rng(3)
    log_prob = torch.tensor(-rng.random((4, 6)) * 20, requires_grad=True)
    mask = torch.tensor(rng.random((4, 6)) < 0.7)
    mask[:, 1] = True
    mask[2] = torch.tensor([False, True, False, False, False, False])
    reference = objective.group_reference(torch.tensor(rng.normal(size=(4, 6))), mask).double()
    found = objective.group_renormalised_loss(log_prob, reference, mask)
    for b in range(4):
        inside = mask[b].numpy()
        p, q = reference[b].numpy()[inside], np.exp(log_prob[b].detach().numpy()[inside])
        q /= q.sum()
        assert found[b].item() == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-6)
    assert found[2].item() == pytest.approx(0.0, abs=1e-9)  # one list alone: nothing to compare
    found.sum().backward()
    assert log_prob.grad.isfinite().all()
    assert (log_prob.grad[~mask] == 0).all()


def test_renormalised_loss_moves_ratios_only() -> None:
    log_prob = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 5, dtype=torch.bool)
    reference = objective.group_reference(torch.randn(2, 5), mask).double()
    torch.testing.assert_close(
        objective.group_renormalised_loss(log_prob, reference, mask),
        objective.group_renormalised_loss(log_prob - 11.0, reference, mask),
    )


def test_duplicates_are_counted_once() -> None:
    lists = torch.tensor([[[1, 2], [2, 1], [1, 2], [1, 2]], [[0, 1], [0, 2], [0, -1], [0, -1]]])
    assert objective.first_occurrence(lists).tolist() == [[True, True, False, False], [True, True, True, False]]


def test_noise_restated_and_blind_to_what_all_lists_share() -> None:
    rng = np.random.default_rng(4)
    heads = rng.normal(size=(4, 3, 6)).astype(np.float32)
    mask = rng.random((3, 6)) < 0.8
    mask[:, :2] = True
    found = objective.group_noise(torch.tensor(heads), torch.tensor(mask))
    for b in range(3):
        inside = heads[:, b, mask[b]].astype(np.float64)
        inside -= inside.mean(axis=1, keepdims=True)
        assert found[b].item() == pytest.approx(math.sqrt(inside.var(axis=0, ddof=1).mean()), rel=1e-5)
    shifted = heads + rng.normal(size=(4, 3, 1)).astype(np.float32)
    torch.testing.assert_close(
        objective.group_noise(torch.tensor(shifted), torch.tensor(mask)), found, rtol=1e-4, atol=1e-6
    )
    assert objective.group_noise(torch.tensor(heads[:1]), torch.tensor(mask)).tolist() == [0.0, 0.0, 0.0]


def test_signal_weights() -> None:
    std = torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    noise = torch.tensor([0.0, 0.0, 1.0, 5.0, 1.0], dtype=torch.float64)
    assert objective.signal_weights(std, noise).tolist() == [0.0, 1.0, 0.0, 0.0, 0.75]


def test_reverse_kl_loss_restated() -> None:
    rng = np.random.default_rng(6)
    log_prob = torch.tensor(-rng.random((5, 6)) * 20, requires_grad=True)
    mask = torch.tensor(rng.random((5, 6)) < 0.7)
    mask[:, 1] = True
    mask[2] = torch.tensor([False, True, False, False, False, False])
    mask[4] = False
    reference = objective.group_reference(torch.tensor(rng.normal(size=(5, 6))), mask).double()
    poisoned = torch.where(mask, log_prob, -torch.inf)
    found = objective.reverse_kl_loss(poisoned, reference, mask)
    for b in range(4):
        inside = mask[b].numpy()
        p, q = reference[b].numpy()[inside], np.exp(log_prob[b].detach().numpy()[inside])
        q /= q.sum()
        assert found[b].item() == pytest.approx(float((q * np.log(q / p)).sum()), abs=1e-9)
    assert found[2].item() == pytest.approx(0.0, abs=1e-9)  # one list alone: nothing to compare
    assert found[4].item() == 0.0
    found.sum().backward()
    assert log_prob.grad.isfinite().all()
    assert (log_prob.grad[~mask] == 0).all()


def test_both_directions_of_kl_are_zero_at_the_reference_alone() -> None:
    reference = objective.group_reference(torch.randn(3, 7, generator=torch.Generator().manual_seed(1)), ONES[:3, :7])
    for loss in (objective.reverse_kl_loss, objective.group_renormalised_loss):
        at_it = loss(reference.log() - 4.0, reference, ONES[:3, :7])
        torch.testing.assert_close(at_it, torch.zeros(3), atol=1e-6, rtol=0.0)
        assert (loss(0.5 * reference.log(), reference, ONES[:3, :7]) > 0.01).all()
    # They differ: giving up a list of the reference is what one direction forbids and the other allows.
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.999, 0.001]])
    assert objective.group_renormalised_loss(q.log(), p, ONES[:1, :2]) > 3 * objective.reverse_kl_loss(
        q.log(), p, ONES[:1, :2]
    )


def test_what_the_reference_excludes_costs_a_bounded_amount() -> None:
    reference = objective.group_reference(torch.tensor([[-1e30, 0.0, 1e30]]), ONES[:1, :3], "raw")
    assert reference.tolist() == [[0.0, 0.0, 1.0]]
    log_prob = torch.zeros(1, 3, requires_grad=True)
    found = objective.reverse_kl_loss(log_prob, reference, ONES[:1, :3])
    floor = math.log(torch.finfo(torch.float32).tiny)
    assert found.item() == pytest.approx(math.log(1 / 3) - 2 / 3 * floor, rel=1e-6)
    found.sum().backward()
    assert log_prob.grad.isfinite().all() and log_prob.grad[0, 2] < 0 < log_prob.grad[0, 0]


def test_supervised_loss_restated() -> None:
    rng = np.random.default_rng(5)
    logits = torch.tensor(rng.normal(size=(3, 5)), requires_grad=True)
    gain = np.array([[1.5, 0.0, 1.0, 0.0, 9.0], [0.0] * 5, [2.0, 0.0, 0.0, 0.0, 0.0]])
    known = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=bool)
    found = objective.supervised_loss(logits, torch.tensor(gain), torch.tensor(known))
    shown = logits.detach().numpy()[0, :3]
    log_prob = shown - np.log(np.exp(shown).sum())
    assert found[0].item() == pytest.approx(-(0.6 * log_prob[0] + 0.4 * log_prob[2]))
    assert found[1].item() == 0.0 and found[2].item() == 0.0
    found.sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1:] == 0).all() and (logits.grad[0, 3:] == 0).all()


def test_an_objective_in_a_line_of_words() -> None:
    line = "loss=rcpo  preference_beta=0.5 ranked_choices=2 supervised_weight=1"
    expected = ObjectiveConfig(loss="rcpo", preference_beta=0.5, ranked_choices=2, supervised_weight=1.0)
    assert objective.objective_of(line) == expected
    assert objective.objective_of(" ") == ObjectiveConfig()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("heat=1", "'heat=1' found in objective 'heat=1', expected words like temperature=0.5"),
        ("temperature", "'temperature' found in objective"),
        ("loss=dpo loss=dpo", "loss found twice in objective"),
        ("temperature=hot", "temperature=hot found in objective 'temperature=hot', expected a number"),
        ("ranked_choices=1.5", "ranked_choices=1.5 found in objective 'ranked_choices=1.5', expected a whole number"),
        ("temperature=nan", "temperature nan found, expected a positive number"),
        ("ranked_choices=2", "ranked_choices found in objective 'ranked_choices=2', where it changes nothing"),
        ("preference_beta=1", "it needs loss=dpo or rcpo"),
        ("preference_reference=initial", "it needs loss=dpo or rcpo"),
        ("loss=dpo temperature=7", "temperature found in objective 'loss=dpo temperature=7', where it changes nothing"),
        ("normalisation=ranks loss=rcpo", "it needs another loss, which has a reference policy"),
        ("matched_by=entropy", "it needs matched_to or matched_group_size"),
        ("signal=strong", "signal 'strong' found, expected one of reliability, none"),
    ],
)
def test_what_is_no_objective_is_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        objective.objective_of(line)
    assert message in str(refused.value)


def test_group_relative_loss_puts_the_arms_together() -> None:
    torch.manual_seed(0)
    log_prob, rewards, mask = -torch.rand(3, 4), torch.randn(3, 4), torch.ones(3, 4, dtype=torch.bool)
    weight = torch.tensor([1.0, 0.0, 0.5])
    initial = -torch.rand(3, 4)
    reference = objective.group_reference(rewards, mask, "ranks", 0.5)
    per_request = {
        "full_list": objective.full_list_loss(log_prob, reference),
        "group_renormalised": objective.group_renormalised_loss(log_prob, reference, mask),
        "reverse_kl": objective.reverse_kl_loss(log_prob, reference, mask),
        "dpo": objective.dpo_loss(log_prob, rewards, mask, 0.7),
        "rcpo": objective.rcpo_loss(log_prob, rewards, mask, 2, 0.7),
    }
    assert set(per_request) == set(LOSSES)
    for loss, expected in per_request.items():
        config = ObjectiveConfig("ranks", 0.5, loss, preference_beta=0.7, ranked_choices=2)
        # Given or not, the initial ranker's opinion counts only where the arm asks for it.
        for beside in (None, initial):
            found = objective.group_relative_loss(log_prob, rewards, mask, weight, config, beside)
            assert found.item() == pytest.approx((expected[0] + 0.5 * expected[2]).item() / 3)
    anchored = ObjectiveConfig(loss="dpo", preference_reference="initial")
    expected = objective.dpo_loss(log_prob, rewards, mask, 0.1, initial)
    found = objective.group_relative_loss(log_prob, rewards, mask, weight, anchored, initial)
    assert found.item() == pytest.approx((expected[0] + 0.5 * expected[2]).item() / 3)
    with pytest.raises(UsageError, match="expected the initial ranker's log-probabilities"):
        objective.group_relative_loss(log_prob, rewards, mask, weight, anchored)
    with pytest.raises(UsageError, match="call with_matched_temperature first"):
        objective.group_relative_loss(log_prob, rewards, mask, weight, ObjectiveConfig(matched_group_size=8))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(
    "rewards",
    [[1e30, -1e30, 0.0, 1.0], [1e30] * 4, [-1e30] * 4, [0.0] * 4, [1e30, 1e30, -1e30, -1e30], [0.1, 0.1, 0.1, 0.3]],
    ids=str,
)
def test_every_arm_has_finite_gradients(loss: str, normalisation: str, rewards: list[float]) -> None:
    """Two groups, one with a list outside of it; impossible lists (decoding.BLOCKED), unlikely and certain ones."""
    log_prob = torch.tensor([[-1e9, -3.0, 0.0, -200.0], [-1.0, -2.0, -3.0, -torch.inf]], requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    config = ObjectiveConfig(normalisation, 0.25, loss)
    found = objective.group_relative_loss(log_prob, torch.tensor([rewards, rewards]), mask, torch.ones(2), config)
    found.backward()
    assert found.isfinite() and log_prob.grad.isfinite().all()
    assert log_prob.grad[1, 3] == 0.0
    # Where there is no likelihood to raise for its own sake, equal rewards teach nothing against a uniform policy.
    if len(set(rewards)) == 1 and loss != "full_list":
        even = torch.full((2, 4), -5.0, requires_grad=True)
        objective.group_relative_loss(even, torch.tensor([rewards] * 2), mask, torch.ones(2), config).backward()
        torch.testing.assert_close(even.grad, torch.zeros(2, 4), atol=1e-7, rtol=0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_not_finite_rewards_reach_every_loss(loss: str) -> None:
    for poison in (torch.nan, torch.inf, -torch.inf):
        rewards = torch.tensor([[1.0, poison, 2.0]])
        found = objective.group_relative_loss(
            -torch.ones(1, 3), rewards, ONES[:1, :3], torch.ones(1), ObjectiveConfig(loss=loss)
        )
        assert found.isnan()


def test_a_config_names_the_run_it_always_named() -> None:
    """Checkpoints and model cards of earlier versions hold these very fields; later ones show only where used."""
    assert ObjectiveConfig().to_dict() == {
        "normalisation": "standardised",
        "temperature": 0.25,
        "loss": "full_list",
        "duplicates": "once",
        "signal": "reliability",
        "supervised_weight": 0.0,
    }
    assert (
        ObjectiveConfig(loss="rcpo", ranked_choices=1).to_dict().items()
        >= {"loss": "rcpo", "ranked_choices": 1}.items()
    )
    different = {
        "matched_to": "ranks",
        "matched_by": "entropy",
        "matched_group_size": 9,
        "preference_reference": "initial",
        "preference_beta": 1.0,
        "ranked_choices": 9,
    }
    found = [ObjectiveConfig(**{name: value}).to_dict() for name, value in different.items()]
    assert len({str(made) for made in [ObjectiveConfig().to_dict(), *found]}) == 1 + len(different)
    assert set(different) == {entry.name for entry in fields(ObjectiveConfig)} - set(ObjectiveConfig().to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"loss": "ppo"},
            "loss 'ppo' found, expected one of full_list, group_renormalised, reverse_kl, dpo, rcpo",
        ),
        (
            {"normalisation": "max"},
            "normalisation 'max' found, expected one of standardised, centred, divided, raw, ranks",
        ),
        ({"preference_reference": "last"}, "preference_reference 'last' found, expected one of none, initial"),
        ({"preference_beta": 0.0}, "preference_beta 0.0 found, expected a positive number"),
        ({"ranked_choices": 0}, "ranked_choices 0 found, expected 1 or more"),
        ({"matched_by": "mean"}, "matched_by 'mean' found, expected one of top_weight, entropy"),
        ({"matched_group_size": 1}, "matched_group_size 1 found, expected 0 (none) or 2 or more"),
        (
            {"loss": "dpo", "matched_to": "raw"},
            "loss 'dpo' has no temperature to match, expected neither matched_to nor a size",
        ),
        (
            {"normalisation": "raw", "matched_group_size": 8},
            "matched_group_size for 'raw' rewards, whose spread is not known, expected matched_to to be one of "
            "standardised, divided, ranks",
        ),
        ({"temperature": 0.0}, "temperature 0.0 found, expected a positive number"),
        ({"temperature": float("nan")}, "temperature nan found, expected a positive number"),
        ({"supervised_weight": -1.0}, "supervised_weight -1.0 found, expected zero or a positive number"),
    ],
)
def test_config_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        ObjectiveConfig(**change)
    assert str(refused.value) == message
