"""The field: every method gives valid lists, learns the planted list effect, and is trained like the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from goalrank import baselines
from goalrank.baselines import Lesson, Trained, generators, pier
from goalrank.baselines.generators import OBJECTIVES, Generators, diverse_lists
from goalrank.baselines.harness import fit
from goalrank.dataset import RequestBatch, TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import ModelRefused
from goalrank.policies import top_lists
from goalrank.presets import preset
from goalrank.pretrain import pretrain
from goalrank.reward import RewardModel
from goalrank.reward_training import train as train_reward
from goalrank.schema import LIST_LENGTH
from tests.synthetic import World, make_training_set

torch.set_num_threads(1)

PRESET = replace(preset("tiny"), pretrain_steps=20, reward_steps=160)
SIZES = ModelSizes.from_preset(PRESET)
GAIN = 0.1
"""Share of true reward that knowing the list effect must bring; where the world has none, a few percent are left."""


def lesson_of(folder: Path, requests: int = 3000, steps: int | None = None, **options: object) -> tuple[World, Lesson]:
    world = make_training_set(folder, requests=requests, candidates=12, users=100, items=150, **options)
    data = TrainingSet.load(folder)
    encoder, _ = pretrain(data, PRESET, seed=0)
    lesson = Lesson(data, data.train_indices(), encoder, PRESET, seed=0)
    torch.manual_seed(0)
    evaluator = RewardModel(SIZES)
    train_reward(evaluator, data, lesson.indices, PRESET, 0, steps=steps)
    return world, replace(lesson, evaluator=evaluator, steps=steps)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Lesson]:
    return lesson_of(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(made: tuple[World, Lesson]) -> dict[str, Trained]:
    return {name: baselines.train(name, made[1]) for name in ("g-e", "mg-e-20", "pier")}


@pytest.fixture(scope="module")
def evening(made: tuple[World, Lesson]) -> tuple[np.ndarray, RequestBatch]:
    rows = made[1].training_set.evaluation_indices()
    return rows, made[1].training_set.batch(rows)


def true_reward(world: World, data: TrainingSet, rows: np.ndarray, lists_BL: Tensor) -> float:
    """Expected clicks a list, as the world draws them."""
    candidates = data.examples.column("candidates").to_pylist()
    users = data.examples.column("user_id").to_pylist()
    total = 0.0
    for row, chosen_L in zip(rows.tolist(), lists_BL.tolist(), strict=True):
        items = np.array([candidates[row][index] - 1 for index in chosen_L])
        total += world.click_probability(users[row] - 1, items[None])[0].sum()
    return total / len(rows)


# --------------------------------------------------------------------------------------------------- what each learns


def own_order(name: str, trained: Trained, batch: RequestBatch) -> Tensor:
    """The list that the method's scorer alone would show: its items one by one."""
    with torch.no_grad():
        if name == "pier":
            permuter = trained.policy.permuter
            score_BN = permuter.scorer(permuter.encoder(batch).candidates_BND).squeeze(-1)
        else:
            score_BN = trained.policy.generators.scores(batch)[:, 0]
    return top_lists(score_BN, batch.mask_BN, LIST_LENGTH)


@pytest.mark.parametrize("name", ["g-e", "mg-e-20", "pier"])
def test_the_list_effect_is_learnt_which_no_scorer_of_items_can(name, made, trained, evening) -> None:
    world, lesson = made
    rows, batch = evening
    with torch.no_grad():
        chosen = true_reward(world, lesson.training_set, rows, trained[name].policy.rank(batch, LIST_LENGTH))
    alone = true_reward(world, lesson.training_set, rows, own_order(name, trained[name], batch))
    assert chosen > (1 + GAIN) * alone


def test_more_generators_and_an_evaluator_beat_each_of_them(made, trained, evening) -> None:
    world, lesson = made
    rows, batch = evening
    policy = trained["mg-e-20"].policy
    with torch.no_grad():
        lists_BKL, chosen_BL = policy.propose(batch, LIST_LENGTH), policy.rank(batch, LIST_LENGTH)
    each = [true_reward(world, lesson.training_set, rows, lists_BKL[:, k]) for k in range(20)]
    assert true_reward(world, lesson.training_set, rows, chosen_BL) > max(each)


