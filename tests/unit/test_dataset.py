"""Batches and feedback say what the Parquet rows say; broken training sets are refused by name."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from goalrank.dataset import JUDGE_FOLDS, TrainingSet, batch_from_rows, fold_of
from goalrank.errors import DataRefused
from goalrank.schema import SELF_SELECTED
from tests.synthetic import make_training_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training_set")
    make_training_set(path, requests=300, candidates=12)
    return path


@pytest.fixture(scope="module")
def training_set(folder: Path) -> TrainingSet:
    return TrainingSet.load(folder)


def rewrite(folder: Path, target: Path, change) -> Path:
    """A copy of the training set with changed example rows."""
    rows = pq.read_table(folder / "examples.parquet")
    target.mkdir()
    pq.write_table(pa.Table.from_pylist(change(rows.to_pylist()), rows.schema), target / "examples.parquet")
    for name in ("users.parquet", "items.parquet", "training_set.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def test_split_by_day_and_fold(training_set: TrainingSet) -> None:
    train, evaluation = training_set.train_indices(), training_set.evaluation_indices()
    guide, judge = training_set.guide_indices(), training_set.judge_indices()
    assert len(train) and len(evaluation) and len(guide) and len(judge)
    assert (training_set.dt_E[train] < training_set.date).all()
    assert (training_set.dt_E[evaluation] == training_set.date).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([guide, judge])), train)
    assert all(fold_of(training_set.request_ids[row]) % JUDGE_FOLDS == 0 for row in judge)
    assert training_set.train_days == training_set.days[:-1]


def test_folds_never_change() -> None:
    assert fold_of("r000001") == 6650146852304183436


def test_batch_holds_the_rows_it_was_asked_for(training_set: TrainingSet) -> None:
    rows = [5, 250, 17]
    batch, feedback = training_set.batch(rows), training_set.feedback(rows)
    for at, row in enumerate(rows):
        example = training_set.examples.slice(row, 1).to_pylist()[0]
        assert batch.item_id_BN[at].tolist() == example["candidates"]
        scores = np.array(example["candidate_scores"])
        np.testing.assert_allclose(batch.score_BN[at], (scores - scores.mean()) / scores.std(), rtol=1e-5)
        user = training_set.users.history_items_UH[example["user_row"]]
        length = batch.history_items_BH.shape[1]
        np.testing.assert_array_equal(batch.history_items_BH[at], user[:length])
        assert not user[length:].any()
        slate = feedback.slate_BL[at].tolist()
        assert [example["candidates"][index] for index in slate] == example["slate"]
        assert feedback.click_BL[at].tolist() == example["clicks"]
        np.testing.assert_allclose(feedback.watch_seconds_BL[at], example["watch_seconds"], rtol=1e-6)
        np.testing.assert_allclose(feedback.propensity_BL[at], example["propensities"], rtol=1e-6)
    assert batch.mask_BN.all() and not feedback.self_selected_B.any()


def test_ragged_requests_are_padded_and_padding_is_empty(folder: Path, tmp_path: Path) -> None:
    def shorten(rows: list[dict]) -> list[dict]:
        for row in rows[::2]:
            kept = [at for at, item in enumerate(row["candidates"]) if item in row["slate"][:4]] + [0]
            kept = sorted(set(kept))
            for name in ("candidates", "candidate_scores", "candidate_rows"):
                row[name] = [row[name][at] for at in kept]
            for name in ("slate", "clicks", "likes"):
                row[name] = row[name][:4]
            row["propensities"] = row["watch_seconds"] = None
        return rows

    training_set = TrainingSet.load(rewrite(folder, tmp_path / "ragged", shorten))
    batch, feedback = training_set.batch([0, 1]), training_set.feedback([0, 1])
    short = int(batch.mask_BN[0].sum())
    assert short in (4, 5) and batch.mask_BN[1].all()
    for values in (batch.item_id_BN, batch.item_dense_BNF, batch.item_topics_BNT, batch.score_BN):
        assert not values[0, short:].any()
    assert feedback.slate_BL[0].tolist()[4:] == [-1, -1] and feedback.mask_BL.sum(dim=1).tolist() == [4, 6]
    assert feedback.watch_seconds_BL[0].isnan().all() and not feedback.watch_seconds_BL[1].isnan().any()
    assert feedback.propensity_BL[0].isnan().all()
    no_choice = np.flatnonzero(training_set.candidates.lengths == 4)
    assert len(no_choice) and not np.isin(no_choice, training_set.train_indices()).any()


def test_self_selected_requests_are_marked(tmp_path: Path) -> None:
    make_training_set(tmp_path, requests=30, candidates=10, self_selected=True, watch=False)
    feedback = (training_set := TrainingSet.load(tmp_path)).feedback(training_set.train_indices())
    assert feedback.self_selected_B.all() and feedback.propensity_BL.isnan().all()
    assert set(training_set.examples.column("policy").to_pylist()) == {SELF_SELECTED}


def test_the_server_builds_the_same_batch(training_set: TrainingSet, folder: Path) -> None:
    rows = [3, 120]
    examples = training_set.examples.take(rows).to_pylist()
    served = batch_from_rows(
        pq.read_table(folder / "users.parquet"),
        pq.read_table(folder / "items.parquet"),
        [example["user_row"] for example in examples],
        [example["candidate_rows"] for example in examples],
        [example["candidate_scores"] for example in examples],
    )
    trained = training_set.batch(rows)
    for field in fields(served):
        assert torch.equal(getattr(served, field.name), getattr(trained, field.name)), field.name


def test_flat_and_infinite_scores_are_harmless(training_set: TrainingSet, folder: Path) -> None:
    users, items = pq.read_table(folder / "users.parquet"), pq.read_table(folder / "items.parquet")
    batch = batch_from_rows(users, items, [1, 1], [[1, 2, 3]] * 2, [[0.3] * 3, [1.0, float("nan"), 3.0]])
    assert batch.score_BN[0].tolist() == [0, 0, 0] and batch.score_BN[1].tolist() == [-1, 0, 1]
    with pytest.raises(DataRefused, match="expected one a candidate"):
        batch_from_rows(users, items, [1], [[1, 2]], [[0.5]])


def test_a_batch_is_fast(tmp_path: Path) -> None:
    make_training_set(tmp_path, requests=600, candidates=50)
    training_set = TrainingSet.load(tmp_path)
    chosen = np.random.default_rng(0).choice(len(training_set), 128)
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        training_set.batch(chosen)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.005


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("slate", [10**9, 1, 2, 3, 4, 5], "shows item 1000000000, which is not among its candidates"),
        ("user_row", 10**6, "user_row holds 0..1000000, expected 0..239"),
        ("candidate_scores", [0.1], "has 12 candidates and 1 candidate_scores"),
        ("clicks", [1], "row 0 has 1 values of feedback beside 6 shown items"),
    ],
)
def test_broken_rows_are_refused(folder: Path, tmp_path: Path, column: str, value, message: str) -> None:
    def spoil(rows: list[dict]) -> list[dict]:
        if column == "user_row":
            rows[1]["user_row"] = 0
        rows[0][column] = value
        return rows

    with pytest.raises(DataRefused, match=message.replace(".", r"\.")):
        TrainingSet.load(rewrite(folder, tmp_path / "broken", spoil))


def test_missing_parts_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="has no examples.parquet"):
        TrainingSet.load(tmp_path)
    target = rewrite(folder, tmp_path / "narrow", lambda rows: rows)
    pq.write_table(pq.read_table(folder / "examples.parquet").drop_columns(["likes"]), target / "examples.parquet")
    with pytest.raises(DataRefused, match="lacks likes"):
        TrainingSet.load(target)


def test_synthetic_set_is_reproducible(folder: Path, tmp_path: Path) -> None:
    make_training_set(tmp_path, requests=300, candidates=12)
    for name in ("examples", "users", "items"):
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(pq.read_table(folder / f"{name}.parquet"))
    assert json.loads((tmp_path / "training_set.json").read_text())["date"] == "2026-01-03"
