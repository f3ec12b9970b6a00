"""generate_groups run as a step: the artifact, the outcome, the refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.gate_limits import GROUPS_WITHOUT_SPREAD, REWARD_RANGE
from components.generate_groups import prepare
from components.generate_groups.main import check, run
from components.join_groups.main import run as join
from components.step import Step
from goalrank.checkpoint import save_model
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import CheckpointDamaged, DataRefused, ModelRefused, UsageError
from goalrank.groups import BATCH_REQUESTS, Groups, group_statistics, groups_digest, read_groups
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH
from tests.synthetic import make_training_set


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_training_set(folder / "training_set", requests=90, candidates=12)
    torch.manual_seed(0)
    model = RewardModel(ModelSizes.from_preset(preset("tiny")))
    save_model(folder / "reward", model, "reward", model.sizes.to_dict(), {}, {})
    return folder


def generate(inputs: Path, out: Path, seed: int = 3, group_plan: str = "") -> dict:
    run(
        training_set=str(inputs / "training_set"),
        reward_model=str(inputs / "reward"),
        groups=str(out / "groups"),
        preset="tiny",
        seed=seed,
        run_uri=str(out / "run"),
        group_plan=group_plan,
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


@pytest.mark.parametrize("plan", ["", "generators=3 taught=10"])
def test_made_in_parts_they_are_the_groups_of_one_piece(tmp_path: Path, plan: str) -> None:
    """As on a cluster: each part by a step of its own, then put together and checked; the same digest of all files."""
    make_training_set(tmp_path / "training_set", requests=1300, candidates=12)
    torch.manual_seed(0)
    model = RewardModel(ModelSizes.from_preset(preset("tiny")))
    save_model(tmp_path / "reward", model, "reward", model.sizes.to_dict(), {}, {})
    assert len(TrainingSet.load(tmp_path / "training_set").guide_indices()) > 2 * BATCH_REQUESTS, "several batches"
    whole = generate(tmp_path, tmp_path / "one", group_plan=plan)
    given = {"training_set": str(tmp_path / "training_set"), "preset": "tiny", "run_uri": str(tmp_path / "run")}
    given["group_plan"] = plan
    folders = [str(tmp_path / f"part-{part}") for part in range(4)]
    for part, folder in enumerate(folders):
        run(**given, reward_model=str(tmp_path / "reward"), groups=folder, seed=3, part=part, parts=4)
        assert not (Path(folder) / "groups.json").exists(), "nobody may train on a part"
    join(**given, parts=",".join(reversed(folders)), groups=str(tmp_path / "joined"))
    assert groups_digest(tmp_path / "joined") == groups_digest(tmp_path / "one" / "groups")
    outcomes = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "run" / "outcomes").glob("*.json")}
    assert set(outcomes) == {"join_groups", *(f"generate_groups_{part}_of_4" for part in range(1, 5))}
    for name in ("requests", "reward_std", "helpers"):
        assert outcomes["join_groups"]["figures"][name] == whole["figures"][name]
    with pytest.raises(DataRefused, match="expected all of one"):
        join(**given, parts=",".join(folders[1:]), groups=str(tmp_path / "joined-again"))


def test_helpers_may_be_named(inputs: Path, tmp_path: Path) -> None:
    outcome = generate(inputs, tmp_path, group_plan="helpers=retriever,reward_alone,random")
    named = ["retriever", "reward_alone", *["random"] * (preset("tiny").helper_lists - 2)]
    assert outcome["kind"] == "done" and outcome["figures"]["helpers"] == named
    with pytest.raises(UsageError, match="helper policy 'best' found, expected some of retriever"):
        generate(inputs, tmp_path / "unknown", group_plan="helpers=best")


def test_a_plan_says_how_many_lists_of_each(inputs: Path, tmp_path: Path) -> None:
    outcome = generate(inputs, tmp_path, group_plan="helpers=retriever,shown_perturbed:2,random:1 own=3")
    assert outcome["figures"]["helpers"] == ["retriever", "shown_perturbed", "shown_perturbed", "random"]


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


# ------------------------------------------------------------------------------------------------------------ the gate


@pytest.fixture(scope="module")
def built(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Groups, TrainingSet]:
    """Sound groups as the step writes them, and their training set."""
    out = tmp_path_factory.mktemp("built")
    outcome = generate(inputs, out)
    assert outcome["figures"]["checks"] > 10 and outcome["figures"]["refused"] == []
    assert (out / "run/data_docs/generate_groups/index.html").is_file()
    return read_groups(out / "groups"), TrainingSet.load(inputs / "training_set")


def judge(folder: Path, groups: Groups, data: TrainingSet) -> dict:
    """The gate alone on groups; the outcome's figures. DataRefused goes through."""
    with Step("generate_groups", str(folder / "run")) as step:
        card = {"statistics": group_statistics(groups)}
        check(step, groups, data, preset("tiny").helper_lists, card, str(folder / "docs"))
    return step.figures


