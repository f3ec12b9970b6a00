"""A day's requests: who comes when, what the retriever offers, and what the logging policy showed, with propensities.

The retriever scores an item by its own belief of the item's appeal alone: tastes some days old, lasting errors about
users and items, noise on every score. It knows nothing of lists. The logging policy of a request is one of two, drawn
by a fixed share whatever the request: `plackett_luce` over the logged scores, or `uniform`. The logged propensity is
the one under the policy named in the log. `served` is the same day ranked by somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from goalrank.simulator.config import WorldConfig
from goalrank.simulator.feedback import CandidateFacts, Feedback, sample_feedback
from goalrank.simulator.world import World, stream, tastes, world_of

PLACKETT_LUCE = "plackett_luce"
UNIFORM = "uniform"

_CHUNK_REQUESTS = 2048
_DAY_MICROSECONDS = 86_400_000_000
_BUSY_HOURS = (2, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 7, 8, 8, 7, 7, 7, 8, 10, 12, 13, 12, 9, 5)  # relative traffic


@dataclass(frozen=True)
class Requests:
    """A day's requests in order of time; users and items as rows of the world of that day."""

    world: World
    request_id_R: np.ndarray  # str
    user_R: np.ndarray
    microseconds_R: np.ndarray  # since the day's midnight
    item_RN: np.ndarray  # candidates, in order of item id: the order tells nothing
    score_RN: np.ndarray
    policy_R: np.ndarray  # str: who ranked it
    slate_RL: np.ndarray  # candidate rows 0..N-1, as shown
    propensity_RL: np.ndarray
    feedback: Feedback

    @property
    def uniform_R(self) -> np.ndarray:  # noqa: N802 - an array, named by its shape like the others
        """bool: ranked by the uniform policy."""
        return self.policy_R == UNIFORM

    @property
    def facts(self) -> CandidateFacts:
        """What decides feedback on the candidates; made anew on each access, as it is large."""
        return CandidateFacts.of(self.world, self.user_R, self.item_RN)


@lru_cache(maxsize=2)
def day_requests(config: WorldConfig, day: int) -> Requests:
    """Everything that happened on `day`; the same whenever it is asked."""
    world = world_of(config, day)
    count = config.requests_per_day
    user_R = stream(config, "visitors", day).choice(world.users, size=count, p=world.activity_U)
    microseconds_R = _times(stream(config, "times", day), count)
    item_RN, score_RN = _retrieve(world, user_R)
    uniform_R = stream(config, "policies", day).random(count) < config.uniform_share
    logits_RN = np.where(uniform_R[:, None], 0.0, score_RN / config.temperature)
    slate_RL = sample_lists(logits_RN, config.list_length, stream(config, "slates", day))
    facts = CandidateFacts.of(world, user_R, item_RN)
    return Requests(
        world=world,
        request_id_R=np.array([f"d{day:05d}-{number:07d}" for number in range(count)]),
        user_R=user_R,
        microseconds_R=microseconds_R,
        item_RN=item_RN,
        score_RN=score_RN,
        policy_R=np.where(uniform_R, UNIFORM, PLACKETT_LUCE),
        slate_RL=slate_RL,
        propensity_RL=plackett_luce_propensity(logits_RN, slate_RL),
        feedback=sample_feedback(facts, slate_RL, stream(config, "feedback", day)),
    )


def served(requests: Requests, slate_RL: np.ndarray, propensity_RL: np.ndarray, policy_R: np.ndarray) -> Requests:
    """The same day with other lists, and what users did with them: the same whenever it is asked.

    Args:
        requests: the day as `day_requests` has it.
        slate_RL: candidate rows 0..N-1, as shown.
        propensity_RL: of each item given those above it.
        policy_R: who ranked each request.
    """
    generator = stream(requests.world.config, "feedback", requests.world.day)
    return replace(
        requests,
        policy_R=policy_R,
        slate_RL=slate_RL,
        propensity_RL=propensity_RL,
        feedback=sample_feedback(requests.facts, slate_RL, generator),
    )


