"""The simulated world: who and what exists, how tastes drift, and that the logs hold a signal a model can find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from goalrank import simulator
from goalrank.errors import DataRefused, UsageError
from goalrank.simulator import WorldConfig
from goalrank.simulator.world import tastes, world_of

CONFIG = WorldConfig(
    seed=3, users=300, items=200, requests_per_day=400, candidates=30, new_users_per_day=7, new_items_per_day=5
)
PER_USER = ("age_U", "device_U", "patience_U", "hidden_UK")
PER_ITEM = ("topics_IT", "quality_I", "duration_seconds_I", "born_I", "hidden_IK")


def test_a_day_is_a_function_of_configuration_and_day_alone() -> None:
    first = simulator.day_requests(CONFIG, 4)
    simulator.day_requests.cache_clear()
    world_of.cache_clear()
    again = simulator.day_requests(CONFIG, 4)
    for name in ("request_id_R", "user_R", "microseconds_R", "item_RN", "score_RN", "slate_RL", "propensity_RL"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for name in ("click", "like", "watch_seconds"):
        np.testing.assert_array_equal(getattr(first.feedback, name), getattr(again.feedback, name))
    other = simulator.day_requests(replace(CONFIG, seed=4), 4)
    assert not np.array_equal(first.slate_RL, other.slate_RL)


def test_each_day_brings_new_users_and_items_and_keeps_the_old_as_they_were() -> None:
    today, later = world_of(CONFIG, 2), world_of(CONFIG, 5)
    assert (today.users, today.items) == (300 + 2 * 7, 200 + 2 * 5)
    assert (later.users, later.items) == (300 + 5 * 7, 200 + 5 * 5)
    for name in PER_USER:
        np.testing.assert_array_equal(getattr(today, name), getattr(later, name)[: today.users])
    for name in PER_ITEM:
        np.testing.assert_array_equal(getattr(today, name), getattr(later, name)[: today.items])
    np.testing.assert_array_equal(tastes(CONFIG, 5, 300), later.taste_UT[:300])
    np.testing.assert_array_equal(later.born_I[200:], np.repeat([1, 2, 3, 4, 5], 5))
    shown = simulator.day_requests(CONFIG, 5)
    items_R6 = np.take_along_axis(shown.item_RN, shown.slate_RL, 1)
    assert (later.born_I[items_R6] == 5).any(), "new items must get impressions"
    assert (shown.user_R >= 300).any(), "new users must come"


def test_tastes_drift_slowly_and_never_stop() -> None:
    def likeness(days_apart: int) -> float:
        return float(np.corrcoef(tastes(CONFIG, 10, 300).ravel(), tastes(CONFIG, 10 + days_apart, 300).ravel())[0, 1])

    effects = CONFIG.coefficients
    for apart in (1, 7, 30):
        lasting = effects.taste_age + effects.taste_personal
        expected = lasting + effects.taste_drift * effects.drift_memory**apart
        expected += effects.taste_trend * effects.trend_memory**apart
        # Few topics share the fashion and the age bands' tastes: their sample moments differ from 1.
        assert likeness(apart) == pytest.approx(expected, abs=0.08)
    assert 1 > likeness(1) > likeness(7) > likeness(30)


def test_shares_of_taste_sum_to_one_and_variance_is_one() -> None:
    effects = CONFIG.coefficients
    assert effects.taste_age + effects.taste_personal + effects.taste_drift + effects.taste_trend == pytest.approx(1)
    assert tastes(CONFIG, 0, 300).var() == pytest.approx(1, abs=0.15)


def test_items_have_one_to_three_topics_and_none_is_unused() -> None:
    world = world_of(WorldConfig(), 0)
    counts = world.topics_IT.sum(1)
    assert counts.min() == 1 and counts.max() == 3
    assert world.topics_IT.sum(0).min() >= 10
    np.testing.assert_allclose(world.topic_share_IT.sum(1), 1)


def test_click_rates_tell_quality_and_click_histories_tell_taste() -> None:
    config = WorldConfig(seed=1, users=150, items=150, requests_per_day=3000, new_items_per_day=0, new_users_per_day=0)
    world = world_of(config, 5)
    shown_I, clicked_I = np.zeros(world.items), np.zeros(world.items)
    shown_UT, clicked_UT = np.zeros((2, world.users, config.topics))
    for day in range(5):
        requests = simulator.day_requests(config, day)
        items_RL = np.take_along_axis(requests.item_RN, requests.slate_RL, 1)
        np.add.at(shown_I, items_RL, 1)
        np.add.at(clicked_I, items_RL, requests.feedback.click)
        np.add.at(shown_UT, requests.user_R, world.topic_share_IT[items_RL].sum(1))
        clicked_topics_RT = (world.topic_share_IT[items_RL] * requests.feedback.click[..., None]).sum(1)
        np.add.at(clicked_UT, requests.user_R, clicked_topics_RT)
    rate_I = (clicked_I + 2) / (shown_I + 10)
    assert np.corrcoef(rate_I, world.quality_I)[0, 1] > 0.3
    seen_UT = shown_UT >= 5
    assert np.corrcoef((clicked_UT / np.maximum(shown_UT, 1))[seen_UT], world.taste_UT[seen_UT])[0, 1] > 0.3


def test_the_retriever_knows_something_but_not_all() -> None:
    requests = simulator.day_requests(CONFIG, 3)
    value_RN = simulator.single_item_value(requests.facts)
    pairs = zip(value_RN, requests.score_RN, strict=True)
    likeness = np.mean([np.corrcoef(value, score)[0, 1] for value, score in pairs])
    assert 0.4 < likeness < 0.85


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"users": 0}, "WorldConfig.users is 0, expected at least 1"),
        ({"candidates": 5}, "expected list_length <= candidates <= items"),
        ({"temperature": 0.0}, "WorldConfig.temperature is 0.0, expected above 0"),
        ({"uniform_share": 1.5}, "WorldConfig.uniform_share is 1.5, expected a share between 0 and 1"),
    ],
)
def test_impossible_worlds_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(CONFIG, **wrong)


def test_the_configuration_survives_its_file() -> None:
    assert WorldConfig.from_json(CONFIG.to_json()) == CONFIG
    text = CONFIG.to_json()
    for damaged in ("", "[]", text.replace('"users"', '"people"'), text.replace("contrast", "c")):
        with pytest.raises(DataRefused, match="world.json cannot be read"):
            WorldConfig.from_json(damaged)


def test_day_numbers() -> None:
    assert simulator.day_number(CONFIG, CONFIG.date_of(12).isoformat()) == 12
    with pytest.raises(UsageError, match="the simulated world begins then"):
        simulator.day_number(CONFIG, "2025-12-31")
    with pytest.raises(UsageError, match="expected YYYY-MM-DD"):
        simulator.day_number(CONFIG, "tonight")
