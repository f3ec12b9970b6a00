"""Next-item pretraining reads the training days only, learns, and hands over the same parts every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes, RequestEncoder
from goalrank.errors import DataRefused, ModelRefused
from goalrank.presets import preset
from goalrank.pretrain import SHARED_PARTS, copy_pretrained, pretrain, training_histories
from tests.synthetic import make_training_set

TINY = replace(preset("tiny"), pretrain_steps=80)


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    path: Path = tmp_path_factory.mktemp("training_set")
    make_training_set(path, requests=900, candidates=8, users=300, items=120)
    return TrainingSet.load(path)


def test_histories_are_the_newest_of_the_training_days(training_set: TrainingSet) -> None:
    histories = training_histories(training_set)
    rows = set(training_set.user_row_E[training_set.dt_E < training_set.date].tolist())
    newest: dict[int, int] = {}
    for row in sorted(rows, key=lambda row: training_set.user_as_of_U[row]):
        newest[int(training_set.user_id_U[row])] = row
    expected = [training_set.users.history_items_UH[row] for _, row in sorted(newest.items())]
    expected = [history for history in expected if (history != 0).sum() >= 2]
    np.testing.assert_array_equal(histories.items_UH, np.stack(expected))
    # The evaluation day's rows hold two clicks more than any of the training days'.
    longest = (training_set.users.history_items_UH != 0).sum(axis=1).max()
    assert (histories.items_UH != 0).sum(dim=1).max() < longest
    real = histories.items_UH != 0
    assert torch.equal(histories.catalogue_C[histories.codes_UH[real]], histories.items_UH[real])
    assert torch.equal(histories.catalogue_topics_C[histories.codes_UH[real]], histories.topics_UH[real])


def test_it_learns_tastes(training_set: TrainingSet) -> None:
    told: list[tuple[int, int]] = []
    encoder, figures = pretrain(training_set, TINY, seed=0, progress=lambda done, total: told.append((done, total)))
    rank = figures["curves"]["held_out_rank"]
    assert rank[-1][1] < 0.40  # 0.5 is chance
    assert told[-1] == (80, 80) and not encoder.training
    # The pretrained score alone puts what users click above what they pass over.
    batch, feedback = training_set.batch(range(300)), training_set.feedback(range(300))
    with torch.no_grad():
        match_BL = encoder(batch).match_BN.gather(1, feedback.slate_BL)
    clicked, passed = match_BL[feedback.click_BL == 1].mean(), match_BL[feedback.click_BL == 0].mean()
    assert clicked > passed + 0.1


def test_same_seed_same_weights(training_set: TrainingSet) -> None:
    short = replace(TINY, pretrain_steps=6)
    (first, _), (second, _), (other, _) = (pretrain(training_set, short, seed) for seed in (1, 1, 2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert not torch.equal(first.items.embedding.weight, other.items.embedding.weight)


def test_only_the_shared_parts_are_copied(training_set: TrainingSet) -> None:
    source, target = (RequestEncoder(ModelSizes.from_preset(TINY)) for _ in range(2))
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    copy_pretrained(source, target)
    for name, tensor in target.state_dict().items():
        expected = source.state_dict()[name] if name.startswith(SHARED_PARTS) else before[name]
        assert torch.equal(tensor, expected), name
    with pytest.raises(ModelRefused, match="does not fit"):
        copy_pretrained(source, RequestEncoder(ModelSizes.from_preset(preset("small"))))


def test_users_without_clicks_are_refused(training_set: TrainingSet) -> None:
    bare = object.__new__(TrainingSet)
    bare.__dict__.update(training_set.__dict__)
    empty = np.zeros_like(training_set.users.history_items_UH)
    bare.users = replace(training_set.users, history_items_UH=empty, history_topics_UH=empty)
    with pytest.raises(DataRefused, match="no user of the training days has two clicks"):
        pretrain(bare, TINY, seed=0)
