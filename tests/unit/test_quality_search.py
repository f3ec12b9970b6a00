"""The long search finds the best list where all lists can be tried, and never ends where a neighbour is better."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from benchmarks.quality.search import long_search
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.presets import preset
from goalrank.reward import RewardModel
from tests.synthetic import make_training_set

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = tmp_path_factory.mktemp("data")
    make_training_set(folder, requests=60, candidates=7)
    return TrainingSet.load(folder)


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """Untrained, with weights large enough for lists to differ."""
    torch.manual_seed(0)
    model = RewardModel(ModelSizes.from_preset(preset("tiny"))).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    return model


def test_it_finds_nearly_the_best_of_all_lists(data: TrainingSet, model: RewardModel) -> None:
    rows = data.train_indices()[:20]
    lists_RL, reward_R = long_search(model, data, rows, 3)
    every = torch.tensor(list(permutations(range(7), 3)))
    with torch.no_grad():
        batch = data.batch(rows)
        all_RG = model(batch, every.expand(len(rows), -1, -1)).numpy()
        own_R = model(batch, torch.from_numpy(lists_RL)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(own_R, reward_R, rtol=1e-5)
    assert all(len(set(row)) == 3 for row in lists_RL.tolist())
    assert np.mean(reward_R > all_RG.max(axis=1) - 1e-5) >= 0.9
    assert (reward_R - all_RG.mean(axis=1)).min() > 0


def test_no_neighbour_is_better(data: TrainingSet, model: RewardModel) -> None:
    rows = data.train_indices()[:10]
    lists_RL, reward_R = long_search(model, data, rows, 4)
    batch = data.batch(rows)
    for row, (found_L, reward) in enumerate(zip(lists_RL.tolist(), reward_R.tolist(), strict=True)):
        neighbours = []
        for place in range(4):
            for item in range(7):
                other = list(found_L)
                if item in other:
                    other[other.index(item)] = other[place]
                other[place] = item
                neighbours.append(other)
        with torch.no_grad():
            lists = torch.tensor(neighbours).expand(len(rows), -1, -1)
            assert model(batch, lists)[row].max() < reward + 1e-5


def test_the_same_seed_finds_the_same_lists(data: TrainingSet, model: RewardModel) -> None:
    rows = data.train_indices()[:8]
    told: list[tuple[int, int]] = []
    first, _ = long_search(model, data, rows, 4, seed=3, progress=lambda *seen: told.append(seen))
    again, _ = long_search(model, data, rows, 4, seed=3)
    np.testing.assert_array_equal(first, again)
    assert told[-1] == (8, 8)
