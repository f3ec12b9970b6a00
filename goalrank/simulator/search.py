"""The best list found, by beam search over prefixes with the exact reward, and the order a pointwise oracle would give.

A place's reward depends only on the items before it, so a prefix's reward is exact. Prefixes are ranked by that plus
what is left to win, guessed from the items not yet used: two prefixes of equal reward differ in how many users remain.
"""

from __future__ import annotations

import numpy as np

from goalrank.schema import RewardWeights
from goalrank.simulator.feedback import CandidateFacts, expected_reward, place_probabilities, single_item_value

_DEFAULT_WEIGHTS = RewardWeights()
_CHUNK_REQUESTS = 256


def order_by_single_item_value(
    facts: CandidateFacts, length: int, weights: RewardWeights = _DEFAULT_WEIGHTS
) -> np.ndarray:
    """The `length` candidates of the highest true single-item value, best first, (R, L)."""
    return np.argsort(-single_item_value(facts, weights), axis=1, kind="stable")[:, :length]


def best_lists(
    facts: CandidateFacts, length: int, width: int = 48, weights: RewardWeights = _DEFAULT_WEIGHTS
) -> tuple[np.ndarray, np.ndarray]:
    """The best list found for each request, (R, L), and its true expected reward, (R,).

    Never worse than the order by single-item value. `width` is W, the prefixes kept at each place.
    """
    lists, rewards = [], []
    for start in range(0, len(facts), _CHUNK_REQUESTS):
        part = facts[slice(start, start + _CHUNK_REQUESTS)]
        beam_RWL, reward_RW = _beam(part, length, width, weights)
        order_R1L = order_by_single_item_value(part, length, weights)[:, None]
        found_RCL = np.concatenate([beam_RWL, order_R1L], axis=1)
        reward_RC = np.concatenate([reward_RW, expected_reward(part, order_R1L, weights)], axis=1)
        best_R = reward_RC.argmax(1)
        rows_R = np.arange(len(part))
        lists.append(found_RCL[rows_R, best_R])
        rewards.append(reward_RC[rows_R, best_R])
    if not lists:
        return np.zeros((0, length), dtype=np.int64), np.zeros(0)
    return np.concatenate(lists), np.concatenate(rewards)


def _beam(facts: CandidateFacts, length: int, width: int, weights: RewardWeights) -> tuple[np.ndarray, np.ndarray]:
    """The last beam, (R, W, L), and the exact reward of its lists, (R, W)."""
    requests, candidates, topics = facts.topics_RNT.shape
    c, rows_R1 = facts.coefficients, np.arange(requests)[:, None]
    worth_R1N = facts.worth(weights)[:, None]
    topics_RNT = facts.topics_RNT.astype(np.float64)
    share_RTN = facts.topic_share_RNT.transpose(0, 2, 1)
    # What an average one of the good candidates is worth; scaled by the attention of the places left.
    top_R = -np.sort(-single_item_value(facts, weights), axis=1)[:, : 2 * length].mean(1)

    prefix_RWK = np.zeros((requests, 1, 0), dtype=np.int64)
    reward_RW, there_RW = np.zeros((requests, 1)), np.ones((requests, 1))
    shown_RWT = np.zeros((requests, 1, topics))
    used_RWN = np.zeros((requests, 1, candidates), dtype=bool)
    before_RW1: np.ndarray | None = None
    for place in range(length):
        click_RWN, stay_click_RWN, stay_skip_RWN = place_probabilities(
            c,
            place,
            facts.appeal_RN[:, None],
            facts.minutes_RN[:, None],
            shown_RWT @ share_RTN,
            before_RW1,
            facts.patience_R[:, None, None],
        )
        gain_RWN = reward_RW[..., None] + there_RW[..., None] * click_RWN * worth_R1N
        left_RWN = there_RW[..., None] * (click_RWN * stay_click_RWN + (1.0 - click_RWN) * stay_skip_RWN)
        ahead = sum((later + 1.0) ** -c.attention_decay for later in range(place + 1, length))
        rank_RWN = gain_RWN + 0.6 * ahead * top_R[:, None, None] * left_RWN
        rank_RWN[used_RWN] = -np.inf

        flat_RX = rank_RWN.reshape(requests, -1)
        keep = min(width, np.isfinite(flat_RX).sum(1).min(initial=width))
        kept_RW = np.argpartition(-flat_RX, keep - 1, axis=1)[:, :keep]
        beam_RW, item_RW = np.divmod(kept_RW, candidates)
        prefix_RWK = np.concatenate([prefix_RWK[rows_R1, beam_RW], item_RW[..., None]], axis=2)
        reward_RW, there_RW = gain_RWN[rows_R1, beam_RW, item_RW], left_RWN[rows_R1, beam_RW, item_RW]
        shown_RWT = c.fatigue_memory * shown_RWT[rows_R1, beam_RW] + topics_RNT[rows_R1, item_RW]
        used_RWN = used_RWN[rows_R1, beam_RW]
        np.put_along_axis(used_RWN, item_RW[..., None], True, axis=2)
        before_RW1 = facts.appeal_RN[rows_R1, item_RW][..., None]
    return prefix_RWK, reward_RW
