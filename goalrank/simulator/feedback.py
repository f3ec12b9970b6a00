"""What a list earns: a chain over its places, its expectation exact, its feedback sampled.

A user who is still there at place k looks at it with the attention of that place, and clicks by the item's felt
appeal: appeal, less the fatigue of topics shown before, plus the contrast with the item just before. After each place
the user may leave. All of this depends on which items were shown earlier, not on what was clicked, so that the one
random state is "still there" and the expectation is a product along the list.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from goalrank.schema import RewardWeights
from goalrank.simulator.config import Coefficients
from goalrank.simulator.world import DEVICES, World

_DEFAULT_WEIGHTS = RewardWeights()


@dataclass(frozen=True)
class CandidateFacts:
    """What decides feedback on each candidate of each request; probabilities are given a click."""

    coefficients: Coefficients
    patience_R: np.ndarray
    appeal_RN: np.ndarray  # log-odds
    like_RN: np.ndarray  # probability
    watched_RN: np.ndarray  # expected share of the duration
    minutes_RN: np.ndarray  # expected minutes
    topics_RNT: np.ndarray  # bool
    topic_share_RNT: np.ndarray

    @classmethod
    def of(cls, world: World, user_R: np.ndarray, item_RN: np.ndarray) -> CandidateFacts:
        """Facts for requests of these users (rows of the world) with these candidates (rows of the world)."""
        c = world.config.coefficients
        topic_share_RNT = world.topic_share_IT[item_RN]
        taste_RN = np.einsum("rnt,rt->rn", topic_share_RNT, world.taste_UT[user_R])
        hidden_RN = np.einsum("rnk,rk->rn", world.hidden_IK[item_RN], world.hidden_UK[user_R])
        quality_RN, length_RN = world.quality_I[item_RN], world.log_duration_I[item_RN]
        prefers_long_R1 = np.where(world.device_U[user_R] == DEVICES.index("phone"), -1.0, 1.0)[:, None]
        watched_RN = sigmoid(
            c.watched_base + c.watched_taste * taste_RN + c.watched_quality * quality_RN - c.watched_length * length_RN
        )
        return cls(
            coefficients=c,
            patience_R=world.patience_U[user_R],
            appeal_RN=c.base_appeal
            + c.taste * taste_RN
            + c.quality * quality_RN
            + c.freshness * world.freshness()[item_RN]
            + c.hidden * hidden_RN / np.sqrt(world.config.hidden_factors)
            + c.phone_length * prefers_long_R1 * length_RN,
            like_RN=sigmoid(c.like_base + c.like_taste * taste_RN + c.like_quality * quality_RN),
            watched_RN=watched_RN,
            minutes_RN=watched_RN * world.duration_seconds_I[item_RN] / 60.0,
            topics_RNT=world.topics_IT[item_RN],
            topic_share_RNT=topic_share_RNT,
        )

    def __getitem__(self, rows: slice | np.ndarray) -> CandidateFacts:
        """The facts of some of the requests."""
        parts = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return CandidateFacts(**{name: part if name == "coefficients" else part[rows] for name, part in parts.items()})

    def __len__(self) -> int:
        return len(self.patience_R)

    def worth(self, weights: RewardWeights) -> np.ndarray:
        """Expected reward of a click on each candidate."""
        return weights.click + weights.like * self.like_RN + weights.watch_minute * self.minutes_RN


@dataclass(frozen=True)
class Feedback:
    """Feedback to lists, arrays ending in L; expectations (floats) or one sample (click, like as int8)."""

    click: np.ndarray
    like: np.ndarray
    watch_seconds: np.ndarray  # 0.0 where not clicked

    def reward(self, weights: RewardWeights = _DEFAULT_WEIGHTS) -> np.ndarray:
        """Total reward of each list."""
        places = (
            weights.click * self.click + weights.like * self.like + weights.watch_minute / 60.0 * self.watch_seconds
        )
        return places.sum(-1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def place_probabilities(
    c: Coefficients,
    place: int,
    appeal: np.ndarray,
    minutes: np.ndarray,
    fatigue: np.ndarray,
    appeal_before: np.ndarray | None,
    patience: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One place of the chain, for a user who is still there; shared by expectation, sampling and search.

    Args:
        place: 0 for the first.
        fatigue: weight of the item's topics among those shown before.
        appeal_before: of the item just before; None at the first place.

    Returns:
        Probabilities of a click, of staying after one, and of staying after none; broadcast shape of the inputs.
    """
    felt = appeal - c.fatigue * fatigue
    if appeal_before is not None:
        felt = felt + c.contrast * np.clip(appeal - appeal_before, -c.contrast_limit, c.contrast_limit)
    click = (place + 1.0) ** -c.attention_decay * sigmoid(felt)
    stay_after_click = (1.0 - c.leave_click) * np.exp(-minutes / c.session_minutes)
    stay_after_skip = 1.0 - sigmoid(c.leave_skip - c.leave_boredom * felt - c.leave_patience * patience)
    return click, stay_after_click, stay_after_skip


