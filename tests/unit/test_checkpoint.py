"""Models and checkpoints come back as they were written, or are refused; nothing is ever unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from goalrank.checkpoint import (
    Checkpoints,
    load_model,
    pack_training,
    read_checkpoint,
    read_model_card,
    save_model,
    unpack_training,
)
from goalrank.encoders import ModelSizes
from goalrank.errors import CheckpointDamaged, ModelRefused
from goalrank.presets import preset
from goalrank.reward import RewardModel

SIZES = ModelSizes.from_preset(preset("tiny"))
CREATED_BY = {"preset": "tiny", "seed": 0, "snapshot_id": "s", "trained_until": "d", "data_window": ["c", "d"]}


@pytest.fixture
def model() -> RewardModel:
    torch.manual_seed(0)
    return RewardModel(SIZES)


@pytest.fixture
def saved(model: RewardModel, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", model, "reward", SIZES.to_dict(), CREATED_BY, {"auc": 0.7})
    return tmp_path / "model"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_model_comes_back(model: RewardModel, saved: Path) -> None:
    loaded = load_model(saved)
    assert isinstance(loaded, RewardModel) and not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    card = read_model_card(saved)
    assert card["kind"] == "reward" and card["created_by"] == CREATED_BY and card["metrics"] == {"auc": 0.7}
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "weights.safetensors"]


def test_the_ranker_comes_back(tmp_path: Path) -> None:
    from goalrank.ranker import Ranker

    save_model(tmp_path, Ranker(SIZES), "ranker", SIZES.to_dict(), CREATED_BY, {})
    assert isinstance(load_model(tmp_path), Ranker)


@pytest.mark.parametrize("at", [0, 9, 2000, -1])
def test_one_flipped_bit_in_the_weights_is_refused(saved: Path, at: int) -> None:
    flip(saved / "weights.safetensors", at)
    with pytest.raises(CheckpointDamaged, match="has SHA-256 .* expected"):
        load_model(saved)


def test_a_pickle_in_place_of_weights_never_runs(saved: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    payload = pickle.dumps(Malicious())
    (saved / "weights.safetensors").write_bytes(payload)
    with pytest.raises(CheckpointDamaged):
        load_model(saved)
    # Even where the attacker also rewrote the card's checksum.
    import hashlib

    card = json.loads((saved / "model.json").read_text())
    card["weights_sha256"] = hashlib.sha256(payload).hexdigest()
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointDamaged, match="do not fit"):
        load_model(saved)
    assert not (tmp_path / "executed").exists()


def test_cards_that_are_absent_broken_or_of_another_format(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointDamaged, match="is absent"):
        read_model_card(tmp_path / "nowhere")
    (saved / "model.json").write_text("{")
    with pytest.raises(CheckpointDamaged, match="not readable as JSON"):
        load_model(saved)
    (saved / "model.json").write_text('{"format": 9}')
    with pytest.raises(CheckpointDamaged, match="format 9, expected 1"):
        load_model(saved)


def test_weights_of_other_sizes_are_refused(saved: Path) -> None:
    card = json.loads((saved / "model.json").read_text())
    card["config"]["width"] = 32
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointDamaged, match="do not fit the config"):
        load_model(saved)


def test_what_is_not_finite_is_not_saved(model: RewardModel, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="metric"):
        save_model(tmp_path, model, "reward", SIZES.to_dict(), CREATED_BY, {"auc": float("nan")})
    with torch.no_grad():
        model.head_bias_HO[0, 0] = float("inf")
    with pytest.raises(ModelRefused, match="head_bias_HO"):
        save_model(tmp_path, model, "reward", SIZES.to_dict(), CREATED_BY, {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelRefused, match="kind 'judge'"):
        save_model(tmp_path, model, "judge", SIZES.to_dict(), CREATED_BY, {})


def checkpoint_three_times(folder: Path) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for step in (10, 20, 30):
        checkpoints.save(step, {"weight": torch.full((3,), float(step))}, {"loss": [step]})
    return checkpoints


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".step-0000000005.checkpoint.1").write_bytes(b"left by a killed writer")
    checkpoints = checkpoint_three_times(tmp_path)
    names = [f"step-{step:010d}.checkpoint" for step in (20, 30)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    newest = checkpoints.latest()
    assert (
        newest
        and newest.step == 30
        and newest.values == {"loss": [30]}
        and newest.tensors["weight"].tolist() == [30.0] * 3
    )
    checkpoints.clear()
    assert checkpoints.latest() is None and Checkpoints(tmp_path / "nowhere").latest() is None


@pytest.mark.parametrize("damage", ["truncated", "header", "body", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoints = checkpoint_three_times(tmp_path)
    path = tmp_path / "step-0000000030.checkpoint"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        flip(path, 30 if damage == "header" else -5)
    with pytest.raises(CheckpointDamaged, match="truncated or altered"):
        read_checkpoint(path)
    found = checkpoints.latest()
    assert found and found.step == 20 and checkpoints.damaged == [path.name]


def _train(net: nn.Module, optimizer: torch.optim.Optimizer, chance: torch.Generator, steps: int) -> None:
    for _ in range(steps):
        x = torch.randn(8, 4, generator=chance)
        loss = (nn.functional.dropout(net(x), 0.5) - x.sum(dim=1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _fresh() -> tuple[nn.Module, torch.optim.Optimizer, torch.Generator]:
    torch.manual_seed(3)
    net = nn.Linear(4, 1)
    return net, torch.optim.AdamW(net.parameters(), lr=0.1), torch.Generator().manual_seed(4)


def test_training_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    net, optimizer, chance = _fresh()
    _train(net, optimizer, chance, 10)
    expected = net.weight.detach().clone()

    net, optimizer, chance = _fresh()
    _train(net, optimizer, chance, 6)
    Checkpoints(tmp_path).save(6, *pack_training(net, optimizer, {"batches": chance}))

    net, optimizer, chance = _fresh()
    _train(net, optimizer, chance, 1)  # whatever the process did before must not matter
    checkpoint = Checkpoints(tmp_path).latest()
    assert checkpoint
    unpack_training(checkpoint, net, optimizer, {"batches": chance})
    _train(net, optimizer, chance, 4)
    assert torch.equal(net.weight, expected)
    with pytest.raises(CheckpointDamaged, match="of another model"):
        unpack_training(checkpoint, nn.Linear(5, 1), optimizer, {"batches": chance})


def test_a_damaged_newer_file_does_not_count_among_the_newest(tmp_path: Path) -> None:
    """Resumed from step 20 since 30 was damaged: what follows keeps two sound ones, and 30 is gone."""
    checkpoints = checkpoint_three_times(tmp_path)
    (tmp_path / "step-0000000030.checkpoint").write_bytes(b"cut")
    checkpoints.save(25, {"weight": torch.zeros(3)}, {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{step:010d}.checkpoint" for step in (20, 25)]


def test_what_a_killed_writer_left_is_no_part_of_the_model(saved: Path, model: RewardModel) -> None:
    for name in ("weights.safetensors", "model.json"):
        (saved / f".{name}.123").write_bytes(b"left by a killed writer")
    save_model(saved, model, "reward", SIZES.to_dict(), CREATED_BY, {})
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "weights.safetensors"]
    Checkpoints(saved).save(1, {}, {})
    (saved / ".step-0000000002.checkpoint.9").write_bytes(b"left too")
    Checkpoints(saved).clear()
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "weights.safetensors"]
