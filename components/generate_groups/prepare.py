"""The columns the suites judge, derived from the groups: narrow pandas frames, no lists in them.

Legend: R requests, G helper lists a request, L list length, H heads of the reward ensemble.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from goalrank.dataset import TrainingSet
from goalrank.groups import Groups
from goalrank.schema import LIST_LENGTH, RewardWeights

SAME_REWARD = 1e-6
"""Rewards that differ by less than this part of their size are the same: float32 keeps about seven digits."""


def group_rows(groups: Groups, data: TrainingSet, helper_lists: int) -> pd.DataFrame:
    """One row a group: request_id, what is wrong with its lists and rewards (counts), and its spread.

    Columns: rows_of_request, lists_missing, items_missing, items_outside, items_repeated, rewards_not_finite,
    rewards_negative, rewards_off_mean, smallest_reward, largest_reward, distinct_lists.
    """
    lists_RGL, rewards_RG = groups.lists_RGL, groups.rewards_RG
    R, G, L = lists_RGL.shape
    candidates_R = data.candidates.lengths[groups.request_R]
    filled_RGL = lists_RGL >= 0
    # Sorted, equal items of a list lie beside each other and empty places (-1) come first.
    sorted_RGL = np.sort(lists_RGL, axis=2)
    repeated_RGL = (sorted_RGL[:, :, 1:] == sorted_RGL[:, :, :-1]) & (sorted_RGL[:, :, 1:] >= 0)
    expected_R = np.minimum(L, candidates_R)
    finite_RG = np.isfinite(rewards_RG)
    heads_RHG = groups.head_rewards_RHG
    with np.errstate(invalid="ignore"):  # what is not finite has a column of its own
        off_RG = np.abs(heads_RHG.mean(axis=1, dtype=np.float64) - rewards_RG)
        off_mean_RG = ~(off_RG <= SAME_REWARD * 10 * np.maximum(np.abs(rewards_RG), 1.0)) & finite_RG
    ids = [data.request_ids[row] for row in groups.request_R]
    frame = pd.DataFrame(
        {
            "request_id": ids,
            "lists_missing": helper_lists - G,
            "items_missing": (expected_R[:, None] - filled_RGL.sum(axis=2)).clip(min=0).sum(axis=1),
            "items_outside": ((lists_RGL >= candidates_R[:, None, None]) | (lists_RGL < -1)).sum(axis=(1, 2)),
            "items_repeated": repeated_RGL.sum(axis=(1, 2)),
            "rewards_not_finite": (~finite_RG).sum(axis=1) + (~np.isfinite(heads_RHG)).sum(axis=(1, 2)),
            "rewards_negative": (rewards_RG < 0).sum(axis=1),
            "rewards_off_mean": off_mean_RG.sum(axis=1),
            "smallest_reward": rewards_RG.min(axis=1),
            "largest_reward": rewards_RG.max(axis=1),
        },
        index=range(R),
    )
    frame["rows_of_request"] = frame.groupby("request_id").request_id.transform("size")
    return frame


def whole(rows: pd.DataFrame, without_signal: float, expected_groups: int, largest_logged: float) -> pd.DataFrame:
    """One row about all groups.

    Args:
        rows: of :func:`group_rows`.
        without_signal: share of groups whose noise is not below their spread (goalrank.groups.group_statistics).
        expected_groups: requests that the ranker may learn from.
        largest_logged: of :func:`largest_logged_reward`.
    """
    size = np.maximum(np.abs(rows.largest_reward), 1.0)
    flat = (rows.largest_reward - rows.smallest_reward) <= SAME_REWARD * size
    return pd.DataFrame(
        {
            "groups": [len(rows)],
            "groups_missing": [expected_groups - len(rows)],
            "share_without_spread": [float(flat.mean())],
            "share_without_signal": [without_signal],
            "largest_reward": [float(rows.largest_reward.max())],
            "largest_logged": [largest_logged],
            "reward_against_logged": [float(rows.largest_reward.max() / largest_logged)],
        }
    )


def largest_logged_reward(data: TrainingSet, indices: np.ndarray, weights: RewardWeights | None = None) -> float:
    """The largest reward that a logged list of `indices` earned, at least that of a list clicked and liked throughout.

    Below that floor a quiet log would make an ordinary expectation look out of range.
    """
    worth = weights or RewardWeights()
    feedback = data.feedback(indices)
    minutes_BL = feedback.watch_seconds_BL.nan_to_num(0.0) / 60
    earned_BL = worth.click * feedback.click_BL + worth.like * feedback.like_BL + worth.watch_minute * minutes_BL
    return max(float(earned_BL.sum(dim=1).max()), LIST_LENGTH * (worth.click + worth.like))