def test_twenty_generators_propose_many_different_lists(trained, evening) -> None:
    with torch.no_grad():
        lists_BKL = trained["mg-e-20"].policy.propose(evening[1], LIST_LENGTH)
    distinct = [len({tuple(row) for row in lists_KL}) for lists_KL in lists_BKL.tolist()]
    assert np.mean(distinct) > 8


def test_piers_selection_is_better_than_chance(made, trained, evening) -> None:
    """By true reward: the permutations nearest by hash against all that were drawn."""
    world, lesson = made
    rows, batch = evening
    permuter = trained["pier"].policy.permuter
    with torch.no_grad():
        encoded = permuter.encoder(batch)
        drawn = permuter.draw(encoded, 60, LIST_LENGTH, torch.Generator().manual_seed(1))[:, 1:]
        chosen = permuter.select(encoded, drawn, 10)[:, 1:]  # the first is always kept
    means = [
        np.mean([true_reward(world, lesson.training_set, rows, lists[:, g]) for g in range(lists.shape[1])])
        for lists in (chosen, drawn)
    ]
    assert means[0] > 1.03 * means[1]


def test_ocpm_sees_the_whole_permutation_in_both_directions(trained, evening) -> None:
    permuter = trained["pier"].policy.permuter
    lists = torch.arange(LIST_LENGTH).repeat(len(evening[1]), 2, 1)
    lists[:, 1, -1] = LIST_LENGTH  # another item at the end
    with torch.no_grad():
        found = permuter.predict(permuter.encoder(evening[1]), lists)
    assert (found[:, 0, :-1] - found[:, 1, :-1]).abs().amax(dim=(0, 2)).min() > 1e-3


# -------------------------------------------------------------------------------------------------------- valid lists


@pytest.mark.parametrize("name", baselines.NAMES)
def test_lists_are_distinct_real_candidates(name, evening) -> None:
    torch.manual_seed(3)
    policy = baselines.build(name, SIZES).eval()
    batch = RequestBatch(**{field: value[:20].clone() for field, value in vars(evening[1]).items()})
    batch.mask_BN[:5, 4:] = False  # four candidates only
    batch.mask_BN[5] = False  # none at all
    with torch.no_grad():
        lists_BL = policy.rank(batch, LIST_LENGTH)
        torch.testing.assert_close(policy.rank(batch, LIST_LENGTH), lists_BL)
    assert lists_BL.shape == (20, LIST_LENGTH)
    for row, chosen in enumerate(lists_BL.tolist()):
        real = [index for index in chosen if index >= 0]
        wanted = min(LIST_LENGTH, int(batch.mask_BN[row].sum()))
        assert len(real) == len(set(real)) == wanted and chosen[:wanted] == real
        assert all(batch.mask_BN[row, index] for index in real)


def test_diversity_is_bought_with_score_and_only_where_it_is_wanted(evening) -> None:
    batch = evening[1]
    chance = torch.Generator().manual_seed(0)
    score_BKN = torch.randn(len(batch), 1, batch.mask_BN.shape[1], generator=chance).expand(-1, 2, -1)
    lists_BKL = diverse_lists(score_BKN, batch, LIST_LENGTH, torch.tensor([0.0, 1.5]))
    plain_BL, diverse_BL = lists_BKL.unbind(dim=1)
    assert torch.equal(plain_BL, top_lists(score_BKN[:, 0], batch.mask_BN, LIST_LENGTH))
    topics_BLT = [
        batch.item_topics_BNT.gather(1, lists[..., None].expand(-1, -1, batch.item_topics_BNT.shape[2]))
        for lists in (plain_BL, diverse_BL)
    ]
    plain, diverse = (topics.amax(dim=1).sum(dim=1).mean() for topics in topics_BLT)
    assert diverse > plain + 0.5
    assert torch.equal(plain_BL[:, 0], diverse_BL[:, 0])


