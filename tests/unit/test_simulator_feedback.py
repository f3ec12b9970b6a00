"""Feedback to lists: the exact expectation, its samples, the search for the best list, and propensities."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from goalrank import simulator
from goalrank.schema import RewardWeights
from goalrank.simulator import LIST_EFFECT_FLOOR, CandidateFacts, WorldConfig
from goalrank.simulator.world import world_of

CONFIG = WorldConfig(seed=5, users=200, items=150, requests_per_day=300, candidates=20)


def facts_of(requests: int = 40, candidates: int = 20) -> CandidateFacts:
    generator = np.random.default_rng(0)
    item_RN = np.argsort(generator.random((requests, CONFIG.items)), axis=1)[:, :candidates]
    return CandidateFacts.of(world_of(CONFIG, 2), generator.integers(0, CONFIG.users, requests), item_RN)


def random_lists(requests: int, candidates: int, lists: int, length: int) -> np.ndarray:
    return np.argsort(np.random.default_rng(1).random((requests, lists, candidates)), axis=2)[:, :, :length]


def restated_reward(facts: CandidateFacts, request: int, chosen: list[int], weights: RewardWeights) -> float:
    """The chain of docs/method.md, one user, one list, in plain Python."""
    c, there, total = facts.coefficients, 1.0, 0.0
    for place, item in enumerate(chosen):
        appeal = facts.appeal_RN[request, item]
        topics = set(np.flatnonzero(facts.topics_RNT[request, item]))
        tired = 0.0
        for earlier, other in enumerate(chosen[:place]):
            shared = topics & set(np.flatnonzero(facts.topics_RNT[request, other]))
            tired += c.fatigue_memory ** (place - earlier - 1) * len(shared) / len(topics)
        felt = appeal - c.fatigue * tired
        if place:
            gap = appeal - facts.appeal_RN[request, chosen[place - 1]]
            felt += c.contrast * max(-c.contrast_limit, min(c.contrast_limit, gap))
        click = (place + 1) ** -c.attention_decay / (1 + np.exp(-felt))
        like, minutes = facts.like_RN[request, item], facts.minutes_RN[request, item]
        total += there * click * (weights.click + weights.like * like + weights.watch_minute * minutes)
        impatience = c.leave_skip - c.leave_boredom * felt - c.leave_patience * facts.patience_R[request]
        leave_skip = 1 / (1 + np.exp(-impatience))
        stay_click = (1 - c.leave_click) * np.exp(-minutes / c.session_minutes)
        there *= click * stay_click + (1 - click) * (1 - leave_skip)
    return float(total)


@pytest.mark.parametrize("weights", [RewardWeights(), RewardWeights(click=0.0, like=2.0, watch_minute=1.0)])
def test_expected_reward_is_the_chain_written_out(weights: RewardWeights) -> None:
    facts, lists_RGL = facts_of(6), random_lists(6, 20, 4, 6)
    reward_RG = simulator.expected_reward(facts, lists_RGL, weights)
    for request, group in np.ndindex(*reward_RG.shape):
        restated = restated_reward(facts, request, lists_RGL[request, group].tolist(), weights)
        assert reward_RG[request, group] == pytest.approx(restated, rel=1e-12)


def test_sampled_feedback_has_the_expectation() -> None:
    times, facts = 4000, facts_of(5)
    lists_RGL = random_lists(5, 20, 1, 6)
    expected = simulator.expected_feedback(facts, lists_RGL)
    many = facts[np.repeat(np.arange(5), times)]
    sampled = simulator.sample_feedback(many, np.repeat(lists_RGL[:, 0], times, axis=0), np.random.default_rng(2))
    for name in ("click", "like", "watch_seconds"):
        values_RXL = getattr(sampled, name).reshape(5, times, 6).astype(float)
        # The last term: likes so rare that none was drawn have a standard deviation of 0.
        error_RL = values_RXL.std(1) / np.sqrt(times) + 1 / times
        gap_RL = np.abs(values_RXL.mean(1) - getattr(expected, name)[:, 0]) / error_RL
        assert gap_RL.max() < 4.5, name
    reward_RX = sampled.reward().reshape(5, times)
    gap_R = np.abs(reward_RX.mean(1) - simulator.expected_reward(facts, lists_RGL)[:, 0])
    assert (gap_R < 4 * reward_RX.std(1) / np.sqrt(times)).all()


def test_samples_are_consistent() -> None:
    requests = simulator.day_requests(CONFIG, 1)
    feedback, slate_RL = requests.feedback, requests.slate_RL
    assert set(np.unique(feedback.click)) == {0, 1}
    assert (feedback.like <= feedback.click).all()
    assert (feedback.watch_seconds[feedback.click == 0] == 0).all()
    assert (feedback.watch_seconds[feedback.click == 1] > 0).all()
    duration_RL = requests.world.duration_seconds_I[np.take_along_axis(requests.item_RN, slate_RL, 1)]
    assert (feedback.watch_seconds <= duration_RL + 1e-6).all()
    assert all(len(set(row)) == len(row) for row in slate_RL)


def test_a_shorter_list_is_its_prefix() -> None:
    facts, lists_RGL = facts_of(8), random_lists(8, 20, 3, 6)
    padded_RGL = lists_RGL.copy()
    padded_RGL[:, :, 4:] = -1
    np.testing.assert_array_equal(
        simulator.expected_reward(facts, padded_RGL), simulator.expected_reward(facts, lists_RGL[:, :, :4])
    )


def test_single_item_value_is_the_list_of_one() -> None:
    facts = facts_of(8)
    alone_RG1 = np.broadcast_to(np.arange(20)[None, :, None], (8, 20, 1))
    np.testing.assert_allclose(simulator.single_item_value(facts), simulator.expected_reward(facts, alone_RG1))


def test_search_finds_the_best_of_all_lists() -> None:
    facts = facts_of(25, candidates=7)
    every_GL = np.array(list(permutations(range(7), 4)))
    reward_RG = simulator.expected_reward(facts, np.broadcast_to(every_GL, (25, *every_GL.shape)))
    lists_RL, found_R = simulator.best_lists(facts, 4)
    np.testing.assert_allclose(found_R, simulator.expected_reward(facts, lists_RL[:, None])[:, 0])
    np.testing.assert_allclose(found_R, reward_RG.max(1), rtol=0.002)
    assert (np.isclose(found_R, reward_RG.max(1))).mean() >= 0.9


def test_list_effects_matter() -> None:
    """The best list found earns at least LIST_EFFECT_FLOOR more than the best order by single-item value."""
    config = WorldConfig(requests_per_day=400)
    gains = []
    for day in (1, 20):
        facts = simulator.day_requests(config, day).facts
        order_RL = simulator.order_by_single_item_value(facts, config.list_length)
        _, best_R = simulator.best_lists(facts, config.list_length)
        ordered_R = simulator.expected_reward(facts, order_RL[:, None])[:, 0]
        assert (best_R >= ordered_R - 1e-12).all()
        gains.append(best_R.mean() / ordered_R.mean() - 1)
    assert min(gains) >= LIST_EFFECT_FLOOR
    assert max(gains) < 0.25, "list effects must not drown the items' own value"


def test_who_knows_more_earns_more() -> None:
    requests = simulator.day_requests(WorldConfig(requests_per_day=400), 2)
    facts, length = requests.facts, 6

    def earns(lists_RL: np.ndarray) -> float:
        return float(simulator.expected_reward(facts, lists_RL[:, None]).mean())

    shuffled_RL = random_lists(400, 50, 1, length)[:, 0]
    by_score_RL = np.argsort(-requests.score_RN, axis=1)[:, :length]
    by_value_RL = simulator.order_by_single_item_value(facts, length)
    best_RL, _ = simulator.best_lists(facts, length)
    ladder = [earns(lists) for lists in (shuffled_RL, requests.slate_RL, by_score_RL, by_value_RL, best_RL)]
    assert ladder == sorted(ladder)
    assert ladder[-1] > 1.3 * ladder[2], "a model must have something to win over the retriever"


def test_propensities_of_all_lists_sum_to_one() -> None:
    logits_RN = np.random.default_rng(3).normal(0, 2, (1, 6))
    every_GL = np.array(list(permutations(range(6), 3)))
    propensity_GL = simulator.plackett_luce_propensity(np.repeat(logits_RN, len(every_GL), 0), every_GL)
    assert propensity_GL.prod(1).sum() == pytest.approx(1, abs=1e-12)


def test_lists_come_as_often_as_their_propensities_say() -> None:
    logits_N, draws = np.array([1.0, 0.2, -0.5, 0.0]), 60_000
    lists_GL = simulator.sample_lists(np.tile(logits_N, (draws, 1)), 2, np.random.default_rng(4))
    every = np.array(list(permutations(range(4), 2)))
    chance = simulator.plackett_luce_propensity(np.tile(logits_N, (len(every), 1)), every).prod(1)
    seen = np.array([(lists_GL == pair).all(1).mean() for pair in every])
    np.testing.assert_array_less(np.abs(seen - chance), 4.5 * np.sqrt(chance * (1 - chance) / draws))


def test_uniform_requests_have_uniform_propensities() -> None:
    requests = simulator.day_requests(CONFIG, 1)
    expected_L = 1.0 / (CONFIG.candidates - np.arange(CONFIG.list_length))
    uniform = requests.propensity_RL[requests.uniform_R]
    assert 0.04 < requests.uniform_R.mean() < 0.2
    np.testing.assert_allclose(uniform, np.tile(expected_L, (len(uniform), 1)))
