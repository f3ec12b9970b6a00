"""Methods of the field in an experiment: trained on a night's artifacts, kept, and trained again where they must be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.experiments import trained
from components.experiments.trained import CARD, WEIGHTS, Source, policy
from goalrank import baselines, presets
from goalrank.dataset import TrainingSet
from goalrank.errors import CheckpointDamaged, UsageError
from goalrank.schema import LIST_LENGTH
from tests.components.untrained_models import NightInputs, random_reward

PARAMETERS = {"preset": "tiny", "seed": 3}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps of training."""
    monkeypatch.setattr(trained, "preset", lambda name: replace(presets.preset(name), reward_steps=5, item_buckets=64))


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A night's folder with the two artifacts."""
    folder = tmp_path / "night"
    made = NightInputs(folder / "artifacts" / "run" / "materialize-features", requests=120)
    (folder / "artifacts" / "run" / "train-reward").mkdir()
    made.folder = folder / "artifacts" / "run" / "train-reward"
    made.save("reward_model", random_reward(1), "reward")
    return folder


def lists_of(night: Path, kept: Path, name: str = "g-e") -> torch.Tensor:
    source = Source.newest([(night, PARAMETERS)])
    rank = policy(name, source, kept)
    with torch.inference_mode():
        return rank(TrainingSet.load(source.training_set).batch(range(40)), LIST_LENGTH)


@pytest.mark.parametrize("name", ["mg-e-3", "pier", "prm", "nar4rec+r"])
def test_a_method_is_trained_once_and_then_found(name, night, tmp_path, monkeypatch) -> None:
    first = lists_of(night, tmp_path / "kept", name)
    monkeypatch.setattr(baselines, "train", lambda *_: pytest.fail("it was kept"))
    assert torch.equal(lists_of(night, tmp_path / "kept", name), first)
    (place,) = (tmp_path / "kept").iterdir()
    card = json.loads((place / CARD).read_text())
    assert card["made_of"]["name"] == name and card["made_of"]["seed"] == PARAMETERS["seed"]
    assert "curves" in json.dumps(card["figures"])


@pytest.mark.parametrize("name", ["retriever-ascending", "sequence"])
def test_a_method_without_training_is_kept_like_the_others(name, night, tmp_path, monkeypatch) -> None:
    first = lists_of(night, tmp_path / "kept", name)
    monkeypatch.setattr(baselines, "train", lambda *_: pytest.fail("it was kept"))
    assert torch.equal(lists_of(night, tmp_path / "kept", name), first)


def test_progress_is_told(night, tmp_path) -> None:
    told: list[tuple[str, int, int]] = []
    source = Source.newest([(night, PARAMETERS)])
    policy("g-e", source, tmp_path / "kept", lambda *seen: told.append(seen))
    assert told[-1] == ("training g-e", 5, 5)


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        (WEIGHTS, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        (WEIGHTS, lambda content: content[:100]),
        (CARD, lambda content: content[:100]),
        (CARD, lambda content: b"[]"),
    ],
)
def test_a_damaged_one_is_trained_again(file, spoil, night, tmp_path) -> None:
    first = lists_of(night, tmp_path / "kept")
    (place,) = (tmp_path / "kept").iterdir()
    content = (place / file).read_bytes()
    (place / file).write_bytes(spoil(content))
    assert torch.equal(lists_of(night, tmp_path / "kept"), first)
    assert (place / file).read_bytes() == content


def test_another_seed_or_reward_model_makes_another_policy(night, tmp_path) -> None:
    kept = tmp_path / "kept"
    lists_of(night, kept)
    policy("g-e", Source.newest([(night, PARAMETERS | {"seed": 4})]), kept)
    made = NightInputs.__new__(NightInputs)
    made.folder, made.snapshot_id = night / "artifacts" / "run" / "train-reward", "other"
    made.data = TrainingSet.load(night / "artifacts" / "run" / "materialize-features" / "training_set")
    made.save("reward_model", random_reward(9), "reward")
    lists_of(night, kept)
    assert len(list(kept.iterdir())) == 3


def test_the_evaluator_is_the_nights_guide(night, tmp_path) -> None:
    rank = policy("mg-e-3", Source.newest([(night, PARAMETERS)]), tmp_path / "kept")
    evaluator, guide = rank.__self__.evaluator.state_dict(), random_reward(1).state_dict()
    assert all(torch.equal(evaluator[name], guide[name]) for name in guide)


def test_the_newest_night_with_both_artifacts_is_learnt_from(night, tmp_path) -> None:
    empty = tmp_path / "refused"
    empty.mkdir()
    found = Source.newest([(night, PARAMETERS), (empty, {"preset": "base", "seed": 0})])
    assert found.preset == "tiny" and night in found.training_set.parents
    with pytest.raises(UsageError, match="run `goalrank nightly`"):
        Source.newest([(empty, PARAMETERS)])


def test_a_damaged_guide_is_refused(night, tmp_path) -> None:
    weights = night / "artifacts" / "run" / "train-reward" / "reward_model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\1")
    with pytest.raises(CheckpointDamaged):
        lists_of(night, tmp_path / "kept")
