"""A warm start begins where another ranker ended, and refuses what it would misread."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from goalrank.checkpoint import save_model
from goalrank.encoders import ModelSizes
from goalrank.errors import CheckpointDamaged, ModelRefused
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import feature_set
from goalrank.train import new_ranker
from goalrank.warm_start import warm_start_from

TINY = preset("tiny")
DATE = "2026-01-03"


def saved(folder: Path, model: Ranker | RewardModel, kind: str = "ranker", **created_by: str) -> Path:
    created = {"feature_set": feature_set(), "trained_until": "2026-01-02"} | created_by
    save_model(folder, model, kind, model.sizes.to_dict(), created, {})
    return folder


def ranker_of(**sizes: int) -> Ranker:
    torch.manual_seed(4)
    return Ranker(ModelSizes.from_preset(replace(TINY, **sizes)))


def test_it_begins_with_every_weight(tmp_path: Path) -> None:
    champion = ranker_of()
    start = warm_start_from(saved(tmp_path / "champion", champion), TINY, DATE)
    torch.manual_seed(5)
    reward = RewardModel(ModelSizes.from_preset(TINY))
    warm, cold = new_ranker(TINY, reward, start), new_ranker(TINY, reward)
    for name, weight in champion.state_dict().items():
        assert warm.state_dict()[name].equal(weight)
    assert cold.encoder.state_dict()["user_dense.weight"].equal(reward.encoder.state_dict()["user_dense.weight"])
    assert not cold.decoder.start.weight.equal(champion.decoder.start.weight)


def test_what_does_not_shape_a_ranker_may_differ(tmp_path: Path) -> None:
    other = saved(tmp_path, ranker_of(reward_heads=5, reward_layers=2))
    assert isinstance(warm_start_from(other, replace(TINY, dropout=0.3), DATE), Ranker)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"width": 24}, "has width 24 instead of 16"),
        ({"decoder_layers": 2, "heads": 4}, "has heads 4 instead of 2, decoder_layers 2 instead of 1"),
        ({"item_buckets": 64}, "has item_buckets 64 instead of 2048"),
    ],
)
def test_another_architecture_is_refused(sizes: dict[str, int], said: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, ranker_of(**sizes))
    with pytest.raises(ModelRefused, match=f"{said} .preset tiny.; start from one of the same preset"):
        warm_start_from(folder, TINY, DATE)
    reward = RewardModel(ModelSizes.from_preset(TINY))
    with pytest.raises(ModelRefused, match=said):  # whoever brings a model instead of a folder
        new_ranker(TINY, reward, ranker_of(**sizes))


def test_another_feature_set_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, ranker_of(), feature_set="0123456789abcdef")
    with pytest.raises(ModelRefused, match=f"feature set 0123456789abcdef found, expected {feature_set()}"):
        warm_start_from(folder, TINY, DATE)
    card = json.loads((folder / "model.json").read_text())
    del card["created_by"]["feature_set"]
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelRefused, match="no feature set in its card found, expected"):
        warm_start_from(folder, TINY, DATE)


def test_who_has_seen_the_day_of_the_judging_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, ranker_of(), trained_until=DATE)
    with pytest.raises(ModelRefused, match=f"trained on days up to {DATE}, expected days before {DATE}"):
        warm_start_from(folder, TINY, DATE)


def test_what_is_no_ranker_is_refused(tmp_path: Path) -> None:
    reward = saved(tmp_path / "reward", RewardModel(ModelSizes.from_preset(TINY)), "reward")
    with pytest.raises(ModelRefused, match="holds a RewardModel, expected a ranker to start from"):
        warm_start_from(reward, TINY, DATE)
    with pytest.raises(CheckpointDamaged, match=r"model.json is absent"):
        warm_start_from(tmp_path / "nothing", TINY, DATE)
