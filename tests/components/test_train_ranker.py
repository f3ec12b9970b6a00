"""train_ranker run as a step: the model, its card, and a kill from outside while it trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch

from components.generate_groups.main import run as generate_groups
from components.train_ranker import main
from components.train_ranker.main import run
from components.train_ranker.waited_for import PATIENCE_SECONDS, Listener
from goalrank.checkpoint import load_model, read_model_card, save_model
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import DataRefused, ModelRefused, TryAgain, UsageError
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import feature_set
from goalrank.train import CURVES
from tests.synthetic import make_training_set

ROOT = Path(__file__).resolve().parents[2]
SEED = 5


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_training_set(folder / "training_set", requests=120, candidates=12)
    torch.manual_seed(0)
    model = RewardModel(ModelSizes.from_preset(preset("tiny")))
    save_model(folder / "reward", model, "reward", model.sizes.to_dict(), {}, {})
    paths = (folder / name for name in ("training_set", "reward", "groups"))
    generate_groups(*map(str, paths), preset="tiny", seed=SEED, run_uri=str(folder / "run"))
    return folder


def arguments(inputs: Path, out: Path) -> dict[str, str | int]:
    return {
        "training_set": str(inputs / "training_set"),
        "groups": str(inputs / "groups"),
        "reward_model": str(inputs / "reward"),
        "ranker": str(out / "ranker"),
        "checkpoints_uri": str(out / "checkpoints"),
        "preset": "tiny",
        "seed": SEED,
        "run_uri": str(out / "run"),
    }


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    run(**arguments(inputs, out))
    return out


def test_a_job_that_nobody_waits_for_ends_and_the_next_goes_on(
    inputs: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that asked for a TrainJob was killed; each look of the job comes minutes after the one before."""
    minutes = count(step=PATIENCE_SECONDS / 10)
    with monkeypatch.context() as patched:
        patched.setattr(main, "Listener", partial(Listener, clock=lambda: next(minutes)))
        with pytest.raises(TryAgain, match="asked to stop after step 1[0-9] of"):
            run(**arguments(inputs, tmp_path), waited_for=str(tmp_path / "waited_for"))
    assert not (tmp_path / "ranker").exists()
    run(**arguments(inputs, tmp_path), waited_for=str(tmp_path / "waited_for"))
    assert outcome_of(tmp_path)["figures"]["resumed_from"] >= 10
    names = [out / "ranker" / "weights.safetensors" for out in (tmp_path, undisturbed)]
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.parametrize("of_a_job", [True, False])
def test_a_process_of_a_job_ends_well_and_the_outcome_says_how(inputs: Path, tmp_path: Path, of_a_job: bool) -> None:
    given = arguments(inputs, tmp_path) | {"preset": "huge"} | ({"waited_for": str(tmp_path / "w")} if of_a_job else {})
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    command = [sys.executable, "-m", "components.train_ranker.main", *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == (0 if of_a_job else UsageError.exit_code)
    assert outcome_of(tmp_path)["kind"] == UsageError.kind and "preset 'huge' found" in ended.stderr


def outcome_of(out: Path) -> dict:
    return json.loads((out / "run/outcomes/train_ranker.json").read_text())


def test_the_model_and_its_card(inputs: Path, undisturbed: Path) -> None:
    card = read_model_card(undisturbed / "ranker")
    training_set = TrainingSet.load(inputs / "training_set")
    assert card["kind"] == "ranker"
    created = card["created_by"]
    assert (created["preset"], created["seed"], created["snapshot_id"]) == ("tiny", SEED, training_set.snapshot_id)
    assert created["data_window"] == [training_set.train_days[0], training_set.train_days[-1]]
    assert created["trained_until"] == training_set.train_days[-1] < training_set.date
    curves = card["metrics"]["curves"]
    assert set(curves) == set(CURVES)
    assert all(points[-1][0] == preset("tiny").ranker_steps for points in curves.values())
    outcome = outcome_of(undisturbed)
    assert outcome["kind"] == "done"
    assert outcome["figures"]["greedy_reward"] == card["metrics"]["greedy_reward"]
    model = load_model(undisturbed / "ranker")
    assert isinstance(model, Ranker)
    with torch.no_grad():
        lists = model.greedy(model.encode(training_set.batch(training_set.evaluation_indices()[:8])), 6)
    assert all(len(set(row)) == 6 and min(row) >= 0 for row in lists.tolist())
    assert outcome["figures"]["curves"]["loss"] == curves["loss"]
    assert not list((undisturbed / "checkpoints").glob("*"))  # the model is written: nothing to resume


def test_killed_from_outside_and_run_again(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.train_ranker.main"]
    for name, value in arguments(inputs, tmp_path).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    # As many threads as here: sums split another way may differ in their last bit.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "checkpoints").glob("*.checkpoint")) and time.monotonic() < deadline:
        assert child.poll() is None, "training ended before it could be killed"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "ranker/model.json").exists()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    assert outcome_of(tmp_path)["figures"]["resumed_from"] > 0
    again, once = read_model_card(tmp_path / "ranker"), read_model_card(undisturbed / "ranker")
    assert again["weights_sha256"] == once["weights_sha256"]
    assert again["metrics"]["curves"] == once["metrics"]["curves"]


def test_missing_groups_are_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="has no groups.json; run generate_groups again"):
        run(**{**arguments(inputs, tmp_path), "groups": str(tmp_path / "nowhere")})
    assert outcome_of(tmp_path)["exit_code"] == 3


