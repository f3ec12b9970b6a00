"""The retriever: it finds planted structure, only in what it is given, and always the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from goalrank.candidates import CANDIDATES, NEIGHBOURHOOD, CandidateMaker
from goalrank.importing import Source, write_import
from goalrank.offline_protocol import (
    HISTORY,
    HISTORY_DAY,
    TEST,
    TRAIN,
    VALIDATION,
    Ratings,
    core_filter,
    make_requests,
    sequences,
)
from goalrank.retriever import Retriever, fit_retriever
from goalrank.schema import LIST_LENGTH


def two_tastes(users: int, items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Even users touch even items, odd users odd ones."""
    random = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(users) for i in range(items) if u % 2 == i % 2 and random.random() < 0.3]
    user_R, item_R = np.array(pairs).T
    return user_R, item_R


@pytest.mark.parametrize(("users", "items"), [(30, 20), (150, 120)])  # both ways to factorise
def test_items_of_ones_own_taste_score_higher(users: int, items: int) -> None:
    user_R, item_R = two_tastes(users, items, seed=0)
    retriever = fit_retriever(user_R, item_R, users, items, seed=0, factors=4)
    scores_UI = retriever.all_scores(np.arange(users))
    same_UI = np.arange(users)[:, None] % 2 == np.arange(items) % 2
    assert scores_UI[same_UI].mean() > 10 * abs(scores_UI[~same_UI].mean())
    assert retriever.user_UK.shape == (users, 4) and retriever.item_IK.shape == (items, 4)


def test_scores_are_the_truncated_svd() -> None:
    user_R, item_R = two_tastes(150, 120, seed=1)
    matrix = np.zeros((150, 120))
    matrix[user_R, item_R] = 1
    left, values, right = np.linalg.svd(matrix)
    expected = (left[:, :5] * values[:5]) @ right[:5]
    retriever = fit_retriever(np.tile(user_R, 2), np.tile(item_R, 2), 150, 120, seed=0, factors=5)  # pairs count once
    np.testing.assert_allclose(retriever.all_scores(np.arange(150)), expected, atol=1e-5)


