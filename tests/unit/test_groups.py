"""Groups: built for the right requests, scored as the reward model scores, written and read without loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import DataRefused, ModelRefused
from goalrank.groups import Groups, build_groups, group_statistics, read_groups, write_groups
from goalrank.policies import helper_columns
from goalrank.presets import preset
from goalrank.reward import RewardModel
from tests.synthetic import make_training_set

HELPERS = 9


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = tmp_path_factory.mktemp("training_set")
    make_training_set(folder, requests=120, candidates=12)
    return TrainingSet.load(folder)


@pytest.fixture(scope="module")
def reward_model() -> RewardModel:
    torch.manual_seed(0)
    return RewardModel(ModelSizes.from_preset(preset("tiny"))).eval()


@pytest.fixture(scope="module")
def groups(training_set: TrainingSet, reward_model: RewardModel) -> Groups:
    return build_groups(training_set, training_set.guide_indices(), reward_model, HELPERS, seed=1, batch_requests=32)


def test_one_group_a_guide_request(training_set: TrainingSet, reward_model: RewardModel, groups: Groups) -> None:
    indices = training_set.guide_indices()
    assert groups.request_R.tolist() == indices.tolist()
    assert not set(groups.request_R.tolist()) & set(training_set.judge_indices().tolist())
    assert not set(groups.request_R.tolist()) & set(training_set.evaluation_indices().tolist())
    assert groups.lists_RGL.shape == (len(indices), HELPERS, 6) and groups.lists_RGL.dtype == np.int16
    assert groups.helpers == tuple(policy.name for policy in helper_columns(HELPERS))
    shown = training_set.feedback(indices).slate_BL.numpy()
    np.testing.assert_array_equal(groups.lists_RGL[:, groups.helpers.index("shown")], shown)
    with torch.no_grad():
        batch = training_set.batch(indices)
        expected = reward_model.reward(reward_model.encode(batch), torch.from_numpy(groups.lists_RGL).long())
    np.testing.assert_allclose(groups.rewards_RG, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(groups.head_rewards_RHG.mean(axis=1), groups.rewards_RG, atol=1e-6)


def test_neural_helpers_are_of_the_mix_that_asks_for_them(training_set: TrainingSet, reward_model: RewardModel) -> None:
    indices = training_set.guide_indices()[:20]
    mix = ["next_item", "reward_alone", "reward_alone_sampled"]
    groups = build_groups(training_set, indices, reward_model, 4, seed=1, mix=mix)
    assert groups.helpers == (*mix, mix[-1])
    with torch.no_grad():
        encoded = reward_model.encode(training_set.batch(indices))
        alone_BN = reward_model.reward(encoded, torch.arange(12).expand(20, 12)[..., None])
    for helper, score_BN in ((0, encoded.match_BN), (1, alone_BN)):
        expected = score_BN.argsort(dim=1, descending=True, stable=True)[:, :6].numpy()
        np.testing.assert_array_equal(groups.lists_RGL[:, helper], expected)


def test_same_seed_same_groups(training_set: TrainingSet, reward_model: RewardModel, groups: Groups) -> None:
    indices = training_set.guide_indices()
    again = build_groups(training_set, indices, reward_model, HELPERS, seed=1, batch_requests=32)
    other = build_groups(training_set, indices, reward_model, HELPERS, seed=2, batch_requests=32)
    np.testing.assert_array_equal(again.lists_RGL, groups.lists_RGL)
    assert not np.array_equal(other.lists_RGL, groups.lists_RGL)


def test_shards_bring_back_what_was_written(groups: Groups, tmp_path: Path) -> None:
    card = write_groups(tmp_path, groups, shard_requests=20)
    assert card["counts"] == {"requests": len(groups), "lists": HELPERS, "shards": -(-len(groups) // 20)}
    assert len(list(tmp_path.glob("shard-*.safetensors"))) == card["counts"]["shards"]
    assert card == json.loads((tmp_path / "groups.json").read_text())
    found = read_groups(tmp_path)
    assert found.helpers == groups.helpers
    for name in ("request_R", "lists_RGL", "rewards_RG", "head_rewards_RHG"):
        np.testing.assert_array_equal(getattr(found, name), getattr(groups, name))
        assert getattr(found, name).dtype == getattr(groups, name).dtype


def test_damaged_shards_are_refused(groups: Groups, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="has no groups.json; run generate_groups again"):
        read_groups(tmp_path)
    write_groups(tmp_path, groups, shard_requests=20)
    shard = tmp_path / "shard-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataRefused, match="shard-00001.safetensors is not what groups.json recorded"):
        read_groups(tmp_path)
    shard.unlink()
    with pytest.raises(DataRefused, match="lacks shard-00001.safetensors"):
        read_groups(tmp_path)


def hand_made(lists: list, rewards: list, heads: list) -> Groups:
    lists_RGL = np.array([lists], dtype=np.int16)
    names = tuple(f"helper {g}" for g in range(lists_RGL.shape[1]))
    return Groups(
        np.array([0], dtype=np.int32),
        lists_RGL,
        np.array([rewards], dtype=np.float32),
        np.array([heads], dtype=np.float32),
        names,
    )


def test_statistics_by_hand() -> None:
    groups = hand_made(
        [[0, 1], [1, 0], [0, 2], [0, 1]], [1.0, 2.0, 6.0, 1.0], [[1.0, 2.0, 5.0, 1.0], [1.0, 2.0, 7.0, 1.0]]
    )
    found = group_statistics(groups)
    assert found["duplicates"] == 0.25
    assert found["reward_std"] == pytest.approx(np.std([1.0, 2.0, 6.0]))
    # Heads centred over the three distinct lists: (-5/3, -2/3, 7/3) and (-7/3, -4/3, 11/3).
    variances = [np.var([-5 / 3, -7 / 3], ddof=1), np.var([-2 / 3, -4 / 3], ddof=1), np.var([7 / 3, 11 / 3], ddof=1)]
    assert found["reward_noise"] == pytest.approx(np.sqrt(np.mean(variances)))
    assert found["without_signal"] == 0.0
    # Pairs: 01-10 0, 01-02 1/2, 01-01 0, 10-02 1/2, 10-01 0, 02-01 1/2 of the items; places 1, 1/2, 0, 1, 1, 1/2.
    assert found["distinct_items"] == pytest.approx(1.5 / 6)
    assert found["distinct_positions"] == pytest.approx(4.0 / 6)
    assert found["helper_best_share"] == {"helper 0": 0.0, "helper 1": 0.0, "helper 2": 1.0, "helper 3": 0.0}
    silent = group_statistics(hand_made([[0, 1], [1, 0]], [1.0, 1.1], [[0.0, 2.0], [2.0, 0.2]]))
    assert silent["without_signal"] == 1.0


def test_no_request_and_no_finite_reward_are_refused(training_set: TrainingSet) -> None:
    model = RewardModel(ModelSizes.from_preset(preset("tiny"))).eval()
    with pytest.raises(DataRefused, match="no training request offers a choice"):
        build_groups(training_set, np.array([], dtype=np.int64), model, HELPERS, seed=0)
    with torch.no_grad():
        model.head_bias_HO.fill_(float("nan"))
    with pytest.raises(ModelRefused, match="are not finite; train the reward model again"):
        build_groups(training_set, training_set.guide_indices(), model, HELPERS, seed=0)
