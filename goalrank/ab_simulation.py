"""An A/B test lived in the simulated world: each arm's policy answers its users' requests, the world answers back.

The days are counterfactual: users, items and requests are those the world has on these days, the lists are the arms',
and feedback to them is sampled by the world's own rules. Nothing is written anywhere.

Legend: R requests of a day, B of them at a time, N candidates, L list length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goalrank.ab_test import POSITIVE_SECONDS, AbTest, Look
from goalrank.dataset import RequestBatch
from goalrank.errors import ModelRefused
from goalrank.schema import LIST_LENGTH
from goalrank.simulator.config import WorldConfig
from goalrank.simulator.feedback import Feedback, expected_reward, sample_feedback
from goalrank.simulator.traffic import Requests, day_requests
from goalrank.simulator.world import FIRST_USER_ID, stream

BATCH = 256

Rank = Callable[[RequestBatch, int], Tensor]
"""(batch, length) -> lists_BL of candidate indices, -1 at the end of a list that is shorter."""

Features = Callable[[Requests, np.ndarray], RequestBatch]
"""(a day's requests, rows of them) -> what the policies may know of these requests."""


@dataclass(frozen=True)
class Day:
    """One lived day: the look at its end, and what only a simulated world can tell."""

    look: Look
    true_reward: dict[str, float]  # r* of each arm's lists since the start, averaged as rewards are: over users


def live(
    test: AbTest,
    config: WorldConfig,
    first_day: int,
    days: int,
    policies: Mapping[str, Rank],
    features: Features,
    *,
    length: int = LIST_LENGTH,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Day]:
    """Live `days` days from `first_day` on, and yield each; whoever listens may stop after any of them.

    Args:
        test: its arms are the keys of `policies`; its salt also seeds the feedback.
        progress: told (requests answered, requests in all).

    Raises:
        ModelRefused: a policy gives a list that is not `length` (or all) distinct candidates.
    """
    users = config.user_count(first_day + days) + FIRST_USER_ID
    arm_U, true_U, lists_U = np.full(users, -1), np.zeros(users), np.zeros(users)
    total, done = config.requests_per_day * days, 0
    for day in range(first_day, first_day + days):
        requests = day_requests(config, day)
        user_R = requests.user_R + FIRST_USER_ID
        arm_R = test.arm_numbers(user_R)
        lists_RL = np.full((len(user_R), length), -1, dtype=np.int64)
        for number, arm in enumerate(test.arms):
            rows_r = np.flatnonzero(arm_R == number)
            for start in range(0, len(rows_r), BATCH):
                rows_B = rows_r[start : start + BATCH]
                lists_RL[rows_B] = _answer(arm, policies[arm], features(requests, rows_B), length)
                done += len(rows_B)
                if progress is not None:
                    progress(done, total)
        facts = requests.facts
        feedback = sample_feedback(facts, lists_RL, stream(config, f"ab_test {test.salt}", day))
        test.add(user_R, metrics_of(feedback))
        true_R = expected_reward(facts, lists_RL[:, None])[:, 0]
        arm_U[user_R] = arm_R
        np.add.at(true_U, user_R, true_R)
        np.add.at(lists_U, user_R, 1.0)
        mean_U = true_U / np.maximum(lists_U, 1.0)
        truth = {
            arm: float(mean_U[arm_U == number].mean()) if (arm_U == number).any() else 0.0
            for number, arm in enumerate(test.arms)
        }
        yield Day(test.look(config.date_of(day).isoformat()), truth)


def metrics_of(feedback: Feedback) -> dict[str, np.ndarray]:
    """Each of ab_test.METRICS for R lists, (R,)."""
    satisfied_RL = (feedback.like > 0) | (feedback.watch_seconds >= POSITIVE_SECONDS)
    return {
        "reward": feedback.reward(),
        "clicks": feedback.click.sum(axis=1).astype(np.float64),
        "likes": feedback.like.sum(axis=1).astype(np.float64),
        "watch_seconds": feedback.watch_seconds.sum(axis=1),
        "positives": ((feedback.click > 0) & satisfied_RL).sum(axis=1).astype(np.float64),
    }


def _answer(arm: str, rank: Rank, batch: RequestBatch, length: int) -> np.ndarray:
    """The policy's lists, checked: (B, L)."""
    with torch.inference_mode():
        lists_BL = rank(batch, length).cpu().numpy()
    mask_BN = batch.mask_BN.numpy()
    wanted_B = np.minimum(mask_BN.sum(axis=1), length)
    real_BL = np.arange(length) < wanted_B[:, None]
    if lists_BL.shape != real_BL.shape:
        raise ModelRefused(f"policy {arm} gave lists of shape {lists_BL.shape}, expected {real_BL.shape}")
    inside_BL = (lists_BL >= 0) & (lists_BL < mask_BN.shape[1])
    known_BL = inside_BL & np.take_along_axis(mask_BN, np.clip(lists_BL, 0, mask_BN.shape[1] - 1), axis=1)
    sorted_BL = np.sort(np.where(real_BL, lists_BL, -1 - np.arange(length)), axis=1)
    wrong_B = (real_BL & ~known_BL).any(axis=1) | (sorted_BL[:, 1:] == sorted_BL[:, :-1]).any(axis=1)
    if wrong_B.any():
        row = int(np.flatnonzero(wrong_B)[0])
        raise ModelRefused(
            f"policy {arm} gave the list {lists_BL[row].tolist()} for a request of {int(mask_BN[row].sum())} "
            f"candidates, expected {int(wanted_B[row])} distinct ones"
        )
    return np.where(real_BL, lists_BL, -1)
