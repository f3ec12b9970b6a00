"""A world small enough to write every ordered list down, and its optimal policy, exact.

The ideal reward is the simulator's own r* (goalrank/simulator/feedback.py: topical fatigue, contrast, attention, early
leaving), of users with tastes of their own over one fixed set of candidates. pi*(l | u) is proportional to
exp(r*(l | u) / TEMPERATURE): the optimum of expected reward plus TEMPERATURE times entropy.

Legend: U users, F features of a user, N candidates, L list length, P = N! / (N - L)! lists, S prefixes of a list
(shorter than L), Q = (L - 1) * N.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from goalrank.simulator.config import Coefficients
from goalrank.simulator.feedback import CandidateFacts, expected_reward, single_item_value

CANDIDATES, LENGTH = 6, 3
TOPICS, HIDDEN = 2, 2
BASE_APPEAL = -1.5  # above the simulator's: three places earn enough for list effects to show
TEMPERATURE = 0.02  # of a reward of about 1: pi* spreads over some 16 of the 120 lists


@dataclass(frozen=True)
class SmallWorld:
    """Everything there is."""

    features_UF: np.ndarray
    lists_PL: np.ndarray  # candidate indices
    reward_UP: np.ndarray  # r*
    optimal_UP: np.ndarray  # pi*
    single_U: np.ndarray  # r* of the order by single-item value
    placed_SQ: np.ndarray  # 1.0 where the prefix holds that item at that place
    used_SN: np.ndarray  # bool, items of the prefix
    prefix_PL: np.ndarray  # rows of placed_SQ: what stood before each place of each list

    @property
    def entropies(self) -> np.ndarray:
        """Of pi* for each user, in nats."""
        return -(self.optimal_UP * np.log(self.optimal_UP)).sum(axis=1)

    @property
    def list_gain(self) -> float:
        """What the best list earns above the order by single-item value, as a share, mean over users."""
        return float((self.reward_UP.max(axis=1) / self.single_U - 1.0).mean())


def small_world(users: int, seed: int = 0) -> SmallWorld:
    """A world of that many users, the same for the same seed."""
    random = np.random.default_rng(seed)
    topics_NT = np.eye(TOPICS)[np.arange(CANDIDATES) % TOPICS]
    quality_N, minutes_N = random.normal(size=CANDIDATES), 0.5 * np.exp(0.3 * random.normal(size=CANDIDATES))
    hidden_NK = random.normal(size=(CANDIDATES, HIDDEN))
    taste_UT, hidden_UK = random.normal(size=(users, TOPICS)), random.normal(size=(users, HIDDEN))
    patience_U = random.normal(size=users)
    c = Coefficients()
    shape = (users, CANDIDATES)
    facts = CandidateFacts(
        coefficients=c,
        patience_R=patience_U,
        appeal_RN=BASE_APPEAL
        + c.taste * taste_UT @ topics_NT.T
        + c.quality * quality_N
        + c.hidden * hidden_UK @ hidden_NK.T / np.sqrt(HIDDEN),
        like_RN=np.full(shape, 0.2),
        watched_RN=np.full(shape, 0.6),
        minutes_RN=np.broadcast_to(minutes_N, shape),
        topics_RNT=np.broadcast_to(topics_NT > 0, (*shape, TOPICS)),
        topic_share_RNT=np.broadcast_to(topics_NT, (*shape, TOPICS)),
    )
    lists_PL = np.array(list(permutations(range(CANDIDATES), LENGTH)))
    reward_UP = expected_reward(facts, np.broadcast_to(lists_PL, (users, *lists_PL.shape)))
    single_UL = np.argsort(-single_item_value(facts), axis=1)[:, :LENGTH]
    weight_UP = np.exp((reward_UP - reward_UP.max(axis=1, keepdims=True)) / TEMPERATURE)

    prefixes = [prefix for length in range(LENGTH) for prefix in permutations(range(CANDIDATES), length)]
    row_of = {prefix: row for row, prefix in enumerate(prefixes)}
    placed_SPN = np.zeros((len(prefixes), LENGTH - 1, CANDIDATES))
    for row, prefix in enumerate(prefixes):
        placed_SPN[row, np.arange(len(prefix)), list(prefix)] = 1.0
    return SmallWorld(
        features_UF=np.concatenate([taste_UT, hidden_UK, patience_U[:, None]], axis=1),
        lists_PL=lists_PL,
        reward_UP=reward_UP,
        optimal_UP=weight_UP / weight_UP.sum(axis=1, keepdims=True),
        single_U=expected_reward(facts, single_UL[:, None])[:, 0],
        placed_SQ=placed_SPN.reshape(len(prefixes), -1),
        used_SN=placed_SPN.any(axis=1),
        prefix_PL=np.array([[row_of[tuple(line[:place])] for place in range(LENGTH)] for line in lists_PL.tolist()]),
    )