def test_same_interactions_same_scores_and_pairs_as_all() -> None:
    user_R, item_R = two_tastes(150, 120, seed=2)
    first, again = (fit_retriever(user_R, item_R, 150, 120, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.all_scores(np.arange(150)), again.all_scores(np.arange(150)))
    chosen_QN = np.random.default_rng(0).integers(0, 120, (150, 7))
    picked_QN = np.take_along_axis(first.all_scores(np.arange(150)), chosen_QN, axis=1)
    np.testing.assert_allclose(first.scores(np.arange(150), chosen_QN), picked_QN, atol=2e-6)


def test_who_has_no_interaction_scores_zero() -> None:
    user_R, item_R = two_tastes(150, 120, seed=3)
    retriever = fit_retriever(user_R, item_R, 151, 121, seed=0, factors=4)
    np.testing.assert_allclose(retriever.all_scores(np.array([150])), 0.0, atol=1e-6)
    np.testing.assert_allclose(retriever.all_scores(np.arange(150))[:, 120], 0.0, atol=1e-6)


def test_core_filter_goes_on_until_nothing_changes() -> None:
    """Item 2 has one user; without it user 2 has one item; without that item 1 has two left: fine."""
    user_R = np.array([0, 0, 1, 1, 2, 2])
    item_R = np.array([0, 1, 0, 1, 1, 2])
    np.testing.assert_array_equal(core_filter(user_R, item_R, 2), [True, True, True, True, False, False])
    assert not core_filter(user_R, item_R, 3).any()


def long_sequences(users: int = 60, items: int = 400, seed: int = 0) -> Ratings:
    random = np.random.default_rng(seed)
    weight_I = 1 / (np.arange(items) + 20.0)
    user_R, item_R, time_R = [], [], []
    for user in range(users):
        count = int(random.integers(12, 90))
        chosen = random.choice(items, count, replace=False, p=weight_I / weight_I.sum())
        user_R += [user] * count
        item_R += chosen.tolist()
        time_R += sorted(random.integers(0, 20, count).tolist())
    return Ratings(np.array(user_R), np.array(item_R), np.full(len(user_R), 5.0), np.array(time_R))


def test_slates_count_back_from_the_end_and_lie_in_order_over_the_days() -> None:
    rows = sequences(long_sequences(), core=1)
    requests = make_requests(rows, seed=0)
    for user, length in enumerate(rows.length_U):
        mine = requests.take(np.flatnonzero(requests.user_Q == user))
        end_Q = mine.start_Q + mine.length_Q
        assert mine.start_Q[0] == rows.start_U[user] and end_Q[-1] == rows.start_U[user] + length
        np.testing.assert_array_equal(mine.start_Q[1:], end_Q[:-1])
        slates = (length - length // 2) // LIST_LENGTH
        split = [HISTORY] * (len(mine) - slates) + [TRAIN] * max(slates - 2, 0) + [VALIDATION, TEST][-min(slates, 2) :]
        assert mine.split_Q.tolist() == split
        assert (np.diff(mine.day_Q) >= 0).all() and (np.diff(mine.time_Q) > 0).all()
    for split, day in ((HISTORY, 0), (TEST, requests.day_Q.max()), (VALIDATION, requests.day_Q.max() - 1)):
        np.testing.assert_array_equal(requests.day_Q[requests.split_Q == split], day)
    train_days, counts = np.unique(requests.day_Q[requests.split_Q == TRAIN], return_counts=True)
    np.testing.assert_array_equal(train_days, np.arange(1, requests.day_Q.max() - 1))
    assert counts.max() - counts.min() <= 1


def test_nothing_of_the_second_half_reaches_the_scores(tmp_path: Path) -> None:
    """Everybody's second half is exchanged for other items: the histories' scores stay."""
    ratings = long_sequences()
    random = np.random.default_rng(9)
    other_R = ratings.item_id_R.copy()
    for user in np.unique(ratings.user_id_R):
        mine = np.flatnonzero(ratings.user_id_R == user)
        late = mine[len(mine) // 2 :]
        other_R[late] = random.choice(np.setdiff1d(np.arange(400), other_R[mine[: len(mine) // 2]]), len(late), False)
    exchanged = replace(ratings, item_id_R=other_R)
    scores = []
    for name, some in (("one", ratings), ("other", exchanged)):
        titles = dict.fromkeys(range(400), "x")
        source = Source("test", (), some, core=1, click_from=4, like_from=5, titles=titles)
        write_import(source, str(tmp_path / name), "matched", seed=0)
        history = pq.read_table(tmp_path / name / "requests" / f"dt={HISTORY_DAY}").to_pylist()
        early = {(row["user_id"], item): score for row in history for item, score in scored(row)}
        rows = sequences(some, core=1)
        early_R = rows.in_first_half
        kept = set(zip(rows.user_ids_U[rows.user_R[early_R]], rows.item_ids_I[rows.item_R[early_R]], strict=True))
        scores.append({pair: early[pair] for pair in kept})
    assert scores[0].keys() == scores[1].keys() and len(scores[0]) > 1000
    np.testing.assert_allclose([scores[0][pair] for pair in scores[1]], list(scores[1].values()), atol=1e-5)


def scored(row: dict) -> list[tuple[int, float]]:
    return list(zip(row["candidates"], row["candidate_scores"], strict=True))


def test_retrieved_candidates_are_the_best_unseen() -> None:
    rows = sequences(long_sequences(), core=1)
    requests = make_requests(rows, seed=0)
    random = np.random.default_rng(1)
    anyhow = Retriever(random.normal(size=(len(rows.user_ids_U), 3)), random.normal(size=(len(rows.item_ids_I), 3)))
    item_QN, score_QN = CandidateMaker(rows, anyhow, "retrieved", seed=0).make(requests)
    for q in np.flatnonzero(requests.split_Q != HISTORY):
        user, end = requests.user_Q[q], requests.start_Q[q] + LIST_LENGTH
        score_I = anyhow.item_IK @ anyhow.user_UK[user]
        touched = set(rows.item_R[rows.start_U[user] : end])
        best = [item for item in np.argsort(-score_I) if item not in touched][: CANDIDATES - LIST_LENGTH]
        assert set(item_QN[q]) == set(best) | set(rows.item_R[end - LIST_LENGTH : end])
        np.testing.assert_allclose(score_QN[q], score_I[item_QN[q]], atol=1e-6)


def test_matched_candidates_are_neighbours_in_popularity() -> None:
    rows = sequences(long_sequences(items=1500), core=1)
    requests = make_requests(rows, seed=0)
    nothing = Retriever(np.zeros((len(rows.user_ids_U), 1)), np.zeros((len(rows.item_ids_I), 1)))
    item_QN, _ = CandidateMaker(rows, nothing, "matched", seed=0).make(requests)
    counts_I = np.bincount(rows.item_R[rows.in_first_half], minlength=len(rows.item_ids_I))
    rank_I = np.empty(len(counts_I), dtype=int)
    rank_I[np.lexsort((np.arange(len(counts_I)), -counts_I))] = np.arange(len(counts_I))
    near = []
    for q in np.flatnonzero(requests.split_Q != HISTORY):
        slate = rows.item_R[requests.start_Q[q] : requests.start_Q[q] + LIST_LENGTH]
        extra = np.setdiff1d(item_QN[q], slate)
        assert len(extra) == CANDIDATES - LIST_LENGTH
        near += np.abs(rank_I[extra][:, None] - rank_I[slate]).min(axis=1).tolist()
    assert max(near) <= NEIGHBOURHOOD and np.mean(np.array(near) <= 3) < 0.5  # near, and not the nearest only


def test_a_used_up_neighbourhood_widens_to_all_there_is() -> None:
    """60 items, users who saw up to 54: whoever has fewer than 44 unseen is offered every one of them."""
    random = np.random.default_rng(0)
    items = np.concatenate([random.permutation(60)[:54] for _ in range(5)])
    ratings = Ratings(np.repeat(np.arange(5), 54), items, np.full(270, 4.0), np.tile(np.arange(54), 5))
    rows = sequences(ratings, core=1)
    requests = make_requests(rows, seed=0)
    nothing = Retriever(np.zeros((5, 1)), np.zeros((len(rows.item_ids_I), 1)))
    for kind in ("matched", "retrieved"):
        item_QN, _ = CandidateMaker(rows, nothing, kind, seed=0).make(requests)
        for q in np.flatnonzero(requests.split_Q != HISTORY):
            seen = rows.item_R[rows.start_U[requests.user_Q[q]] : requests.start_Q[q]]
            real = item_QN[q][item_QN[q] >= 0]
            assert len(set(real)) == len(real) == min(CANDIDATES, len(rows.item_ids_I) - len(seen))
            assert not set(real) & set(seen)
