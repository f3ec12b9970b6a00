"""Training: a killed run ends where an undisturbed one does, what is not finite is refused, lists get better."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from goalrank import train
from goalrank.checkpoint import Checkpoints
from goalrank.dataset import Feedback, RequestBatch, TrainingSet
from goalrank.encoders import Encoded, ModelSizes
from goalrank.errors import DataRefused, ModelRefused, TryAgain, UsageError
from goalrank.groups import Groups, build_groups, read_groups, write_groups
from goalrank.objective import Loss, ObjectiveConfig, first_occurrence, group_size_temperature, with_matched_temperature
from goalrank.presets import EVERY_STEP, NEVER, preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schedule import FINAL_RATE, batch_rows, derived_seed, rate_share
from goalrank.train import CURVES, list_rewards, logged_gains, train_ranker
from tests.synthetic import make_training_set

ROOT = Path(__file__).resolve().parents[2]
SHORT = replace(preset("tiny"), ranker_steps=12, batch_requests=16, checkpoint_every=3, dropout=0.1)


class PlantedReward(RewardModel):
    """A frozen reward that is easy to learn: later positions count less, the next-item score decides."""

    def score_lists(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        value_BN = encoded.candidates_BND[..., 0]
        value_BGL = torch.take_along_dim(value_BN.unsqueeze(1), lists_BGL.clamp_min(0), dim=2) * (lists_BGL >= 0)
        reward_BG = (value_BGL * 0.8 ** torch.arange(lists_BGL.shape[2])).sum(dim=-1)
        return torch.stack([reward_BG * 0.99, reward_BG * 1.01])


def make_reward(kind: type[RewardModel] = PlantedReward) -> RewardModel:
    torch.manual_seed(0)
    return kind(ModelSizes.from_preset(SHORT)).eval()


pytestmark = pytest.mark.usefixtures("one_thread")


def write_inputs(folder: Path) -> Path:
    """training_set/ and groups/ of a short run, below a folder that exists; returns it."""
    make_training_set(folder / "training_set", requests=120, candidates=12)
    data = TrainingSet.load(folder / "training_set")
    write_groups(folder / "groups", build_groups(data, data.guide_indices(), make_reward(), SHORT.helper_lists, seed=0))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def data(folder: Path) -> TrainingSet:
    return TrainingSet.load(folder / "training_set")


@pytest.fixture(scope="module")
def groups(folder: Path) -> Groups:
    return read_groups(folder / "groups")


@pytest.fixture(scope="module")
def undisturbed(data: TrainingSet, groups: Groups) -> train.TrainedRanker:
    return train_ranker(data, groups, make_reward(), SHORT, seed=7)


def same_weights(one: train.TrainedRanker, other: train.TrainedRanker) -> bool:
    pairs = zip(one.ranker.state_dict().values(), other.ranker.state_dict().values(), strict=True)
    return all(a.equal(b) for a, b in pairs) and one.curves == other.curves


def test_same_seed_same_weights(data: TrainingSet, groups: Groups, undisturbed: train.TrainedRanker) -> None:
    reward = make_reward()
    torch.rand(5)  # what the process did before must not matter
    state = torch.get_rng_state()
    assert same_weights(train_ranker(data, groups, reward, SHORT, seed=7), undisturbed)
    assert torch.get_rng_state().equal(state)
    assert not same_weights(train_ranker(data, groups, make_reward(), SHORT, seed=8), undisturbed)


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
from goalrank.checkpoint import Checkpoints
from goalrank.dataset import TrainingSet
from goalrank.groups import read_groups
from goalrank.train import train_ranker
from tests.unit.test_train import SHORT, make_reward

folder, checkpoints, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)

def progress(done, total, note):
    if done == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

train_ranker(TrainingSet.load(folder / "training_set"), read_groups(folder / "groups"), make_reward(), SHORT, 7,
             checkpoints=Checkpoints(checkpoints), progress=progress)
"""