def test_a_warm_start_goes_on_from_another_ranker(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    run(**arguments(inputs, tmp_path), warm_start=str(undisturbed / "ranker"), micro_batch=24)
    before, after = read_model_card(undisturbed / "ranker"), read_model_card(tmp_path / "ranker")
    assert after["created_by"]["warm_start_sha256"] == before["weights_sha256"]
    assert after["created_by"]["feature_set"] == before["created_by"]["feature_set"] == feature_set()
    assert "warm_start_sha256" not in before["created_by"]
    first, last = (card["metrics"]["curves"]["on_policy_reward"] for card in (after, before))
    assert abs(first[0][1] - last[-1][1]) < abs(last[0][1] - last[-1][1])  # it begins about where the other ended
    figures = outcome_of(tmp_path)["figures"]
    assert (figures["processes"], figures["bf16"]) == (1, torch.cuda.is_available())


def test_a_group_plan_changes_the_own_lists(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    run(**arguments(inputs, tmp_path), group_plan="own=0")
    card, before = read_model_card(tmp_path / "ranker"), read_model_card(undisturbed / "ranker")
    assert card["created_by"]["group_plan"] == "own=0" and "group_plan" not in before["created_by"]
    assert card["metrics"]["curves"]["on_policy_reward"] == [] != before["metrics"]["curves"]["on_policy_reward"]
    assert card["weights_sha256"] != before["weights_sha256"]


def test_an_objective_is_learnt_by_and_told(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    run(**arguments(inputs, tmp_path), objective="temperature=0.5 supervised_weight=10")
    card, before = read_model_card(tmp_path / "ranker"), read_model_card(undisturbed / "ranker")
    told = {"supervised_weight": 10.0, "temperature": 0.5}
    assert card["created_by"]["objective"] == before["created_by"]["objective"] | told
    assert card["weights_sha256"] != before["weights_sha256"]
    assert outcome_of(tmp_path)["figures"]["objective"] == "temperature=0.5 supervised_weight=10"
    assert "objective" not in outcome_of(undisturbed)["figures"]


def test_what_cannot_be_started_from_is_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="no feature set in its card found"):
        run(**arguments(inputs, tmp_path), warm_start=str(inputs / "reward"))
    assert outcome_of(tmp_path)["exit_code"] == 4
    with pytest.raises(UsageError, match="precision 'half' found, expected one of auto, float32, bf16"):
        run(**arguments(inputs, tmp_path), precision="half")
