"""Groups made in parts are the groups of one piece, to the bit; a part that is missing, twice or damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import DataRefused, UsageError
from goalrank.group_parts import CARD, WEIGHTS, read_parts, write_part
from goalrank.groups import Groups, build_groups, groups_digest, share_of, write_groups
from goalrank.presets import preset
from goalrank.reward import RewardModel
from tests.synthetic import make_training_set

HELPERS, BATCH = 9, 8

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = tmp_path_factory.mktemp("training_set")
    make_training_set(folder, requests=120, candidates=12)
    return TrainingSet.load(folder)


def made(training_set: TrainingSet, part: int = 0, parts: int = 1) -> Groups:
    torch.manual_seed(0)
    reward = RewardModel(ModelSizes.from_preset(preset("tiny"))).eval()
    indices = training_set.guide_indices()
    return build_groups(training_set, indices, reward, HELPERS, 1, batch_requests=BATCH, part=part, parts=parts)


@pytest.fixture(scope="module")
def whole(training_set: TrainingSet) -> Groups:
    return made(training_set)


def written(training_set: TrainingSet, out: Path, parts: int) -> list[Path]:
    folders = [out / f"part-{part}" for part in range(parts)]
    for part, folder in enumerate(folders):
        write_part(folder, made(training_set, part, parts), part, parts)
    return folders


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_parts_are_the_groups_of_one_piece(
    training_set: TrainingSet, whole: Groups, tmp_path: Path, parts: int
) -> None:
    folders = written(training_set, tmp_path, parts)
    joined = read_parts(folders[::-1])  # in whatever order they come
    write_groups(tmp_path / "joined", joined)
    write_groups(tmp_path / "whole", whole)
    assert groups_digest(tmp_path / "joined") == groups_digest(tmp_path / "whole")
    assert joined.request_R.tolist() == training_set.guide_indices().tolist()
    np.testing.assert_array_equal(joined.head_rewards_RHG, whole.head_rewards_RHG)


@pytest.mark.parametrize("requests", [1, 8, 9, 100])
@pytest.mark.parametrize("parts", [1, 2, 7, 50])
def test_shares_are_whole_batches_and_cover_everything(requests: int, parts: int) -> None:
    shares = [share_of(part, parts, requests, BATCH) for part in range(parts)]
    assert [row for share in shares for row in range(requests)[share]] == list(range(requests))
    assert all(share.start % BATCH == 0 for share in shares if share.start < share.stop)
    batches = [-(-(share.stop - share.start) // BATCH) for share in shares]
    assert max(batches) - min(batches) <= 1


@pytest.mark.parametrize(("part", "parts"), [(2, 2), (-1, 2), (0, 0)])
def test_no_such_part(part: int, parts: int) -> None:
    with pytest.raises(UsageError, match="expected a number from 0"):
        share_of(part, parts, 10)


def _of_another(folders: list[Path]) -> None:
    card = json.loads((folders[1] / CARD).read_text())
    (folders[1] / CARD).write_text(json.dumps(card | {"parts": 3}))


def _flipped(folders: list[Path]) -> None:
    content = bytearray((folders[1] / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folders[1] / WEIGHTS).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folders: folders.pop(), r"parts \[0\] of \[2\] of the groups found, expected all of one"),
        (lambda folders: folders.append(folders[0]), "part 0 of the groups found twice"),
        (lambda folders: (folders[1] / CARD).unlink(), "cannot be read"),
        (_of_another, r"parts \[0, 1\] of \[2, 3\]"),
        (_flipped, "is not what its card says"),
    ],
    ids=["missing", "twice", "no card", "of another making", "flipped bit"],
)
def test_parts_that_do_not_make_a_whole(training_set: TrainingSet, tmp_path: Path, spoil, said: str) -> None:
    folders = written(training_set, tmp_path, 2)
    spoil(folders)
    with pytest.raises(DataRefused, match=said):
        read_parts(folders)