def test_killed_and_resumed_ends_with_the_same_weights(
    folder: Path, data: TrainingSet, groups: Groups, undisturbed: train.TrainedRanker, tmp_path: Path
) -> None:
    for kill_at in (1, 5, 11):  # before any checkpoint, between two, after the last; each resumes the one before
        arguments = [str(folder), str(tmp_path / "checkpoints"), str(kill_at)]
        child = subprocess.run([sys.executable, "-c", CHILD, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
    resumed = train_ranker(data, groups, make_reward(), SHORT, 7, checkpoints=Checkpoints(tmp_path / "checkpoints"))
    assert resumed.resumed_from == 9
    assert same_weights(resumed, undisturbed)


def stop_at(step: int):
    def progress(done: int, total: int, note: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress


def test_damaged_checkpoint_falls_back_to_the_one_before(
    data: TrainingSet, groups: Groups, undisturbed: train.TrainedRanker, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_ranker(data, groups, make_reward(), SHORT, 7, checkpoints=checkpoints, progress=stop_at(10))
    newest = sorted(tmp_path.glob("*.checkpoint"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = train_ranker(data, groups, make_reward(), SHORT, 7, checkpoints=checkpoints)
    assert (resumed.resumed_from, resumed.damaged_checkpoints) == (6, [newest.name])
    assert same_weights(resumed, undisturbed)


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"fingerprint": {"snapshot_id": "other"}}, {"objective": ObjectiveConfig(temperature=0.5)}]
)
def test_checkpoints_of_another_run_are_not_used(
    change: dict, data: TrainingSet, groups: Groups, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_ranker(data, groups, make_reward(), SHORT, 7, checkpoints=Checkpoints(tmp_path), progress=stop_at(10))
    arguments = {"seed": 7, **change}
    fresh = train_ranker(data, groups, make_reward(), SHORT, **arguments)
    found = train_ranker(data, groups, make_reward(), SHORT, checkpoints=Checkpoints(tmp_path), **arguments)
    assert found.resumed_from == 0
    assert same_weights(found, fresh)


def test_a_preset_that_changed_its_course_begins_anew(data: TrainingSet, groups: Groups, tmp_path: Path) -> None:
    """Interrupted before a release, resumed after it: under the old name there are fewer steps now."""
    with pytest.raises(KeyboardInterrupt):
        train_ranker(data, groups, make_reward(), SHORT, 7, checkpoints=Checkpoints(tmp_path), progress=stop_at(10))
    fewer = replace(SHORT, ranker_steps=8)
    found = train_ranker(data, groups, make_reward(), fewer, 7, checkpoints=Checkpoints(tmp_path))
    assert found.resumed_from == 0
    assert same_weights(found, train_ranker(data, groups, make_reward(), fewer, 7))


@pytest.mark.parametrize("loss", get_args(Loss))
def test_lists_get_better(loss: str, data: TrainingSet, groups: Groups) -> None:
    longer = replace(SHORT, ranker_steps=80, learning_rate=1e-2)
    trained = train_ranker(data, groups, make_reward(), longer, seed=0, objective=ObjectiveConfig(loss=loss))
    found = list_rewards(data, groups, trained.ranker, make_reward())
    assert found["greedy_reward"] > found["best_helper_reward"] >= found["retriever_reward"]
    own = trained.curves["on_policy_reward"]
    assert own[-1][1] > own[0][1]
    assert set(trained.curves) == set(CURVES)
    assert own[-1][0] == 80


def test_own_lists_come_from_the_ranker_as_it_is_served(
    data: TrainingSet, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiny has no dropout of activations, yet ids drop out in training: the encoding that is trained on will not do."""
    served: list[bool] = []
    encodings: dict[int, bool] = {}
    encode, sample = Ranker.encode, Ranker.sample

    def noted(self: Ranker, batch: RequestBatch) -> Encoded:
        encoded = encode(self, batch)
        encodings[id(encoded)] = not self.training
        return encoded

    def asked(self: Ranker, encoded: Encoded, *given: Any, **named: Any) -> Tensor:
        served.append(encodings[id(encoded)])
        return sample(self, encoded, *given, **named)

    monkeypatch.setattr(Ranker, "encode", noted)
    monkeypatch.setattr(Ranker, "sample", asked)
    without = replace(SHORT, dropout=0.0, ranker_steps=2)
    train_ranker(data, groups, make_reward(), without, 0)
    assert served == [True, True]


def test_a_matched_temperature_is_found_before_the_first_step(data: TrainingSet, groups: Groups) -> None:
    raw = ObjectiveConfig(normalisation="raw", matched_to="standardised")
    trained = train_ranker(data, groups, make_reward(), SHORT, 7, objective=raw)
    mask = first_occurrence(torch.from_numpy(groups.lists_RGL))
    found = with_matched_temperature(raw, torch.from_numpy(groups.rewards_RG), mask, SHORT.group_size)
    assert trained.objective == found and not found.matched
    told = train_ranker(data, groups, make_reward(), SHORT, 7, objective=found)
    assert same_weights(told, trained)
    sized = ObjectiveConfig(temperature=1.0, matched_group_size=20)
    assert train_ranker(
        data, groups, make_reward(), SHORT, 7, objective=sized
    ).objective.temperature == group_size_temperature(1.0, SHORT.group_size, 20)


@pytest.mark.parametrize("loss", ["dpo", "rcpo"])
def test_preferences_are_anchored_to_the_ranker_that_training_began_with(
    loss: str, data: TrainingSet, groups: Groups, tmp_path: Path
) -> None:
    """That ranker is no part of a checkpoint: a resumed run makes it anew."""
    anchored = {"objective": ObjectiveConfig(loss=loss, preference_reference="initial")}
    whole = train_ranker(data, groups, make_reward(), SHORT, 7, **anchored)
    with pytest.raises(KeyboardInterrupt):
        train_ranker(
            data, groups, make_reward(), SHORT, 7, **anchored, checkpoints=Checkpoints(tmp_path), progress=stop_at(10)
        )
    resumed = train_ranker(data, groups, make_reward(), SHORT, 7, **anchored, checkpoints=Checkpoints(tmp_path))
    assert resumed.resumed_from == 9
    assert same_weights(resumed, whole)
    free = train_ranker(data, groups, make_reward(), SHORT, 7, objective=ObjectiveConfig(loss=loss))
    assert not same_weights(free, whole)


OWN_LISTS = {
    "anew at every step": {"refresh": EVERY_STEP},
    "every five steps": {"refresh": 5},
    "of the initial ranker": {"refresh": NEVER},
    "none": {"on_policy_lists": 0},
}


@pytest.mark.parametrize("option", OWN_LISTS)
def test_resumed_with_any_source_of_own_lists(option: str, data: TrainingSet, groups: Groups, tmp_path: Path) -> None:
    """Resumed at step 9, where no period begins: the earlier ranker has to come from the checkpoint."""
    chosen = replace(SHORT, **OWN_LISTS[option])
    whole = train_ranker(data, groups, make_reward(), chosen, 7)
    for stop in (7, 10):
        with pytest.raises(KeyboardInterrupt):
            train_ranker(
                data, groups, make_reward(), chosen, 7, checkpoints=Checkpoints(tmp_path), progress=stop_at(stop)
            )
    resumed = train_ranker(data, groups, make_reward(), chosen, 7, checkpoints=Checkpoints(tmp_path))
    assert resumed.resumed_from == 9
    assert same_weights(resumed, whole)
    others = [replace(SHORT, **other) for name, other in OWN_LISTS.items() if name != option]
    assert not any(same_weights(train_ranker(data, groups, make_reward(), one, 7), whole) for one in others)


@pytest.mark.parametrize("change", [{"refresh": 5}, {"on_policy_lists": 3}])
def test_checkpoints_of_other_own_lists_are_not_used(
    change: dict, data: TrainingSet, groups: Groups, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_ranker(data, groups, make_reward(), SHORT, 7, checkpoints=Checkpoints(tmp_path), progress=stop_at(10))
    other = replace(SHORT, **change)
    assert train_ranker(data, groups, make_reward(), other, 7, checkpoints=Checkpoints(tmp_path)).resumed_from == 0


def lists_by_request(data: TrainingSet, groups: Groups, refresh: int, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Of each step by row of the groups the request's own lists."""
    seen: list[dict] = []
    original = train._groups_of

    def noted(lesson: Any, rows_B: np.ndarray, batch: RequestBatch, draws: Any) -> Any:
        lists, rewards = original(lesson, rows_B, batch, draws)
        own = lists[:, lesson.groups.lists_RGL.shape[1] :]
        seen.append(dict(zip(rows_B.tolist(), own.tolist(), strict=True)))
        return lists, rewards

    with monkeypatch.context() as patched:
        patched.setattr(train, "_groups_of", noted)
        steps = replace(SHORT, refresh=refresh, ranker_steps=18, learning_rate=1e-2, batch_requests=len(groups) // 3)
        train_ranker(data, groups, make_reward(), steps, 7)
    return seen


def test_own_lists_stay_within_a_period_and_change_with_the_next(
    data: TrainingSet, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request comes by every three steps, in another batch: twice within a period of six."""
    fixed, six = (lists_by_request(data, groups, refresh, monkeypatch) for refresh in (NEVER, 6))
    always = {row: lists for step in fixed for row, lists in step.items()}
    assert sum(map(len, fixed)) > 5 * len(always)
    assert all(lists == always[row] for step in fixed for row, lists in step.items())
    periods = [{row: lists for step in six[begin : begin + 6] for row, lists in step.items()} for begin in (0, 6, 12)]
    for begin, period in zip((0, 6, 12), periods, strict=True):
        assert all(lists == period[row] for step in six[begin : begin + 6] for row, lists in step.items())
    assert periods[0] == {row: always[row] for row in periods[0]}  # the first period's ranker is the initial one
    both = periods[0].keys() & periods[1].keys()
    assert np.mean([periods[0][row] != periods[1][row] for row in both]) > 0.9


def test_groups_of_own_lists_alone(data: TrainingSet, groups: Groups) -> None:
    alone = replace(groups, lists_RGL=groups.lists_RGL[:, :0], rewards_RG=groups.rewards_RG[:, :0],
                    head_rewards_RHG=groups.head_rewards_RHG[:, :, :0], helpers=())  # fmt: skip
    trained = train_ranker(data, alone, make_reward(), replace(SHORT, on_policy_lists=6), 7)
    assert trained.curves["helper_reward"] == [] and len(trained.curves["on_policy_reward"]) > 1
    with pytest.raises(UsageError, match="groups of fewer than two lists found"):
        train_ranker(data, alone, make_reward(), replace(SHORT, on_policy_lists=1), 7)


def test_the_retriever_need_not_be_among_the_helpers(data: TrainingSet, undisturbed: train.TrainedRanker) -> None:
    random = build_groups(data, data.guide_indices()[:20], make_reward(), 3, seed=0, mix=("random",))
    found = list_rewards(data, random, undisturbed.ranker, make_reward())
    assert "retriever_reward" not in found and found["best_helper_reward"] < found["best_in_group_reward"]


def test_supervised_term_is_an_option(data: TrainingSet, groups: Groups, undisturbed: train.TrainedRanker) -> None:
    found = train_ranker(data, groups, make_reward(), SHORT, 7, objective=ObjectiveConfig(supervised_weight=0.5))
    assert found.curves["loss"][0][1] > undisturbed.curves["loss"][0][1]


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_is_refused(poison: float, data: TrainingSet, groups: Groups) -> None:
    class Poisoned(PlantedReward):
        def score_lists(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
            rewards_HBG = super().score_lists(encoded, lists_BGL)
            rewards_HBG[:, 0, 0] = poison
            return rewards_HBG

    with pytest.raises(ModelRefused, match="at step 0 of ranker training, expected a finite number"):
        train_ranker(data, groups, make_reward(Poisoned), SHORT, seed=0)
    enormous = replace(SHORT, learning_rate=1e38, ranker_steps=3)
    with pytest.raises(ModelRefused):
        train_ranker(data, groups, make_reward(), enormous, seed=0)


def test_no_groups_are_refused(data: TrainingSet, groups: Groups) -> None:
    arrays = (groups.request_R, groups.lists_RGL, groups.rewards_RG, groups.head_rewards_RHG)
    nothing = Groups(*(array[:0] for array in arrays), helpers=groups.helpers)
    with pytest.raises(DataRefused, match="the groups hold no request"):
        train_ranker(data, nothing, make_reward(), SHORT, seed=0)


def test_batches_go_through_every_request_once_an_epoch() -> None:
    epoch = [batch_rows(10, 3, step, seed=1).tolist() for step in range(6)]
    assert len({*epoch[0], *epoch[1], *epoch[2]}) == 9
    assert len({*epoch[3], *epoch[4], *epoch[5]}) == 9
    assert epoch[:3] != epoch[3:]
    assert sorted(batch_rows(4, 64, 5, seed=1)) == [0, 1, 2, 3]
    assert batch_rows(10, 3, 4, seed=2).tolist() != epoch[4] == batch_rows(10, 3, 4, seed=1).tolist()
    with pytest.raises(ValueError, match="read-only"):  # the epoch's other steps read the same array
        batch_rows(10, 3, 4, seed=1)[0] = 0


def test_derived_seeds_are_all_different() -> None:
    seeds = {derived_seed(seed, purpose, number) for seed in range(5) for purpose in range(4) for number in range(50)}
    assert len(seeds) == 5 * 4 * 50


def test_learning_rate_warms_up_and_decays() -> None:
    shares = [rate_share(step, 100) for step in range(100)]
    np.testing.assert_allclose(shares[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares == sorted(shares[:5]) + sorted(shares[5:], reverse=True)
    assert shares[-1] == pytest.approx(FINAL_RATE)
    assert all(0 < rate_share(step, steps) <= 1 for steps in (1, 2, 3) for step in range(steps))


def test_logged_gains(data: TrainingSet) -> None:
    indices = data.guide_indices()[:2]
    batch = data.batch(indices)
    feedback = Feedback(
        slate_BL=torch.tensor([[3, 0, -1], [1, 2, 5]]),
        click_BL=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
        like_BL=torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        watch_seconds_BL=torch.tensor([[120.0, torch.nan, torch.nan], [0.0, 0.0, 60.0]]),
        propensity_BL=torch.full((2, 3), torch.nan),
        mask_BL=torch.tensor([[True, True, False], [True, True, True]]),
        self_selected_B=torch.tensor([False, True]),
    )
    gain, known = logged_gains(feedback, batch)
    assert gain[0].nonzero().flatten().tolist() == [3] and gain[0, 3].item() == pytest.approx(1.0 + 0.5 + 0.4)
    assert known[0].nonzero().flatten().tolist() == [0, 3]
    assert gain[1].nonzero().flatten().tolist() == [2, 5] and gain[1, 5].item() == pytest.approx(1.2)
    assert known[1].equal(batch.mask_BN[1])


def test_asked_to_stop_it_keeps_the_step_and_goes_on_from_there(
    data: TrainingSet, groups: Groups, undisturbed: train.TrainedRanker, tmp_path: Path
) -> None:
    """SIGTERM's way out: the step under way is kept, wherever it lies between two checkpoints."""
    asked = iter([False, False, True])
    kept = {"checkpoints": Checkpoints(tmp_path)}
    with pytest.raises(TryAgain, match="asked to stop after step 3 of"):
        train_ranker(data, groups, make_reward(), SHORT, 7, **kept, asked_to_stop=lambda: next(asked))
    resumed = train_ranker(data, groups, make_reward(), SHORT, 7, **kept)
    assert resumed.resumed_from == 3
    assert same_weights(resumed, undisturbed)
