"""Challenger against champion by what users did with the logged lists, not by what a model thinks of their own.

The judge serves as control variate alone: it learnt from the training days' own third of requests and has seen nothing
of the evaluation day, so no cross-fitting is needed, and where it errs the logged feedback corrects it.
"""

from __future__ import annotations

import numpy as np

from goalrank.dataset import TrainingSet
from goalrank.errors import ModelRefused
from goalrank.off_policy.comparison import compare_policies
from goalrank.off_policy.logged import read_logged
from goalrank.off_policy.rankers import greedy_targets
from goalrank.off_policy.result import OffPolicyResult
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel


def compare(
    data: TrainingSet,
    indices_R: np.ndarray,
    challenger: Ranker,
    champion: Ranker | None,
    judge: RewardModel,
    seed: int,
) -> OffPolicyResult:
    """Is the challenger shown to earn less than the champion, or, without one, less than the logged lists did?

    Args:
        data: tonight's training set.
        indices_R: the evaluation requests.
        challenger: tonight's ranker.
        champion: the serving one; None on a first night.
        judge: the reward model that guided no ranker.
        seed: the comparison draws nothing at random, so it has no effect yet.

    Raises:
        DataRefused: a logged propensity is zero, NaN, or above 1.
        ModelRefused: the judge's rewards are not finite.
    """
    logged = read_logged(data, indices_R, judge.weights)
    if isinstance(logged, OffPolicyResult):
        return logged
    rankers = {"challenger": challenger} | ({"champion": champion} if champion is not None else {})
    targets, model_RL = greedy_targets(data, logged, rankers, judge)
    values = [model_RL, *(target.model_value_R for target in targets.values())]
    if not all(np.isfinite(found).all() for found in values):
        raise ModelRefused("the judge's rewards are not finite, expected numbers; train it again")
    left_out = logged.asked - len(logged.indices_R)
    return compare_policies(
        logged.reward_RL,
        logged.propensity_RL,
        logged.users_R,
        model_RL,
        targets["challenger"],
        targets.get("champion"),
        note=f"{left_out} requests left out, without propensities or with shorter lists" if left_out else "",
    )
