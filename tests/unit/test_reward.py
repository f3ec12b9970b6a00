"""The reward model scores lists as lists, learns a planted list effect, and says how sure it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from goalrank import reward_training
from goalrank.dataset import Feedback, RequestBatch, TrainingSet
from goalrank.encoders import Encoded, ModelSizes
from goalrank.errors import DataRefused, ModelRefused
from goalrank.presets import preset
from goalrank.reward import RewardModel, gather_items, reward_noise
from goalrank.reward_training import CURVE_POINTS, label_lists, logged_reward, measure, split, train
from goalrank.schema import LIST_LENGTH, RewardWeights
from tests.synthetic import World, make_training_set

TINY = preset("tiny")
SIZES = ModelSizes.from_preset(TINY)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, TrainingSet]:
    path: Path = tmp_path_factory.mktemp("training_set")
    world = make_training_set(path, requests=3000, candidates=12, users=100, items=150)
    return world, TrainingSet.load(path)


@pytest.fixture(scope="module")
def trained(made: tuple[World, TrainingSet]) -> tuple[RewardModel, dict]:
    torch.manual_seed(0)
    model = RewardModel(SIZES)
    longer = replace(TINY, reward_steps=300)
    return model, train(model, made[1], made[1].train_indices(), longer, seed=0)


@pytest.fixture
def fresh() -> RewardModel:
    torch.manual_seed(0)
    return RewardModel(SIZES).eval()


@pytest.fixture
def batch(made: tuple[World, TrainingSet]) -> RequestBatch:
    return made[1].batch(range(8))


def random_lists(requests: int, groups: int, candidates: int = 12, length: int = LIST_LENGTH) -> Tensor:
    chance = torch.Generator().manual_seed(5)
    return torch.rand(requests, groups, candidates, generator=chance).argsort(dim=-1)[..., :length]


def test_shapes_and_what_a_reward_is_made_of(fresh: RewardModel, batch: RequestBatch) -> None:
    lists = random_lists(8, 5)
    encoded = fresh.encode(batch)
    click, like, watch = fresh.predict(encoded, lists)
    assert click.shape == like.shape == watch.shape == (SIZES.reward_heads, 8, 5, LIST_LENGTH)
    scores = fresh.score_lists(encoded, lists)
    assert scores.shape == (SIZES.reward_heads, 8, 5)
    assert not watch.any()  # nothing was ever learnt about watch time
    fresh.watch_known.fill_(1.0)
    weights, (click, like, watch) = RewardWeights(), fresh.predict(encoded, lists)
    value = (weights.click * click + weights.like * like + weights.watch_minute * watch).sum(dim=-1)
    torch.testing.assert_close(fresh.score_lists(encoded, lists), value)
    torch.testing.assert_close(fresh.reward(encoded, lists), value.mean(dim=0))
    torch.testing.assert_close(fresh(batch, lists), value.mean(dim=0))


def test_a_list_scores_the_same_in_any_company(fresh: RewardModel, batch: RequestBatch) -> None:
    lists, encoded = random_lists(8, 5), fresh.encode(batch)
    together = fresh.score_lists(encoded, lists)
    for group in range(5):
        alone = fresh.score_lists(encoded, lists[:, group : group + 1])
        torch.testing.assert_close(alone[..., 0], together[..., group], rtol=1e-4, atol=1e-5)
    single = fresh.score_lists(encoded.rows(torch.tensor([3])), lists[3:4])
    torch.testing.assert_close(single[:, 0], together[:, 3], rtol=1e-4, atol=1e-5)


def test_padding_of_lists_and_candidates_does_not_matter(fresh: RewardModel, batch: RequestBatch) -> None:
    lists = random_lists(8, 3, length=4)
    padded = torch.cat([lists, torch.full((8, 3, 2), -1)], dim=-1)
    encoded = fresh.encode(batch)
    expected = fresh.score_lists(encoded, lists)
    torch.testing.assert_close(fresh.score_lists(encoded, padded), expected, rtol=1e-4, atol=1e-5)
    names = ("item_id_BN", "item_dense_BNF", "item_topics_BNT", "score_BN", "mask_BN")
    grown = {name: torch.cat([value := getattr(batch, name), torch.zeros_like(value[:, :5])], dim=1) for name in names}
    wider = fresh.encode(replace(batch, **grown))
    torch.testing.assert_close(fresh.score_lists(wider, padded), expected, rtol=1e-4, atol=1e-5)
    nothing = fresh.score_lists(encoded, torch.full((8, 1, 3), -1))
    assert torch.equal(nothing, torch.zeros_like(nothing))


def test_order_and_neighbours_count(fresh: RewardModel, batch: RequestBatch) -> None:
    lists, encoded = random_lists(8, 3), fresh.encode(batch)
    assert not torch.allclose(fresh.reward(encoded, lists), fresh.reward(encoded, lists.flip(-1)))


def test_gather_items() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    lists = torch.tensor([[[2, -1]], [[0, 1]]])
    assert gather_items(values, lists).tolist() == [[[[4, 5], [0, 0]]], [[[6, 7], [8, 9]]]]


def test_noise_is_the_heads_disagreement_on_gaps() -> None:
    chance = np.random.default_rng(0)
    rewards = chance.normal(size=(4, 3, 8))
    gaps = rewards - rewards.mean(axis=2, keepdims=True)
    expected = np.sqrt(gaps.var(axis=0, ddof=1).mean(axis=1))
    np.testing.assert_allclose(reward_noise(torch.from_numpy(rewards)), expected)
    shifted = torch.from_numpy(rewards + chance.normal(size=(4, 3, 1)))  # a head's own level cancels
    np.testing.assert_allclose(reward_noise(shifted), expected)
    assert reward_noise(torch.rand(1, 3, 8)).tolist() == [0, 0, 0]


def test_it_beats_a_constant_and_any_pointwise_model(made, trained) -> None:
    """On the evaluation day, against the world's own item-wise click chances: the best a pointwise model can do."""
    world, training_set = made
    model, history = trained
    rows = training_set.evaluation_indices()
    batch, feedback = training_set.batch(rows), training_set.feedback(rows)
    with torch.no_grad():
        click = model.predict(model.encode(batch), feedback.slate_BL[:, None])[0].mean(dim=0)[:, 0].numpy()
    clicked = feedback.click_BL.numpy()
    users = training_set.examples.column("user_id").to_numpy()[rows] - 1
    shown = [row["slate"] for row in training_set.examples.take(rows).to_pylist()]
    alone = np.stack(
        [world.click_probability(u, np.array([s]) - 1, list_effect=False)[0] for u, s in zip(users, shown, strict=True)]
    )
    # A pointwise model knows how often each position is spoiled on average, not which one is.
    before = training_set.feedback(training_set.train_indices()).click_BL.mean(dim=0).numpy()
    alone = alone * before / alone.mean(axis=0)
    constant = np.broadcast_to(before, clicked.shape)

    def log_loss(chance: np.ndarray) -> float:
        chance = np.clip(chance, 1e-4, 1 - 1e-4)
        return float(-(clicked * np.log(chance) + (1 - clicked) * np.log(1 - chance)).mean())

    assert log_loss(click) < log_loss(constant) - 0.05
    assert log_loss(click) < log_loss(alone)  # although that one knows every taste and quality exactly
    assert history["auc"] > 0.7 and history["calibration_error"] < 0.06 and history["rank_correlation"] > 0.2


