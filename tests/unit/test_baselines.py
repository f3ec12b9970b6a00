"""The field: every method gives valid lists, learns the planted list effect, and is trained like the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from goalrank import baselines
from goalrank.baselines import Lesson, Trained, generators, nar4rec, pier
from goalrank.baselines.capacity import own_budget, parameters, pointwise
from goalrank.baselines.distillation import standardised_gap
from goalrank.baselines.dlcm import attention_rank_loss
from goalrank.baselines.generators import OBJECTIVES, Generators, diverse_lists
from goalrank.baselines.harness import fit
from goalrank.baselines.scorers import initial_ranks, list_values
from goalrank.dataset import RequestBatch, TrainingSet
from goalrank.encoders import ModelSizes, RequestEncoder
from goalrank.errors import ModelRefused
from goalrank.policies import top_lists
from goalrank.presets import PRESETS, preset
from goalrank.pretrain import pretrain
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.reward_training import train as train_reward
from goalrank.schema import LIST_LENGTH
from tests.synthetic import World, make_training_set

torch.set_num_threads(1)

PRESET = replace(preset("tiny"), pretrain_steps=20, reward_steps=160)
SIZES = ModelSizes.from_preset(PRESET)
GAIN = 0.1
"""Share of true reward that knowing the list effect must bring; where the world has none, a few percent are left."""
GAIN_OVER_THE_BEST = {"mg-e-3": 0.01, "mg-e-20": 0.035, "mg-e-100": 0.04}
"""The same over the best of MG-E's generators, which truth alone could name; least of three seeds: 0.015, 0.050, 0.059.
A generator taken at random is 6 to 8% below it."""


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
    return {name: baselines.train(name, made[1]) for name in ("g-e", *GAIN_OVER_THE_BEST, "pier")}


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


@pytest.mark.parametrize("name", ["g-e", "pier"])
def test_the_list_effect_is_learnt_which_no_scorer_of_items_can(name, made, trained, evening) -> None:
    world, lesson = made
    rows, batch = evening
    with torch.no_grad():
        chosen = true_reward(world, lesson.training_set, rows, trained[name].policy.rank(batch, LIST_LENGTH))
    alone = true_reward(world, lesson.training_set, rows, own_order(name, trained[name], batch))
    assert chosen > (1 + GAIN) * alone


@pytest.mark.parametrize(("name", "gain"), GAIN_OVER_THE_BEST.items())
def test_more_generators_and_an_evaluator_beat_each_of_them(name, gain, made, trained, evening) -> None:
    world, lesson = made
    rows, batch = evening
    policy = trained[name].policy
    with torch.no_grad():
        lists_BKL, chosen_BL = policy.propose(batch, LIST_LENGTH), policy.rank(batch, LIST_LENGTH)
    each = [true_reward(world, lesson.training_set, rows, lists_BKL[:, k]) for k in range(lists_BKL.shape[1])]
    assert true_reward(world, lesson.training_set, rows, chosen_BL) > (1 + gain) * max(each)


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
    check_lists(lists_BL, batch, LIST_LENGTH)


@pytest.mark.parametrize("name", baselines.NAMES)
def test_fewer_candidates_than_places(name, evening) -> None:
    torch.manual_seed(3)
    policy, batch = baselines.build(name, SIZES).eval(), narrowed(evening[1], 20, 4)
    with torch.no_grad():
        check_lists(policy.rank(batch, LIST_LENGTH), batch, LIST_LENGTH)


@pytest.mark.parametrize("name", [name for name in baselines.NAMES if not name.endswith("+r")])
def test_padding_changes_no_list(name, evening) -> None:
    torch.manual_seed(3)
    policy, batch = baselines.build(name, SIZES).eval(), narrowed(evening[1], 40, 12)
    batch.mask_BN[:, 8:] = False
    with torch.no_grad():
        padded_BL, whole_BL = (policy.rank(part, LIST_LENGTH) for part in (batch, narrowed(batch, 40, 8)))
    check_lists(padded_BL, batch, LIST_LENGTH)
    if name not in ("g-e", "pier", "nar4rec"):  # their noise is drawn by place, so padding shifts it
        assert torch.equal(padded_BL, whole_BL)


def check_lists(lists_BL: Tensor, batch: RequestBatch, length: int) -> None:
    """Distinct real candidates as far as there are any, then -1."""
    assert lists_BL.shape == (len(batch), length)
    for row, chosen in enumerate(lists_BL.tolist()):
        real = [index for index in chosen if index >= 0]
        wanted = min(length, int(batch.mask_BN[row].sum()))
        assert len(real) == len(set(real)) == wanted and chosen[:wanted] == real
        assert all(batch.mask_BN[row, index] for index in real)


def narrowed(batch: RequestBatch, requests: int, candidates: int) -> RequestBatch:
    """A copy of the first requests, each with its first candidates alone."""
    parts = {field: value[:requests].clone() for field, value in vars(batch).items()}
    return RequestBatch(**{name: part[:, :candidates] if "_BN" in name else part for name, part in parts.items()})


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


# ------------------------------------------------------------------------------------------- what scores depend on


def scores_of(name: str, batch: RequestBatch) -> Tensor:
    torch.manual_seed(3)
    scorer = baselines.build(name, SIZES).eval().scorer
    with torch.no_grad():
        return scorer.scores(batch)


@pytest.mark.parametrize(("name", "list_wise"), [("dnn", False), ("dlcm", True), ("prm", True), ("mir", True)])
def test_who_sees_the_other_candidates(name, list_wise, evening) -> None:
    """Other items stand behind the first three candidates, of the same retriever's scores."""
    batch = narrowed(evening[1], 20, 12)
    before_BN = scores_of(name, batch)[:, :3]
    other = narrowed(evening[1], 40, 12)
    for field in ("item_id_BN", "item_topics_BNT", "item_dense_BNF"):
        getattr(batch, field)[:, 3:] = getattr(other, field)[20:, 3:]
    assert torch.allclose(scores_of(name, batch)[:, :3], before_BN, atol=1e-5) != list_wise


