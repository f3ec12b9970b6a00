"""generate_groups run as a step: the artifact, the outcome, the refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.generate_groups.main import run
from goalrank.checkpoint import save_model
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import CheckpointDamaged, DataRefused, ModelRefused
from goalrank.groups import read_groups
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from tests.synthetic import make_training_set


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_training_set(folder / "training_set", requests=90, candidates=12)
    torch.manual_seed(0)
    model = RewardModel(ModelSizes.from_preset(preset("tiny")))
    save_model(folder / "reward", model, "reward", model.sizes.to_dict(), {}, {})
    return folder


def generate(inputs: Path, out: Path, seed: int = 3) -> dict:
    run(
        training_set=str(inputs / "training_set"),
        reward_model=str(inputs / "reward"),
        groups=str(out / "groups"),
        preset="tiny",
        seed=seed,
        run_uri=str(out / "run"),
    )
    return json.loads((out / "run/outcomes/generate_groups.json").read_text())


def test_groups_of_the_guide_requests(inputs: Path, tmp_path: Path) -> None:
    outcome = generate(inputs, tmp_path)
    groups = read_groups(tmp_path / "groups")
    training_set = TrainingSet.load(inputs / "training_set")
    assert groups.request_R.tolist() == training_set.guide_indices().tolist()
    assert groups.lists_RGL.shape[1] == preset("tiny").helper_lists
    assert outcome["kind"] == "done"
    assert outcome["figures"]["requests"] == len(groups)
    card = json.loads((tmp_path / "groups/groups.json").read_text())
    assert outcome["figures"]["reward_std"] == card["statistics"]["reward_std"] > 0
    events = [json.loads(line)["event"] for line in (tmp_path / "run/progress.jsonl").read_text().splitlines()]
    assert events[0] == "start" and "progress" in events and events[-1] == "end"


def test_same_input_same_shards(inputs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        generate(inputs, tmp_path / name)
    one, two = (read_groups(tmp_path / name / "groups") for name in ("one", "two"))
    np.testing.assert_array_equal(one.lists_RGL, two.lists_RGL)
    np.testing.assert_array_equal(one.rewards_RG, two.rewards_RG)


def test_a_damaged_reward_model_is_refused(inputs: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "training_set").symlink_to(inputs / "training_set")
    (broken / "reward").mkdir()
    for name in ("model.json", "weights.safetensors"):
        content = bytearray((inputs / "reward" / name).read_bytes())
        if name == "weights.safetensors":
            content[len(content) // 2] ^= 1
        (broken / "reward" / name).write_bytes(content)
    with pytest.raises(CheckpointDamaged):
        generate(broken, tmp_path)
    outcome = json.loads((tmp_path / "run/outcomes/generate_groups.json").read_text())
    assert (outcome["kind"], outcome["exit_code"]) == ("model_refused", 4)
    assert not (tmp_path / "groups/groups.json").exists()


def test_a_ranker_in_place_of_a_reward_model_is_refused(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "training_set").symlink_to(inputs / "training_set")
    model = Ranker(ModelSizes.from_preset(preset("tiny")))
    save_model(tmp_path / "reward", model, "ranker", model.sizes.to_dict(), {}, {})
    with pytest.raises(ModelRefused, match="holds a Ranker, expected a reward model"):
        generate(tmp_path, tmp_path)


def test_a_first_day_alone_has_nothing_to_learn_from(inputs: Path, tmp_path: Path) -> None:
    make_training_set(tmp_path / "training_set", requests=20, candidates=12, days=1)
    (tmp_path / "reward").symlink_to(inputs / "reward")
    with pytest.raises(DataRefused, match="no training request offers a choice"):
        generate(tmp_path, tmp_path)
    outcome = json.loads((tmp_path / "run/outcomes/generate_groups.json").read_text())
    assert (outcome["kind"], outcome["exit_code"]) == ("data_refused", 3)
