"""The loop that makes the groups in parts, run by kfp on this machine: the wiring of the night, and nothing else."""

# No `from __future__ import annotations` here: kfp reads the annotations as types.
import json
from pathlib import Path

import pytest
import torch
from kfp import dsl, local

from components.generate_groups.main import run as in_one_piece
from goalrank.checkpoint import save_model
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.groups import BATCH_REQUESTS, groups_digest
from goalrank.presets import preset
from goalrank.reward import RewardModel
from goalrank_platform import root
from pipelines.nightly import GROUP_PARTS, groups_made
from tests.synthetic import make_training_set

PARTS, SEED = 3, 3


def the_loop() -> dsl.base_component.BaseComponent:
    """From a training set and a reward model on this machine to the groups, in PARTS parts."""

    @dsl.pipeline(name="groups-in-parts")
    def pipeline(training_set_uri: str, reward_model_uri: str, run_uri: str):
        training_set = dsl.importer(artifact_uri=training_set_uri, artifact_class=dsl.Dataset).output
        reward_model = dsl.importer(artifact_uri=reward_model_uri, artifact_class=dsl.Model).output
        made_by = {"preset": "tiny", "group_plan": "", "run_uri": run_uri, "snapshot_id": "s"}
        groups_made(training_set, reward_model, SEED, made_by)

    return pipeline


def test_kfp_runs_the_loop_and_puts_the_same_groups_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tmp_path / "inputs"
    make_training_set(inputs / "training_set", requests=1300, candidates=12)
    torch.manual_seed(0)
    model = RewardModel(ModelSizes.from_preset(preset("tiny")))
    save_model(inputs / "reward", model, "reward", model.sizes.to_dict(), {}, {})
    requests = len(TrainingSet.load(inputs / "training_set").guide_indices())
    assert requests > (PARTS - 1) * BATCH_REQUESTS, "no part is empty"
    given = {"training_set": str(inputs / "training_set"), "reward_model": str(inputs / "reward")}
    one = tmp_path / "one"
    in_one_piece(**given, groups=str(one / "groups"), preset="tiny", seed=SEED, run_uri=str(one / "run"))

    monkeypatch.setenv("PYTHONPATH", str(root()))
    monkeypatch.chdir(tmp_path)
    before = GROUP_PARTS.set(PARTS)
    try:
        night = the_loop()
    finally:
        GROUP_PARTS.reset(before)
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "artifacts"), raise_on_error=True
    )
    night(training_set_uri=given["training_set"], reward_model_uri=given["reward_model"], run_uri=str(tmp_path / "run"))

    (joined,) = (tmp_path / "artifacts").glob("*/join-groups/groups")
    assert groups_digest(joined) == groups_digest(one / "groups")
    outcomes = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "run" / "outcomes").glob("*.json")}
    assert set(outcomes) == {"join_groups", *(f"generate_groups_{part + 1}_of_{PARTS}" for part in range(PARTS))}
    made = [outcomes[f"generate_groups_{part + 1}_of_{PARTS}"]["figures"]["requests"] for part in range(PARTS)]
    assert sum(made) == requests and min(made) > 0