def items(change: Callable[[np.ndarray], None]) -> Callable[[Groups], Groups]:
    def altered(groups: Groups) -> Groups:
        lists_RGL = groups.lists_RGL.copy()
        change(lists_RGL)
        return replace(groups, lists_RGL=lists_RGL)

    return altered


def rewards(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Groups], Groups]:
    """Every head's opinion altered alike, and their mean with it."""

    def altered(groups: Groups) -> Groups:
        heads_RHG = change(groups.head_rewards_RHG.copy())
        return replace(groups, head_rewards_RHG=heads_RHG, rewards_RG=heads_RHG.mean(axis=1))

    return altered


def put(where: tuple, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[where] = value
        return array

    return change


DEFECTS = [
    ("distinct items in each list, found 1 of", items(lambda lists: put((3, 1, 1), lists[3, 1, 0])(lists))),
    ("every item of a list among the candidates", items(put((4, 0, 0), 12))),
    ("full lists", items(put((5, 2, slice(3, None)), -1))),
    ("finite rewards", rewards(put((6, 0, 1), np.nan))),
    ("finite rewards", rewards(put((6, 0, 1), np.inf))),
    ("no negative reward", rewards(put((7, slice(None), 0), -0.5))),
    ("the mean of its heads'", lambda groups: replace(groups, rewards_RG=groups.rewards_RG * 1.01)),
    (
        "as many lists as the preset asks for",
        lambda groups: replace(
            groups,
            lists_RGL=groups.lists_RGL[:, 1:],
            rewards_RG=groups.rewards_RG[:, 1:],
            head_rewards_RHG=groups.head_rewards_RHG[:, :, 1:],
            helpers=groups.helpers[1:],
        ),
    ),
    (
        "one group for each training request",
        lambda groups: replace(groups, request_R=put((1,), groups.request_R[0])(groups.request_R.copy())),
    ),
    (
        "a group for every training request that the ranker may learn from",
        lambda groups: Groups(
            groups.request_R[1:],
            groups.lists_RGL[1:],
            groups.rewards_RG[1:],
            groups.head_rewards_RHG[1:],
            groups.helpers,
        ),
    ),
    (
        f"at most {GROUPS_WITHOUT_SPREAD.critical:.0%} of the groups with lists that all earn the same",
        rewards(lambda heads: np.ones_like(heads)),
    ),
    (
        f"no reward above {REWARD_RANGE.critical:g} times the largest that a logged list earned",
        rewards(lambda heads: heads * 1000),
    ),
]


@pytest.mark.parametrize(("expected", "spoil"), DEFECTS)
def test_groups_that_a_ranker_must_not_learn_from_are_refused(
    built: tuple[Groups, TrainingSet], tmp_path: Path, expected: str, spoil: Callable[[Groups], Groups]
) -> None:
    groups, data = built
    with pytest.raises(DataRefused, match="the groups of .* break the data contract") as refused:
        judge(tmp_path, spoil(groups), data)
    assert expected in str(refused.value)
    assert "To mend:" in str(refused.value)
    assert (tmp_path / "docs/index.html").is_file()


def test_a_refusal_names_the_requests(built: tuple[Groups, TrainingSet], tmp_path: Path) -> None:
    groups, data = built
    spoilt = items(put((slice(0, 5), 1, 0), 12))(groups)
    with pytest.raises(DataRefused) as refused:
        judge(tmp_path, spoilt, data)
    named = [data.request_ids[row] for row in groups.request_R[:3]]
    assert all(f"request_id={name} items_outside=1" in str(refused.value) for name in named)
    assert data.request_ids[groups.request_R[3]] not in str(refused.value)


def test_noise_and_a_range_just_beyond_are_only_told(built: tuple[Groups, TrainingSet], tmp_path: Path) -> None:
    groups, data = built
    largest = prepare.largest_logged_reward(data, data.guide_indices())
    random = np.random.default_rng(0)

    def noisy(heads_RHG: np.ndarray) -> np.ndarray:
        """Heads that agree on nothing, some mean above what was ever earned."""
        return (largest * random.uniform(0.0, 2.5, heads_RHG.shape)).astype(np.float32)

    figures = judge(tmp_path, rewards(noisy)(groups), data)
    assert len(figures["warnings"]) == 2
    assert "differ by less than the reward model's noise" in figures["warnings"][0]
    assert "no reward above 1 times" in figures["warnings"][1]


def test_fewer_candidates_than_a_list_has_places_are_no_fault(inputs: Path, tmp_path: Path) -> None:
    make_training_set(tmp_path / "training_set", requests=60, candidates=LIST_LENGTH + 1)
    (tmp_path / "reward").symlink_to(inputs / "reward")
    assert generate(tmp_path, tmp_path)["figures"]["refused"] == []