@pytest.mark.parametrize("name", ["dnn", "dlcm", "prm", "mir"])
def test_the_order_in_which_candidates_come_means_nothing(name, evening) -> None:
    batch = narrowed(evening[1], 20, 12)
    turned = narrowed(evening[1], 20, 12)
    for field, value in vars(turned).items():
        if "_BN" in field:
            setattr(turned, field, value.flip(1))
    torch.testing.assert_close(scores_of(name, turned).flip(1), scores_of(name, batch), atol=1e-5, rtol=1e-4)


def test_mir_forgets_what_is_long_ago(evening) -> None:
    torch.manual_seed(3)
    attention = baselines.build("mir", SIZES).eval().scorer.interact
    D = SIZES.width
    set_BND, user_BD, fields = torch.randn(1, 3, D), torch.randn(1, D), torch.randn(1, 3, 2, D)
    list_BHD, list_fields = torch.randn(1, 1, D).expand(-1, 9, -1), torch.randn(1, 1, 2, D).expand(-1, 9, -1, -1)
    age_BH = torch.arange(8, -1, -1)[None]
    with torch.no_grad():
        size_H = attention.affinity(set_BND, list_BHD, fields, list_fields, user_BD, age_BH).abs()[0].sum(0)
    assert (size_H.diff() > 0).all()


def test_the_trivial_orders(made, evening) -> None:
    batch = narrowed(evening[1], 20, 12)
    up, down, sequence = (
        baselines.train(name, made[1]).policy.rank(batch, 12)
        for name in ("retriever-ascending", "retriever-descending", "sequence")
    )
    assert (batch.score_BN.gather(1, down).diff(dim=1) <= 0).all()
    assert torch.equal(up.flip(1), down)
    assert torch.equal(initial_ranks(batch).gather(1, down), torch.arange(12).expand(20, -1))
    with torch.no_grad():
        assert torch.equal(sequence, top_lists(made[1].encoder(batch).match_BN, batch.mask_BN, 12))


# ----------------------------------------------------------------------------------------------------- NAR4Rec's lists


