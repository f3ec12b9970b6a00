"""train_reward run alone on a folder of artifacts: two reward models on separate requests, refusals, repeatability."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.train_reward.main import run
from goalrank.checkpoint import load_model, read_model_card
from goalrank.dataset import TrainingSet
from goalrank.errors import DataRefused
from goalrank.presets import preset
from goalrank.reward import RewardModel
from tests.synthetic import make_training_set


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training_set")
    make_training_set(path, requests=400, candidates=12)
    return path


def train(training_set: Path, folder: Path, seed: int = 0) -> dict:
    run(
        training_set=str(training_set),
        reward_model=str(folder / "reward"),
        judge_model=str(folder / "judge"),
        preset="tiny",
        seed=seed,
        run_uri=str(folder / "run"),
    )
    return json.loads((folder / "run" / "outcomes" / "train_reward.json").read_text())


def test_guide_and_judge_are_written(training_set: Path, tmp_path: Path) -> None:
    outcome = train(training_set, tmp_path)
    assert outcome["kind"] == "done" and "torch" in outcome["tool_seconds"]
    loaded = TrainingSet.load(training_set)
    for role, indices in (("reward", loaded.guide_indices()), ("judge", loaded.judge_indices())):
        assert isinstance(load_model(tmp_path / role), RewardModel)
        card = read_model_card(tmp_path / role)
        assert card["metrics"]["requests"] + card["metrics"]["held_out"] == len(indices)
        assert card["created_by"]["snapshot_id"] == loaded.snapshot_id
        assert card["created_by"]["trained_until"] == loaded.train_days[-1] < loaded.date
        assert card["created_by"]["data_window"] == [loaded.train_days[0], loaded.train_days[-1]]
    assert (
        read_model_card(tmp_path / "reward")["weights_sha256"] != read_model_card(tmp_path / "judge")["weights_sha256"]
    )
    figures = outcome["figures"]
    assert figures["guide"]["steps"] == preset("tiny").reward_steps
    assert figures["judge"]["steps"] == preset("tiny").reward_steps // 2
    assert {"next_item_loss", "guide_loss", "guide_held_out_loss", "judge_loss"} <= set(figures["curves"])
    assert figures["reliability"] and figures["judge_reliability"] and figures["guide"]["noise"] > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "progress.jsonl").read_text().splitlines()]
    steps = [(line["done"], line["total"]) for line in lines if line["event"] == "progress"]
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]


def test_same_seed_same_weights(training_set: Path, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(training_set, tmp_path / name, seed)
        digests.append([read_model_card(tmp_path / name / role)["weights_sha256"] for role in ("reward", "judge")])
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]


def test_too_little_data_is_refused_and_nothing_written(tmp_path: Path) -> None:
    make_training_set(tmp_path / "set", requests=2, candidates=8)
    with pytest.raises(DataRefused):
        train(tmp_path / "set", tmp_path)
    outcome = json.loads((tmp_path / "run" / "outcomes" / "train_reward.json").read_text())
    assert outcome["kind"] == "data_refused" and not (tmp_path / "judge").exists()
