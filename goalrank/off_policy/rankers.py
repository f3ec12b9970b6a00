"""What a ranker would have shown where lists were logged, and what a reward model expects position by position.

The target is the ranker's greedy list, which is what it serves (the explored share is the same small one whatever
ranker serves, and is left out): at each position it has the logged item or it has not, probability 1 or 0.

Legend: R requests, B of them at a time, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goalrank.dataset import TrainingSet
from goalrank.encoders import Encoded
from goalrank.off_policy.logged import Logged
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel

BATCH = 256


@dataclass(frozen=True)
class Target:
    """A policy beside the logged lists."""

    probability_RL: np.ndarray
    """Of the logged item at that position."""
    model_value_R: np.ndarray
    """The reward model's expectation of the policy's own lists."""


def greedy_targets(
    data: TrainingSet, logged: Logged, rankers: dict[str, Ranker], judge: RewardModel
) -> tuple[dict[str, Target], np.ndarray]:
    """Each ranker's greedy policy, and the judge's reward of each position of the logged lists [R, L]."""
    requests, length = logged.slate_RL.shape
    model_RL = np.empty((requests, length))
    targets = {name: Target(np.empty((requests, length)), np.empty(requests)) for name in rankers}
    for first in range(0, requests, BATCH):
        rows = slice(first, min(first + BATCH, requests))
        batch = data.batch(logged.indices_R[rows])
        slate_BL = torch.from_numpy(logged.slate_RL[rows])
        with torch.inference_mode():
            judged = judge.encode(batch)
            model_RL[rows] = prefix_rewards(judge, judged, slate_BL).numpy()
            for name, ranker in rankers.items():
                own_BL = ranker.greedy(ranker.encode(batch), length)
                targets[name].probability_RL[rows] = (own_BL == slate_BL).numpy()
                targets[name].model_value_R[rows] = prefix_rewards(judge, judged, own_BL).sum(dim=1).numpy()
    return targets, model_RL


def prefix_rewards(judge: RewardModel, encoded: Encoded, lists_BL: Tensor) -> Tensor:
    """q_k(x, a_1..k) [B, L]: expected reward of position k of the list that ends there.

    The judge sees whole lists at once. Cut after k, its answer cannot depend on what stands below, which a control
    variate for weights of the positions above must not (list_level.cascade_dr).
    """
    length = lists_BL.shape[1]
    kept_LL = torch.ones(length, length, dtype=torch.bool).tril()
    prefixes_BLL = lists_BL.unsqueeze(1).expand(-1, length, -1).masked_fill(~kept_LL, -1)
    click_HBLL, like_HBLL, minutes_HBLL = judge.predict(encoded, prefixes_BLL)
    worth = judge.weights
    reward_HBLL = worth.click * click_HBLL + worth.like * like_HBLL + worth.watch_minute * minutes_HBLL
    return reward_HBLL.mean(dim=0).diagonal(dim1=-2, dim2=-1).double()