def single_item_value(facts: CandidateFacts, weights: RewardWeights = _DEFAULT_WEIGHTS) -> np.ndarray:
    """Expected reward of each candidate shown alone at the first place, (R, N)."""
    return sigmoid(facts.appeal_RN) * facts.worth(weights)


def chain(facts: CandidateFacts, lists_RGL: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`place_probabilities` at every place of every list, three arrays (R, G, L); a missing item is passed over."""
    lists_RGL = np.asarray(lists_RGL)
    rows_R1 = np.arange(len(facts))[:, None]
    click_RGL = np.zeros(lists_RGL.shape)
    stay_click_RGL, stay_skip_RGL = np.ones(lists_RGL.shape), np.ones(lists_RGL.shape)
    shown_RGT = np.zeros((*lists_RGL.shape[:2], facts.topics_RNT.shape[-1]))
    before_RG: np.ndarray | None = None
    for place in range(lists_RGL.shape[2]):
        item_RG = lists_RGL[:, :, place]
        real_RG = item_RG >= 0
        appeal_RG = facts.appeal_RN[rows_R1, item_RG]
        click_RG, stay_click_RG, stay_skip_RG = place_probabilities(
            facts.coefficients,
            place,
            appeal_RG,
            facts.minutes_RN[rows_R1, item_RG],
            (shown_RGT * facts.topic_share_RNT[rows_R1, item_RG]).sum(-1),
            before_RG,
            facts.patience_R[:, None],
        )
        click_RGL[:, :, place] = np.where(real_RG, click_RG, 0.0)
        stay_click_RGL[:, :, place] = np.where(real_RG, stay_click_RG, 1.0)
        stay_skip_RGL[:, :, place] = np.where(real_RG, stay_skip_RG, 1.0)
        shown_RGT *= facts.coefficients.fatigue_memory
        shown_RGT += facts.topics_RNT[rows_R1, item_RG] * real_RG[:, :, None]
        before_RG = appeal_RG if before_RG is None else np.where(real_RG, appeal_RG, before_RG)
    return click_RGL, stay_click_RGL, stay_skip_RGL


def expected_feedback(facts: CandidateFacts, lists_RGL: np.ndarray) -> Feedback:
    """Exact expected feedback at each place of each list, (R, G, L), leaving early taken into account.

    Args:
        lists_RGL: candidate rows 0..N-1; -1 where a list is shorter (at its end).
    """
    click_RGL, stay_click_RGL, stay_skip_RGL = chain(facts, lists_RGL)
    stay_RGL = click_RGL * stay_click_RGL + (1.0 - click_RGL) * stay_skip_RGL
    there_RGL = np.cumprod(np.concatenate([np.ones_like(stay_RGL[..., :1]), stay_RGL[..., :-1]], axis=-1), axis=-1)
    clicked_RGL = there_RGL * click_RGL
    rows_R11 = np.arange(len(facts))[:, None, None]
    return Feedback(
        click=clicked_RGL,
        like=clicked_RGL * facts.like_RN[rows_R11, lists_RGL],
        watch_seconds=clicked_RGL * facts.minutes_RN[rows_R11, lists_RGL] * 60.0,
    )


def expected_reward(
    facts: CandidateFacts, lists_RGL: np.ndarray, weights: RewardWeights = _DEFAULT_WEIGHTS
) -> np.ndarray:
    """r*(l | u): exact expected total reward of each list, (R, G).

    Args:
        lists_RGL: candidate rows 0..N-1; -1 where a list is shorter (at its end).
    """
    return expected_feedback(facts, lists_RGL).reward(weights)


def sample_feedback(facts: CandidateFacts, lists_RL: np.ndarray, generator: np.random.Generator) -> Feedback:
    """One user's behaviour for each list: click and like (R, L) int8, watch_seconds (R, L)."""
    click_RL, stay_click_RL, stay_skip_RL = (part[:, 0] for part in chain(facts, lists_RL[:, None]))
    clicked_RL = np.zeros(click_RL.shape, dtype=bool)
    there_R = np.ones(len(click_RL), dtype=bool)
    for place in range(click_RL.shape[1]):
        click_draw_R, stay_draw_R = generator.random((2, len(click_RL)))
        clicked_R = there_R & (click_draw_R < click_RL[:, place])
        there_R &= stay_draw_R < np.where(clicked_R, stay_click_RL[:, place], stay_skip_RL[:, place])
        clicked_RL[:, place] = clicked_R
    rows_R1 = np.arange(len(facts))[:, None]
    liked_RL = clicked_RL & (generator.random(click_RL.shape) < facts.like_RN[rows_R1, lists_RL])
    watched_RL = facts.watched_RN[rows_R1, lists_RL]
    spread = facts.coefficients.watched_spread
    share_RL = generator.beta(spread * watched_RL, spread * (1.0 - watched_RL))
    seconds_RL = share_RL * facts.minutes_RN[rows_R1, lists_RL] / watched_RL * 60.0
    return Feedback(clicked_RL.astype(np.int8), liked_RL.astype(np.int8), np.where(clicked_RL, seconds_RL, 0.0))
