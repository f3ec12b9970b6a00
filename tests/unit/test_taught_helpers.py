"""Light rankers as helpers: they learn from feedback, propose a list each, and the groups stay in one piece."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from goalrank.baselines.generators import Generators
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import ModelRefused
from goalrank.groups import Groups, build_groups, read_groups, write_groups
from goalrank.presets import preset
from goalrank.reward import RewardModel
from goalrank.taught_helpers import taught_generators, with_lists_of
from goalrank.train import train_ranker
from tests.synthetic import make_training_set

TINY = replace(preset("tiny"), learning_rate=1e-2)
COUNT = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder: Path = tmp_path_factory.mktemp("set")
    make_training_set(folder, requests=300, candidates=12)
    return TrainingSet.load(folder)


@pytest.fixture(scope="module")
def guide() -> RewardModel:
    torch.manual_seed(0)
    return RewardModel(ModelSizes.from_preset(TINY)).eval()


@pytest.fixture(scope="module")
def groups(data: TrainingSet, guide: RewardModel) -> Groups:
    return build_groups(data, data.guide_indices(), guide, 4, seed=0)


@pytest.fixture(scope="module")
def generators(data: TrainingSet, guide: RewardModel) -> Generators:
    return taught_generators(data, data.guide_indices(), guide, TINY, 0, COUNT, 30)


def shown_clicks(data: TrainingSet, generators: Generators) -> tuple[float, float]:
    """Mean z-score, by the generators, of shown items that were clicked and of those that were not."""
    indices = data.guide_indices()
    feedback = data.feedback(indices)
    with torch.inference_mode():
        scores_BN = generators.eval().scores(data.batch(indices)).mean(dim=1)
    scores_BL = scores_BN.gather(1, feedback.slate_BL.clamp(min=0))
    clicked_BL = feedback.mask_BL & (feedback.click_BL > 0)
    return float(scores_BL[clicked_BL].mean()), float(scores_BL[feedback.mask_BL & ~clicked_BL].mean())


def test_they_learn_from_the_logged_feedback(data: TrainingSet, generators: Generators) -> None:
    clicked, passed_over = shown_clicks(data, generators)
    torch.manual_seed(0)
    untrained = shown_clicks(data, Generators(ModelSizes.from_preset(TINY), COUNT))
    assert clicked - passed_over > 3 * abs(untrained[0] - untrained[1]) and clicked > passed_over


def test_the_same_seed_gives_the_same_generators(data: TrainingSet, guide: RewardModel, generators: Generators) -> None:
    torch.manual_seed(99)  # what was drawn before does not matter
    again = taught_generators(data, data.guide_indices(), guide, TINY, 0, COUNT, 30)
    for name, weight in generators.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_every_group_has_one_more_list_of_each(
    data: TrainingSet, guide: RewardModel, groups: Groups, generators: Generators, tmp_path: Path
) -> None:
    grown = with_lists_of(generators, groups, data, guide)
    assert grown.lists_RGL.shape == (len(groups), 4 + COUNT, groups.lists_RGL.shape[2])
    assert np.array_equal(grown.lists_RGL[:, :4], groups.lists_RGL)
    assert grown.helpers == (*groups.helpers, "generator:1", "generator:2", "generator:3")
    with torch.inference_mode():
        batch = data.batch(groups.request_R)
        expected_BKL = generators.lists(batch, groups.lists_RGL.shape[2])
        rewards_HBK = guide.score_lists(guide.encode(batch), expected_BKL)
    assert np.array_equal(grown.lists_RGL[:, 4:], expected_BKL.numpy())
    np.testing.assert_allclose(grown.rewards_RG[:, 4:], rewards_HBK.mean(dim=0).numpy(), rtol=1e-4, atol=1e-5)
    write_groups(str(tmp_path / "groups"), grown)
    assert read_groups(str(tmp_path / "groups")).helpers == grown.helpers


def test_a_ranker_learns_from_them(
    data: TrainingSet, guide: RewardModel, groups: Groups, generators: Generators
) -> None:
    grown = with_lists_of(generators, groups, data, guide)
    short = replace(TINY, ranker_steps=12, batch_requests=32)
    trained = train_ranker(data, grown, guide, short, 0)
    assert trained.curves["loss"][-1][1] < trained.curves["loss"][0][1]


def test_a_reward_that_is_not_finite_is_refused(
    data: TrainingSet, guide: RewardModel, groups: Groups, generators: Generators
) -> None:
    class Broken(RewardModel):
        def score_lists(self, encoded, lists_BGL):  # type: ignore[no-untyped-def]
            return super().score_lists(encoded, lists_BGL) * float("nan")

    broken = Broken(guide.sizes)
    broken.load_state_dict(guide.state_dict())
    with pytest.raises(ModelRefused, match="rewards for request .* are not finite"):
        with_lists_of(generators, groups, data, broken)


def test_a_part_without_a_batch_stays_empty(data: TrainingSet, guide: RewardModel, generators: Generators) -> None:
    empty = build_groups(data, data.guide_indices(), guide, 4, seed=0, part=0, parts=4)
    assert len(empty) == 0  # fewer batches than parts
    assert len(with_lists_of(generators, empty, data, guide)) == 0