def test_it_knows_that_repetition_spoils(made, trained) -> None:
    """The same items, once with equal topics side by side, once apart: what no pointwise model can tell."""
    world, training_set = made
    rows = training_set.evaluation_indices()[:200]
    topics_BN = world.topic_I[training_set.batch(rows).item_id_BN.numpy() - 1]
    together, apart = [], []
    kept = []
    for row, topics in enumerate(topics_BN):
        groups = [np.flatnonzero(topics == topic) for topic in np.unique(topics)]
        pairs = [group[:2] for group in groups if len(group) >= 2][:2]
        if len(pairs) == 2:
            (a, b), (c, d) = pairs
            together.append([a, b, c, d])
            apart.append([a, c, b, d])
            kept.append(row)
    lists = torch.tensor(np.stack([together, apart], axis=1))
    with torch.no_grad():
        rewards = trained[0](training_set.batch(rows[kept]), lists)
    assert (rewards[:, 1] > rewards[:, 0]).float().mean() > 0.9


def test_training_is_deterministic(made) -> None:
    short = replace(TINY, reward_steps=6)
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = RewardModel(SIZES)
        train(model, made[1], made[1].guide_indices(), short, seed)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["head_weight_HDO"], states[2]["head_weight_HDO"])


def test_training_never_ends_before_its_rate_has_fallen(made, monkeypatch) -> None:
    """A held-out loss that wanders while the rate is high may not end it; the best measured is what is kept."""
    losses = iter([0.5, *[0.6] * (CURVE_POINTS - 2), 0.4])
    monkeypatch.setattr(reward_training, "_held_out_loss", lambda *_: next(losses))
    steps = 3 * CURVE_POINTS
    figures = train(RewardModel(SIZES), made[1], made[1].train_indices()[:200], TINY, seed=0, steps=steps)
    assert figures["steps"] == figures["best_step"] == steps