def sample_lists(logits_RN: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a list without replacement for each request, (R, L): Plackett-Luce by the Gumbel top-k trick."""
    keys_RN = logits_RN + generator.gumbel(size=logits_RN.shape)
    return np.argsort(-keys_RN, axis=1)[:, :length]


def plackett_luce_propensity(logits_RN: np.ndarray, lists_RL: np.ndarray) -> np.ndarray:
    """Probability of each item at its position given those placed before it, (R, L); their product is the list's."""
    rows_R = np.arange(len(lists_RL))
    weight_RN = np.exp(logits_RN - logits_RN.max(1, keepdims=True))
    propensity_RL = np.empty(lists_RL.shape)
    for place in range(lists_RL.shape[1]):
        chosen_R = weight_RN[rows_R, lists_RL[:, place]]
        propensity_RL[:, place] = chosen_R / weight_RN.sum(1)
        weight_RN[rows_R, lists_RL[:, place]] = 0.0  # summed anew each time: no cancellation
    return propensity_RL


def _retrieve(world: World, user_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates of each request as item rows (R, N), and the retriever's scores (R, N), log-odds of a click."""
    config, c = world.config, world.config.coefficients
    generator = stream(config, "retriever", world.day)
    # An item's or user's error stays the same from day to day: the reward model can learn to correct it.
    taste_error_UT = config.taste_error * stream(config, "taste_errors").standard_normal(world.taste_UT.shape)
    quality_error_I = config.quality_error * stream(config, "quality_errors").standard_normal(world.items)
    believed_UT = tastes(config, world.day - config.stale_days, world.users) + taste_error_UT
    believed_I = (
        c.base_appeal + c.quality * (world.quality_I + quality_error_I) + c.freshness * world.freshness()
    ).astype(np.float32)
    discovered = round(config.candidates * config.discovery_share)
    items, scores = [], []
    for start in range(0, len(user_R), _CHUNK_REQUESTS):
        user_r = user_R[start : start + _CHUNK_REQUESTS]
        belief_rI = (c.taste * believed_UT[user_r]).astype(np.float32) @ world.topic_share_IT.T.astype(np.float32)
        belief_rI += believed_I
        uniform_rI = generator.random(belief_rI.shape, dtype=np.float32)
        key_rI = belief_rI - config.retrieval_spread * np.log(-np.log(np.clip(uniform_rI, 1e-9, 1 - 1e-6)))
        item_rN = np.argpartition(-key_rI, config.candidates - 1, axis=1)[:, : config.candidates]
        # The last of them make room for items drawn uniformly from the rest of the catalogue.
        order_rN = np.argsort(-np.take_along_axis(key_rI, item_rN, 1), axis=1)
        item_rN = np.take_along_axis(item_rN, order_rN, 1)[:, : config.candidates - discovered]
        key_rI = generator.random(belief_rI.shape, dtype=np.float32)
        np.put_along_axis(key_rI, item_rN, -1.0, axis=1)
        found_rD = np.argpartition(-key_rI, max(discovered - 1, 0), axis=1)[:, :discovered]
        item_rN = np.sort(np.concatenate([item_rN, found_rD], axis=1), axis=1)
        noise_rN = config.score_noise * generator.standard_normal(item_rN.shape)
        items.append(item_rN)
        scores.append(np.take_along_axis(belief_rI, item_rN, 1).astype(np.float64) + noise_rN)
    return np.concatenate(items), np.concatenate(scores)


def _times(generator: np.random.Generator, count: int) -> np.ndarray:
    """Sorted microseconds within a day, by the traffic of its hours."""
    hours = np.array(_BUSY_HOURS, dtype=np.float64)
    hour_R = generator.choice(len(hours), size=count, p=hours / hours.sum())
    within_R = generator.integers(0, _DAY_MICROSECONDS // len(hours), size=count)
    return np.sort(hour_R * (_DAY_MICROSECONDS // len(hours)) + within_R)
