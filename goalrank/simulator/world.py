"""Who and what exists on a day: a pure function of (config, day).

Each property has its own random stream, drawn row by row, so that the first rows stay the same when users or items
are added. Drift is a moving average of daily innovations, cut after `_DRIFT_WINDOW` days: day 1000 costs what day 0
does, and no state is kept.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from goalrank.simulator.config import WorldConfig

FIRST_USER_ID = 1
FIRST_ITEM_ID = 100_001
"""User and item ids are row + first id; apart from each other, so that a mix-up shows."""

AGE_BANDS = (18, 25, 35, 50, 65)
DEVICES = ("phone", "desktop", "tablet")

_DRIFT_WINDOW = 40
_LONGEST_INITIAL_AGE = 60
_EPOCH = 100_000  # seeds must not be negative, drift looks back beyond day 0

_AGE_SHARES = (0.22, 0.28, 0.24, 0.17, 0.09)
_DEVICE_SHARES = (0.7, 0.2, 0.1)


def stream(config: WorldConfig, name: str, day: int = 0) -> np.random.Generator:
    """The random stream of that name and day; independent of all others."""
    return np.random.default_rng([config.seed, zlib.crc32(name.encode()), day + _EPOCH])


@dataclass(frozen=True)
class World:
    """Day `day`: arrays over all users U and items I that exist then. Tastes have mean 0, variance 1 over topics."""

    config: WorldConfig
    day: int
    # users
    age_U: np.ndarray  # row of AGE_BANDS
    device_U: np.ndarray  # row of DEVICES
    activity_U: np.ndarray  # share of the day's requests
    patience_U: np.ndarray
    taste_UT: np.ndarray
    hidden_UK: np.ndarray
    # items
    topics_IT: np.ndarray  # bool
    topic_share_IT: np.ndarray  # topics_IT with rows summing to 1
    quality_I: np.ndarray
    log_duration_I: np.ndarray  # standardised
    duration_seconds_I: np.ndarray
    born_I: np.ndarray  # first day on which the item can be shown, as a number; negative before day 0
    hidden_IK: np.ndarray

    @property
    def users(self) -> int:
        """U."""
        return len(self.age_U)

    @property
    def items(self) -> int:
        """I."""
        return len(self.quality_I)

    def freshness(self) -> np.ndarray:
        """1 on an item's first day, fading; (I,)."""
        return np.exp(-(self.day - self.born_I) / self.config.coefficients.freshness_days)


@lru_cache(maxsize=4)
def world_of(config: WorldConfig, day: int) -> World:
    """The world on `day` (0 is config.first_day)."""
    users, items = config.user_count(day), config.item_count(day)
    topics_IT = _topics(config, items)
    log_duration_I = stream(config, "duration").standard_normal(items)
    return World(
        config=config,
        day=day,
        age_U=_categories(stream(config, "age").random(users), _AGE_SHARES),
        device_U=_categories(stream(config, "device").random(users), _DEVICE_SHARES),
        activity_U=_shares(np.exp(0.9 * stream(config, "activity").standard_normal(users))),
        patience_U=stream(config, "patience").standard_normal(users),
        taste_UT=tastes(config, day, users),
        hidden_UK=stream(config, "hidden_users").standard_normal((users, config.hidden_factors)),
        topics_IT=topics_IT,
        topic_share_IT=topics_IT / topics_IT.sum(1, keepdims=True),
        quality_I=stream(config, "quality").standard_normal(items),
        log_duration_I=log_duration_I,
        duration_seconds_I=np.clip(np.round(80.0 * np.exp(0.7 * log_duration_I)), 8.0, 900.0),
        born_I=birth_days(config, items),
        hidden_IK=stream(config, "hidden_items").standard_normal((items, config.hidden_factors)),
    )


def tastes(config: WorldConfig, day: int, users: int) -> np.ndarray:
    """Tastes on `day` of the first `users` users, (U, T): age band, lasting taste, own drift and fashion."""
    effects, topics = config.coefficients, config.topics
    age_UT = stream(config, "age_tastes").standard_normal((len(AGE_BANDS), topics))[
        _categories(stream(config, "age").random(users), _AGE_SHARES)
    ]
    # Exponential minus its mean: unit variance, a long right tail, so that a user loves few topics.
    personal_UT = stream(config, "personal").standard_exponential((users, topics), method="inv") - 1.0
    drift_UT = _wander(config, "drift", day, (users, topics), effects.drift_memory)
    trend_T = _wander(config, "trend", day, (topics,), effects.trend_memory)
    return (
        np.sqrt(effects.taste_age) * age_UT
        + np.sqrt(effects.taste_personal) * personal_UT
        + np.sqrt(effects.taste_drift) * drift_UT
        + np.sqrt(effects.taste_trend) * trend_T
    )


def birth_days(config: WorldConfig, items: int) -> np.ndarray:
    """Each item's first day: before day 0 for the first catalogue, then config.new_items_per_day a day."""
    first = -stream(config, "first_ages").integers(0, _LONGEST_INITIAL_AGE, size=config.items)
    later = 1 + np.arange(max(items - config.items, 0)) // max(config.new_items_per_day, 1)
    return np.concatenate([first, later])[:items]


def _wander(config: WorldConfig, name: str, day: int, shape: tuple[int, ...], memory: float) -> np.ndarray:
    """A stationary first-order autoregressive process at `day`, unit variance."""
    total, squares = np.zeros(shape), 0.0
    for back in range(_DRIFT_WINDOW):
        weight = memory**back
        total += weight * stream(config, name, day - back).standard_normal(shape)
        squares += weight * weight
    return total / np.sqrt(squares)


def _topics(config: WorldConfig, items: int) -> np.ndarray:
    """One to three topics an item, (I, T) bool; some topics are common, some rare."""
    draws_I4 = stream(config, "topics").random((items, 4))
    popularity_T = 1.0 / (np.arange(config.topics) + 6.0)
    topics_I3 = _categories(draws_I4[:, :3], _shares(popularity_T))
    counts_I = _categories(draws_I4[:, 3], (0.45, 0.40, 0.15)) + 1
    topics_IT = np.zeros((items, config.topics), dtype=bool)
    for place in range(3):
        rows_I = np.flatnonzero(counts_I > place)
        topics_IT[rows_I, topics_I3[rows_I, place]] = True
    return topics_IT


def _categories(draws: np.ndarray, shares: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """Uniform draws turned into categories with these shares."""
    return np.minimum(np.searchsorted(np.cumsum(shares), draws, side="right"), len(shares) - 1)


def _shares(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()
