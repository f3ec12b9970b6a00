"""The logged lists that an off-policy comparison can use: those whose every propensity is known.

Legend: R requests, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from goalrank.dataset import Ragged, TrainingSet
from goalrank.errors import DataRefused
from goalrank.off_policy.propensities import require_propensities
from goalrank.off_policy.result import OffPolicyResult, inconclusive, not_applicable
from goalrank.schema import LIST_LENGTH, RewardWeights

MOST = 0.9
"""Lists are compared down to the length that this share of the logged ones reaches; shorter ones are left out."""


@dataclass(frozen=True)
class Logged:
    """Requests whose logged lists have propensities, down to L positions."""

    indices_R: np.ndarray  # rows of the training set's examples
    slate_RL: np.ndarray  # candidate indices
    propensity_RL: np.ndarray
    reward_RL: np.ndarray
    users_R: np.ndarray
    asked: int
    """Requests there were before those without propensities or with shorter lists were left out."""


def read_logged(data: TrainingSet, indices_R: np.ndarray, weights: RewardWeights) -> Logged | OffPolicyResult:
    """Logged lists of these requests, or the answer where they cannot be used: not applicable, or inconclusive.

    Raises:
        DataRefused: a propensity is zero, negative, NaN, infinite or above 1. A null is not: nobody wrote it down.
    """
    asked = len(indices_R)
    chosen_R = indices_R[~data.self_selected_E[indices_R]]
    if not len(chosen_R):
        return not_applicable(f"none of {asked} logged lists was chosen by a ranker, so there are no propensities")
    _refuse_nan(data, chosen_R)
    column = Ragged(data.examples.column("propensities")).aligned(data.slates)
    propensity_RL, shown_RL = column.gather(chosen_R)
    propensity_RL = np.where(shown_RL, propensity_RL.astype(np.float64), np.nan)
    known_RL = ~np.isnan(propensity_RL)
    if not known_RL.any():
        return not_applicable(f"none of {asked} logged lists has propensities")
    # Before anything is left out: a propensity that cannot be is no less wrong beside one that nobody wrote down.
    require_propensities(propensity_RL[known_RL], "logged propensities")
    whole_R = (known_RL | ~shown_RL).all(axis=1) & shown_RL.any(axis=1)
    if not whole_R.any():
        some = int(known_RL.any(axis=1).sum())
        return inconclusive(
            f"inconclusive: {some} of {asked} logged lists have propensities, none of them for all its items; log the "
            "propensity of every item shown"
        )
    lengths_R = shown_RL.sum(axis=1)
    length = min(int(np.quantile(lengths_R[whole_R], 1 - MOST, method="lower")), LIST_LENGTH)
    kept_R = np.flatnonzero(whole_R & (lengths_R >= length))
    feedback = data.feedback(chosen_R[kept_R])
    minutes_RL = np.nan_to_num(feedback.watch_seconds_BL.numpy().astype(np.float64)) / 60
    reward_RL = (
        weights.click * feedback.click_BL.numpy().astype(np.float64)
        + weights.like * feedback.like_BL.numpy()
        + weights.watch_minute * minutes_RL
    )
    return Logged(
        indices_R=chosen_R[kept_R],
        slate_RL=feedback.slate_BL.numpy()[:, :length],
        propensity_RL=propensity_RL[kept_R, :length],
        reward_RL=reward_RL[:, :length],
        users_R=data.examples.column("user_id").to_numpy()[chosen_R[kept_R]],
        asked=asked,
    )


def _refuse_nan(data: TrainingSet, indices_R: np.ndarray) -> None:
    """NaN is no null: somebody wrote down what is not a probability. Arrays cannot tell the two apart, Arrow can."""
    lists = data.examples.column("propensities").take(pa.array(indices_R))
    flat = lists.combine_chunks().flatten().drop_null()
    wrong = int(pc.sum(pc.is_nan(flat)).as_py() or 0)
    if wrong:
        raise DataRefused(
            f"logged propensities: {wrong} NaN among {len(flat)}, expected probabilities in (0, 1], or null where "
            "unknown; check_logs refuses such a day, so these features were not made from checked logs"
        )