def test_contrastive_decoding_buys_unlikeness_with_probability() -> None:
    chance = torch.Generator().manual_seed(0)
    logits_BLN = torch.randn(50, LIST_LENGTH, 40, generator=chance)
    x_BND, mask_BN = torch.randn(50, 40, 8, generator=chance), torch.ones(50, 40, dtype=torch.bool)
    plain, contrasted = (nar4rec.decode(logits_BLN, x_BND, mask_BN, penalty) for penalty in (0.0, 0.4))
    likeness, chosen = [], []
    for lists_BL in (plain, contrasted):
        unit_BLD = torch.nn.functional.normalize(torch.take_along_dim(x_BND, lists_BL[..., None], dim=1), dim=-1)
        likeness.append(float((unit_BLD @ unit_BLD.transpose(1, 2)).tril(-1).mean()))
        chosen.append(float(nar4rec.at_places(logits_BLN, lists_BL[:, None]).mean()))
    assert likeness[1] < likeness[0] - 0.05 and chosen[1] < chosen[0]
    assert torch.equal(plain[:, 0], logits_BLN[:, 0].argmax(dim=1))
    # Nothing unlikely is brought in, however unlike it is: of 40 candidates none beyond the KEPT left likeliest.
    rank_BGL = nar4rec.at_places(logits_BLN.argsort(dim=2, descending=True).argsort(dim=2), contrasted[:, None])
    assert int(rank_BGL.max()) < nar4rec.KEPT + LIST_LENGTH


def test_nar4rec_proposes_many_different_lists(evening) -> None:
    torch.manual_seed(3)
    policy = baselines.build("nar4rec", SIZES).eval()
    with torch.no_grad():
        lists_BGL = policy.propose(evening[1], LIST_LENGTH)
    assert lists_BGL.shape[1] == len(nar4rec.PENALTIES) * nar4rec.DRAWS == 20
    assert np.mean([len({tuple(row) for row in lists_GL}) for lists_GL in lists_BGL.tolist()]) > 15


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_methods_are_about_as_large_as_the_ranker(size) -> None:
    """Without item embeddings, which all share, and without evaluators."""
    sizes = replace(ModelSizes.from_preset(PRESETS[size]), item_buckets=1)
    budget = parameters(Ranker(sizes))
    for name in ("dnn", "dlcm", "prm", "mir", "nar4rec"):
        policy = baselines.build(name, sizes)
        found = parameters(policy.generator if name == "nar4rec" else policy.scorer)
        assert abs(found / budget - 1) < (0.06 if name == "nar4rec" else 0.02), name
    assert own_budget(sizes) == budget - parameters(RequestEncoder(pointwise(sizes)))


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


def test_attention_rank_loss_agrees_with_plain_numpy() -> None:
    score, gain = np.array([[0.3, -1.2, 0.8, 5.0]]), np.array([[1.4, 0.0, 0.2, 9.0]])
    given = np.exp(score[0, :3]) / np.exp(score[0, :3]).sum()
    wanted = np.array([np.exp(1.4), 0.0, np.exp(0.2)]) / (np.exp(1.4) + np.exp(0.2))
    expected = -(wanted * np.log(given) + (1 - wanted) * np.log(1 - given)).sum()
    known = torch.tensor([[True, True, True, False]])
    found = attention_rank_loss(torch.tensor(score), torch.tensor(gain), known)
    np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-6)


def test_a_request_that_earned_nothing_teaches_attention_rank_nothing() -> None:
    score = torch.zeros(1, 3, requires_grad=True)
    loss = attention_rank_loss(score, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)).sum()
    loss.backward()
    assert loss == 0 and score.grad.abs().sum() == 0


def test_unlikelihood_agrees_with_plain_numpy() -> None:
    logits = np.array([[[0.2, 1.0, -0.5], [0.7, 0.1, 0.0]]])  # two places, three candidates
    lists, gains = np.array([[[1, 2], [0, -1]]]), np.array([[[1.5, 0.0], [0.0, 0.0]]])
    prob = np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True)
    expected = -(1.5 * np.log(prob[0, 1]) + np.log(1 - prob[1, 2]) + np.log(1 - prob[0, 0])) / 3
    found = nar4rec.unlikelihood_loss(torch.tensor(logits), torch.tensor(lists), torch.tensor(gains))
    np.testing.assert_allclose(float(found), expected, rtol=1e-6)