# --------------------------------------------------------------------------------------------------------- objectives


def test_objectives_agree_with_plain_numpy() -> None:
    score = np.array([[0.3, -1.2, 0.8, 5.0], [0.1, 0.2, 0.3, 0.4]])
    gain = np.array([[1.4, 0.0, 0.2, 9.0], [0.0, 0.0, 0.0, 0.0]])
    known = np.array([[True, True, True, False], [True, True, False, False]])
    click = [
        np.mean([np.log1p(np.exp(-s)) if g > 0 else np.log1p(np.exp(s)) for s, g in zip(sx[k], gx[k], strict=True)])
        for sx, gx, k in zip(score, gain, known, strict=True)
    ]
    value = [np.mean(np.exp(sx[k]) - gx[k] * sx[k]) for sx, gx, k in zip(score, gain, known, strict=True)]
    pairs = [(0, 1), (0, 2), (2, 1)]
    pair = [np.mean([np.log1p(np.exp(score[0][low] - score[0][high])) for high, low in pairs]), 0.0]
    arguments = torch.tensor(score), torch.tensor(gain), torch.tensor(known)
    for ours, theirs in ((generators.click_loss, click), (generators.value_loss, value), (generators.pair_loss, pair)):
        np.testing.assert_allclose(ours(*arguments).numpy(), theirs, rtol=1e-6, err_msg=ours.__name__)


def test_each_generator_weighs_requests_its_own_way_and_always_the_same(made) -> None:
    torch.manual_seed(0)
    parts = Generators(SIZES, 8)
    first, again = parts._weights(np.array([4, 9]), 2), parts._weights(np.array([9, 4]), 2)
    assert torch.equal(first, again.flip(0))
    assert not torch.equal(first[0], first[1]) and len(first[0].unique()) > 1
    assert torch.equal(parts._weights(None, 2), torch.ones(2, 8))
    assert len(OBJECTIVES) == 4 and (parts.seen_KD.sum(dim=1) == SIZES.width // 2).all()


# ------------------------------------------------------------------------------------------------------------ harness


def test_all_learn_as_long_and_keep_their_curves(made, trained) -> None:
    for name, found in trained.items():
        part = found.figures["permuter" if name == "pier" else "generators"]
        assert part["steps"] == PRESET.reward_steps
        curve = [value for _, value in part["curves"]["held_out_loss"]]
        assert part["curves"]["loss"][-1][0] == PRESET.reward_steps
        assert min(curve) < curve[0] and part["held_out"] > 0
    learnt_from = [part["requests"] for found in trained.values() for part in found.figures.values() if "steps" in part]
    assert len(set(learnt_from)) == 1


def test_the_same_seed_gives_the_same_method(made) -> None:
    short = replace(made[1], steps=5)
    first, again = (baselines.train("pier", short).policy.state_dict() for _ in range(2))
    other = baselines.train("pier", replace(short, seed=1)).policy.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_without_an_evaluator_one_is_trained(made) -> None:
    found = baselines.train("mg-e-3", replace(made[1], evaluator=None, steps=5))
    assert found.figures["evaluator"]["steps"] <= 5
    assert found.policy.evaluator.head_bias_HO.abs().sum() > 0


def test_progress_counts_to_the_end(made) -> None:
    told: list[tuple[int, int]] = []
    baselines.train("g-e", replace(made[1], evaluator=None, steps=4), lambda *seen: told.append(seen))
    assert told[-1] == (8, 8) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_loss_that_is_not_finite_is_refused(made) -> None:
    broken = replace(made[1], preset=replace(PRESET, learning_rate=1e30), steps=8)
    with pytest.raises(ModelRefused, match="Permuter loss"):
        fit(pier.Permuter(SIZES), broken)


def test_without_watch_time_pier_earns_nothing_from_it(tmp_path: Path) -> None:
    _, lesson = lesson_of(tmp_path, requests=200, steps=5, watch=False)
    trained = baselines.train("pier", lesson)
    assert float(trained.policy.permuter.watch_known) == 0.0
