"""Challenger minus another policy, metric by metric, with intervals: what the report shows. No gate reads them.

Shapes: R evaluation requests, N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from components.evaluate_ranker import scoring
from goalrank.verdict.statistics import Comparisons

if TYPE_CHECKING:
    from components.evaluate_ranker.scoring import Answers

JUDGED, TRUE = "judged_reward", "true_reward"


def values(
    answers: Answers, positives_RN: np.ndarray, mask_RN: np.ndarray, true_R: np.ndarray | None
) -> dict[str, np.ndarray]:
    """By metric each request's value [R] of one policy's answers, NaN where the request does not define it.

    Args:
        true_R: expected reward of each list in a simulated world; None in any other.
    """
    found = {JUDGED: answers.rewards_R, **scoring.ranking_measures(answers, positives_RN, mask_RN)}
    return found if true_R is None else found | {TRUE: true_R}


def differences(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], users_R: np.ndarray, seed: int
) -> dict[str, dict[str, Any]]:
    """By metric, the mean of ours minus theirs over the requests that define it, with the verdict's own intervals:
    paired by request, bootstrapped by users, of one seed's draws.

    Metrics that no request defines, or that are finite on none, are left out.

    Returns:
        metric, mean, low, high, confidence, requests; by metric.
    """
    compared = Comparisons(len(users_R), users_R, seed=seed)
    requests = {}
    for name in ours:
        with np.errstate(invalid="ignore"):  # infinity minus infinity is not defined, and left out
            difference_R = ours[name] - theirs[name]
        defined_R = np.isfinite(difference_R)
        if defined_R.any():
            compared.add(name, np.where(defined_R, difference_R, 0.0), defined_R)
            requests[name] = int(defined_R.sum())
    return {
        name: compared.interval(name).model_dump() | {"metric": name, "requests": count}
        for name, count in requests.items()
    }
