"""The simulated world: users, items and feedback whose true expected reward is known (method.md, the simulated world).

    config.py     WorldConfig and Coefficients: every number of the world, argued, in one place
    world.py      who and what exists on day d: tastes, topics, quality; a pure function of (config, day)
    feedback.py   what a list earns: exact expectation, and sampling
    search.py     the best list found, and the best order by single-item value
    traffic.py    a day's requests: retriever, candidates; logging policy with propensities, or other rankers
    titles.py     readable titles
    logs.py       a day written as logs of the data contract
    truth.py      the true reward of lists for logged requests

Shape legend: R requests, G lists of a request, N candidates, L list length, T topics, U users, I items, W beams.
"""

from goalrank.simulator.config import LIST_EFFECT_FLOOR, Coefficients, WorldConfig, day_number
from goalrank.simulator.feedback import (
    CandidateFacts,
    Feedback,
    expected_feedback,
    expected_reward,
    sample_feedback,
    single_item_value,
)
from goalrank.simulator.logs import load_world, write_day, write_days
from goalrank.simulator.search import best_lists, order_by_single_item_value
from goalrank.simulator.traffic import Requests, day_requests, plackett_luce_propensity, sample_lists, served
from goalrank.simulator.truth import candidate_facts, true_best, true_reward, true_single_item_order
from goalrank.simulator.world import World, world_of

__all__ = [
    "LIST_EFFECT_FLOOR",
    "CandidateFacts",
    "Coefficients",
    "Feedback",
    "Requests",
    "World",
    "WorldConfig",
    "best_lists",
    "candidate_facts",
    "day_number",
    "day_requests",
    "expected_feedback",
    "expected_reward",
    "load_world",
    "order_by_single_item_value",
    "plackett_luce_propensity",
    "sample_feedback",
    "sample_lists",
    "served",
    "single_item_value",
    "true_best",
    "true_reward",
    "true_single_item_order",
    "world_of",
    "write_day",
    "write_days",
]
