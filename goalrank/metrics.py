"""Measures of ranked lists, request by request, and of a reward model's calibration and order.

Ranking measures return one value a request, NaN where the request has no positive, so that callers average, pair and
test over requests (method.md, offline protocol). A list holds candidate indices, best first, -1 where it is shorter.

Legend: R requests, L positions of a list, N candidates, k the cut-off.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata, spearmanr


def relevance(lists_RL: np.ndarray, positives_RN: np.ndarray, k: int) -> np.ndarray:
    """Whether each of the first k places holds a positive: bool [R, k]; short lists are filled with False."""
    top_RK = lists_RL[:, :k]
    found_RK = np.take_along_axis(positives_RN, np.maximum(top_RK, 0), axis=1) & (top_RK >= 0)
    return np.pad(found_RK, ((0, 0), (0, max(0, k - found_RK.shape[1]))))


def hit_at_k(lists_RL: np.ndarray, positives_RN: np.ndarray, k: int) -> np.ndarray:
    """H@k [R]: positives among the first k, as a share of the request's positives."""
    return _divided(relevance(lists_RL, positives_RN, k).sum(axis=1), positives_RN.sum(axis=1))


def any_hit_at_k(lists_RL: np.ndarray, positives_RN: np.ndarray, k: int) -> np.ndarray:
    """[R]: 1 where a positive is among the first k, else 0."""
    found_R = relevance(lists_RL, positives_RN, k).any(axis=1).astype(float)
    return np.where(positives_RN.any(axis=1), found_R, np.nan)


def ndcg_at_k(lists_RL: np.ndarray, positives_RN: np.ndarray, k: int) -> np.ndarray:
    """Binary NDCG@k [R]: gain 1/log2(place + 1), against the best list of k."""
    discount_K = 1 / np.log2(np.arange(2, k + 2))
    gained_R = relevance(lists_RL, positives_RN, k) @ discount_K
    ideal = np.concatenate([[0.0], np.cumsum(discount_K)])
    return _divided(gained_R, ideal[np.minimum(positives_RN.sum(axis=1), k)])


def map_at_k(lists_RL: np.ndarray, positives_RN: np.ndarray, k: int) -> np.ndarray:
    """Average precision at k [R]: precision at each positive's place, over min(positives, k)."""
    found_RK = relevance(lists_RL, positives_RN, k)
    precision_RK = np.cumsum(found_RK, axis=1) / np.arange(1, k + 1)
    return _divided((precision_RK * found_RK).sum(axis=1), np.minimum(positives_RN.sum(axis=1), k))


def f1_at_k(lists_RL: np.ndarray, positives_RN: np.ndarray, k: int) -> np.ndarray:
    """F1@k [R]: harmonic mean of hits / k and hits / positives."""
    hits_R = relevance(lists_RL, positives_RN, k).sum(axis=1)
    positives_R = positives_RN.sum(axis=1)
    return np.where(positives_R > 0, 2 * hits_R / (positives_R + k), np.nan)


def auc(scores_RN: np.ndarray, positives_RN: np.ndarray, mask_RN: np.ndarray) -> np.ndarray:
    """AUC over the candidates [R]: chance that a positive scores above a negative, ties half; NaN without both."""
    # Masked places rank below all others; as many of them for every request as there are, so they subtract out.
    ranks_RN = rankdata(np.where(mask_RN, scores_RN, -np.inf), axis=1)
    hidden_R = (~mask_RN).sum(axis=1)
    wanted_RN = positives_RN & mask_RN
    positives_R = wanted_RN.sum(axis=1)
    negatives_R = mask_RN.sum(axis=1) - positives_R
    above_R = (ranks_RN * wanted_RN).sum(axis=1) - positives_R * (positives_R + 1) / 2 - positives_R * hidden_R
    return _divided(above_R, positives_R * negatives_R)


def ndcg_within_shown(scores_RN: np.ndarray, positives_RN: np.ndarray, shown_RN: np.ndarray) -> np.ndarray:
    """NDCG of the shown items alone in the order of their scores [R]: no item that nobody saw is in play."""
    order_RN = np.argsort(-np.where(shown_RN, scores_RN, -np.inf), axis=1, kind="stable")
    return ndcg_at_k(order_RN, positives_RN & shown_RN, max(int(shown_RN.sum(axis=1).max(initial=0)), 1))


def binary_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUC of one set of scores against 0/1 labels, both [n]; NaN where all labels are alike."""
    labels = labels.astype(bool)[None]
    return float(auc(scores[None], labels, np.ones_like(labels))[0])


def reliability(predicted: np.ndarray, observed: np.ndarray, bins: int = 10) -> list[dict]:
    """Bins of equal count over the predictions [n], for a reliability plot: {"predicted", "observed", "count"} each."""
    order = np.argsort(predicted, kind="stable")
    table = []
    for part in np.array_split(order, min(bins, len(order))) if len(order) else []:
        mean = {"predicted": float(predicted[part].mean()), "observed": float(observed[part].mean())}
        table.append({**mean, "count": len(part)})
    return table


def calibration_error(table: list[dict]) -> float:
    """Expected calibration error: mean gap between predicted and observed over the bins, weighted by count."""
    total = sum(row["count"] for row in table)
    if not total:
        return float("nan")
    return sum(abs(row["predicted"] - row["observed"]) * row["count"] for row in table) / total


def rank_correlation(predicted: np.ndarray, observed: np.ndarray) -> float:
    """Spearman's rank correlation of two [n]; NaN with fewer than three pairs or where one side is constant."""
    if len(predicted) < 3 or np.ptp(predicted) == 0 or np.ptp(observed) == 0:
        return float("nan")
    return float(spearmanr(predicted, observed).statistic)


def _divided(value_R: np.ndarray, by_R: np.ndarray) -> np.ndarray:
    """Quotient, NaN where there is nothing to divide by."""
    return np.divide(value_R, by_R, out=np.full(len(value_R), np.nan), where=by_R > 0, casting="unsafe")
