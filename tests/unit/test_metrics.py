"""Measures against hand-computed cases and plain restatements of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from goalrank import metrics

K = 6


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lists, positives, scores and masks of 200 requests, some without positives, some lists short."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 15)).round(1)  # rounded: ties
    mask = rng.random((200, 15)) < 0.9
    positives = (rng.random((200, 15)) < 0.15) & mask
    lists = np.argsort(rng.random((200, 15)), axis=1)[:, :8]
    lists[::7, 4:] = -1
    return lists, positives, scores, mask


def test_by_hand() -> None:
    lists = np.array([[3, 0, 2]])
    positives = np.array([[True, True, False, False, True]])  # 0, 1, 4; the list finds 0 in second place
    assert metrics.hit_at_k(lists, positives, 3) == pytest.approx(1 / 3)
    assert metrics.any_hit_at_k(lists, positives, 3) == 1 and metrics.any_hit_at_k(lists, positives, 1) == 0
    assert metrics.map_at_k(lists, positives, 3) == pytest.approx((1 / 2) / 3)
    assert metrics.f1_at_k(lists, positives, 3) == pytest.approx(1 / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg_at_k(lists, positives, 3) == pytest.approx((1 / math.log2(3)) / ideal)


def test_perfect_lists_score_one() -> None:
    positives = np.array([[True, False, True, False]])
    for measure in (metrics.hit_at_k, metrics.ndcg_at_k, metrics.map_at_k, metrics.any_hit_at_k):
        assert measure(np.array([[2, 0, 1]]), positives, 3) == pytest.approx(1)


def test_against_plain_restatements(drawn) -> None:
    lists, positives, _, _ = drawn
    found = {name: getattr(metrics, f"{name}_at_k")(lists, positives, K) for name in ("hit", "ndcg", "map", "f1")}
    for row in range(len(lists)):
        wanted = set(np.flatnonzero(positives[row]))
        if not wanted:
            assert all(math.isnan(values[row]) for values in found.values())
            continue
        top = [item for item in lists[row, :K].tolist() if item >= 0]
        hits = [place for place, item in enumerate(top, 1) if item in wanted]
        recall, precision = len(hits) / len(wanted), len(hits) / K
        gained = sum(1 / math.log2(place + 1) for place in hits)
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(K, len(wanted)) + 1))
        precisions = [count / place for count, place in enumerate(hits, 1)]
        assert found["hit"][row] == pytest.approx(recall)
        assert found["ndcg"][row] == pytest.approx(gained / ideal)
        assert found["map"][row] == pytest.approx(sum(precisions) / min(K, len(wanted)))
        assert found["f1"][row] == pytest.approx(2 * precision * recall / (precision + recall) if hits else 0)


def test_auc_counts_pairs(drawn) -> None:
    _, positives, scores, mask = drawn
    values = metrics.auc(scores, positives, mask)
    for row in range(len(scores)):
        good = scores[row, positives[row]]
        bad = scores[row, mask[row] & ~positives[row]]
        if not len(good) or not len(bad):
            assert math.isnan(values[row])
            continue
        pairs = [(g > b) + 0.5 * (g == b) for g in good for b in bad]
        assert values[row] == pytest.approx(np.mean(pairs))


def test_ndcg_within_shown_ignores_everything_else() -> None:
    scores = np.array([[9.0, 1.0, 2.0, 3.0]])
    positives = np.array([[True, True, False, False]])
    shown = np.array([[False, True, True, True]])  # order 3, 2, 1: the only shown positive is last
    assert metrics.ndcg_within_shown(scores, positives, shown) == pytest.approx(1 / math.log2(4))


def test_lists_shorter_than_k() -> None:
    assert metrics.hit_at_k(np.array([[0]]), np.array([[True, True]]), 6) == pytest.approx(0.5)


def test_calibration() -> None:
    predicted = np.repeat([0.1, 0.3], 50)
    observed = np.concatenate([np.repeat([1, 0], [5, 45]), np.repeat([1, 0], [20, 30])]).astype(float)
    table = metrics.reliability(predicted, observed, bins=2)
    assert [row["count"] for row in table] == [50, 50]
    assert [row["observed"] for row in table] == pytest.approx([0.1, 0.4])
    assert metrics.calibration_error(table) == pytest.approx(0.05)
    assert metrics.reliability(np.array([]), np.array([])) == [] and math.isnan(metrics.calibration_error([]))


def test_rank_correlation_and_binary_auc() -> None:
    assert metrics.rank_correlation(np.arange(5), np.arange(5) ** 3) == pytest.approx(1)
    assert math.isnan(metrics.rank_correlation(np.ones(5), np.arange(5)))
    assert metrics.binary_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(0.75)
    assert math.isnan(metrics.binary_auc(np.array([0.1]), np.array([1])))