def test_infinite_losses_are_refused(made) -> None:
    model = RewardModel(SIZES)
    with torch.no_grad():
        model.parts.weight[0, 0] = float("nan")
    with pytest.raises(ModelRefused, match="reward loss nan"):
        train(model, made[1], made[1].guide_indices(), TINY, seed=0)
    with pytest.raises(DataRefused, match="1 requests found"):
        split(np.array([4]), seed=0)


def test_held_out_requests_are_not_learnt_from() -> None:
    learning, held_out = split(np.arange(100), seed=3)
    assert len(held_out) == 10 and not np.isin(held_out, learning).any() and len(learning) == 90


def self_selected(requests: int = 40) -> tuple[Encoded, Feedback]:
    """11 candidates (one padded in every other request), 4 taken."""
    chance = torch.Generator().manual_seed(0)
    mask = torch.ones(requests, 11, dtype=torch.bool)
    mask[::2, 10] = False
    empty = torch.zeros(requests, 11, 0)
    match = torch.randn(requests, 11, generator=chance) * mask
    slate = torch.rand(requests, 10, generator=chance).argsort(dim=1)[:, :4]
    clicks = (torch.rand(requests, 4, generator=chance) < 0.5).float()
    unknown = torch.full((requests, 4), float("nan"))
    shown = torch.ones(requests, 4, dtype=torch.bool)
    feedback = Feedback(slate, clicks, clicks * 0, clicks * 60, unknown, shown, torch.ones(requests, dtype=torch.bool))
    return Encoded(empty, empty[:, 0], mask, empty, match), feedback


def test_self_selected_requests_teach_from_all_candidates() -> None:
    encoded, feedback = self_selected()
    labelled = label_lists(encoded, feedback, torch.Generator().manual_seed(1))
    assert labelled.lists.shape == (40, 3, 4)
    for row, lists in enumerate(labelled.lists):
        flat = lists.flatten()
        assert sorted(flat[flat >= 0].tolist()) == encoded.mask_BN[row].nonzero()[:, 0].tolist()  # each exactly once
        clicks = dict(zip(feedback.slate_BL[row].tolist(), feedback.click_BL[row].tolist(), strict=True))
        for item, click, minutes in zip(
            flat.tolist(), labelled.click[row].flatten(), labelled.minutes[row].flatten(), strict=True
        ):
            if item >= 0:
                assert click == clicks.get(item, 0.0)
                assert minutes == click if item in clicks else minutes.isnan()
        padding = (lists < 0).int()
        assert (padding.diff(dim=1) >= 0).all()  # at the end of a list only
    earned = logged_reward(labelled, RewardWeights()).sum(dim=1)
    torch.testing.assert_close(earned, 1.2 * feedback.click_BL.sum(dim=1))


def test_lists_of_logged_requests_are_the_logged_ones() -> None:
    encoded, feedback = self_selected()
    feedback.self_selected_B[1:] = False
    labelled = label_lists(encoded, feedback, torch.Generator().manual_seed(1))
    assert torch.equal(labelled.lists[1:, 0], feedback.slate_BL[1:]) and (labelled.lists[1:, 1:] == -1).all()
    assert torch.equal(labelled.click[1:, 0], feedback.click_BL[1:])
    feedback.self_selected_B[:] = False
    assert label_lists(encoded, feedback, torch.Generator()).lists.shape == (40, 1, 4)


def test_training_on_self_selected_requests(tmp_path: Path) -> None:
    make_training_set(tmp_path, requests=400, candidates=15, self_selected=True, watch=False, list_effect=False)
    training_set = TrainingSet.load(tmp_path)
    torch.manual_seed(0)
    model = RewardModel(SIZES)
    history = train(model, training_set, training_set.train_indices(), TINY, seed=0)
    assert model.watch_known == 0 and history["reward_logged"] < 1.5
    assert measure(model, training_set, training_set.evaluation_indices(), seed=0)["auc"] > 0.7