def test_the_gap_to_the_reward_model_is_two_less_twice_the_correlation() -> None:
    rng = np.random.default_rng(0)
    value, reward = rng.normal(size=(3, 8)), 50 + 9 * rng.normal(size=(3, 8))
    mask = np.ones((3, 8), dtype=bool)
    mask[1, 5:] = False
    expected = [2 - 2 * np.corrcoef(value[b][mask[b]], reward[b][mask[b]])[0, 1] for b in range(3)]
    found = standardised_gap(torch.tensor(value), torch.tensor(reward), torch.tensor(mask))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_a_list_is_worth_its_discounted_scores() -> None:
    found = list_values(torch.tensor([[3.0, 5.0, 7.0]]), torch.tensor([[[2, 0, -1]]]))
    np.testing.assert_allclose(found.numpy(), [[7.0 + 3.0 / np.log2(3)]], rtol=1e-6)


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


@pytest.mark.parametrize("name", ["dnn", "dlcm", "pier", "mir+r", "nar4rec+r"])
def test_the_same_seed_gives_the_same_method(name, made) -> None:
    short = replace(made[1], steps=3)
    first, again = (baselines.train(name, short).policy.state_dict() for _ in range(2))
    other = baselines.train(name, replace(short, seed=1)).policy.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("name", "part"), [("mg-e-3", "generators"), ("prm+r", "scorer")])
@pytest.mark.parametrize("from_evaluator", [False, True])
def test_who_has_an_evaluator_may_begin_with_its_encoder(name, part, from_evaluator, made) -> None:
    still = replace(made[1], preset=replace(PRESET, learning_rate=0.0), steps=1, from_evaluator=from_evaluator)
    trained = getattr(baselines.train(name, still).policy, part).encoder.state_dict()
    source = (made[1].evaluator if from_evaluator else made[1]).encoder.state_dict()
    fitting = {at for at in trained if trained[at].shape == source[at].shape}
    assert "candidate_hidden.weight" in fitting
    same = {at for at in fitting if torch.equal(trained[at], source[at])}
    assert same == fitting if from_evaluator else "candidate_hidden.weight" not in same


def test_without_an_evaluator_one_is_trained(made) -> None:
    found = baselines.train("mg-e-3", replace(made[1], evaluator=None, steps=5))
    assert found.figures["evaluator"]["steps"] <= 5
    assert found.policy.evaluator.head_bias_HO.abs().sum() > 0


@pytest.mark.parametrize("name", ["g-e", "prm+r", "nar4rec+r"])
def test_progress_counts_to_the_end(name, made) -> None:
    told: list[tuple[int, int]] = []
    baselines.train(name, replace(made[1], evaluator=None, steps=4), lambda *seen: told.append(seen))
    assert told[-1] == (8, 8) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_teacher_is_neither_changed_nor_kept(made) -> None:
    guide = made[1].evaluator
    before = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    found = baselines.train("prm+r", replace(made[1], steps=3))
    assert found.policy.state_dict().keys() == baselines.build("prm", SIZES).state_dict().keys()
    assert found.policy.scorer.teacher is None and found.figures["evaluator"] == {"given": True}
    assert all(torch.equal(before[name], tensor) for name, tensor in guide.state_dict().items())
    assert len(found.figures["student"]["curves"]["held_out_loss"]) == 3


def test_a_loss_that_is_not_finite_is_refused(made) -> None:
    broken = replace(made[1], preset=replace(PRESET, learning_rate=1e30), steps=8)
    with pytest.raises(ModelRefused, match="Permuter loss"):
        fit(pier.Permuter(SIZES), broken)


def test_without_watch_time_pier_earns_nothing_from_it(tmp_path: Path) -> None:
    _, lesson = lesson_of(tmp_path, requests=200, steps=5, watch=False)
    trained = baselines.train("pier", lesson)
    assert float(trained.policy.permuter.watch_known) == 0.0
