"""A simulated log whose truth is known, drawn anew for each replicate: what benchmarks/off_policy.py measures on.

A replicate draws users of a large day with replacement, shows each of their requests a new list by the logging policy
(Plackett-Luce over the retriever's scores, a uniform share) and samples what they do. The truth is r* of a target's
lists, averaged over the large day, so that an interval has to cover the spread of users, of lists and of clicks.

Targets are deterministic, as what is served is:

    retriever   the retriever's order: near to the logging policy
    ranker      the list that a flawed model of the world likes best, list effects and all
    rival       the same with other flaws: the challenger of "ranker"
    random      six candidates at random: far from the logging policy

Models (the control variate): "lists" knows list effects but errs on each item's appeal; "items" knows the items as
well, and nothing of lists; "none" is zero.

Legend: R requests of the large day, n of a replicate, N candidates, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from goalrank.schema import RewardWeights
from goalrank.simulator.config import WorldConfig
from goalrank.simulator.feedback import CandidateFacts, expected_feedback, expected_reward, sample_feedback
from goalrank.simulator.search import best_lists
from goalrank.simulator.traffic import day_requests, plackett_luce_propensity, sample_lists

LENGTH = 6
INSIGHT = 0.3
"""A ranker's belief of an item is this much truth, the rest the retriever's score, and an error on top."""
APPEAL_ERROR = 0.6
"""Standard deviation of that error, in log-odds; about half of what distinguishes candidates."""
SHARED = 0.5
"""Of that error's variance, the part that ranker and control variate share, as a guide and a judge do."""

TARGETS = ("retriever", "ranker", "rival", "random")
MODELS = ("lists", "items", "none")


@dataclass(frozen=True)
class Replicate:
    """One log."""

    rows_n: np.ndarray  # requests of the large day
    users_n: np.ndarray  # a user drawn twice is two users
    slate_nL: np.ndarray
    propensity_nL: np.ndarray
    reward_nL: np.ndarray


class KnownWorld:
    """The large day, the targets' lists on it and their truth."""

    def __init__(self, requests: int, seed: int = 11) -> None:
        config = WorldConfig(seed=seed, users=int(requests * 5 / 6), requests_per_day=requests)  # as the default world
        day = day_requests(config, 8)
        self.config, self.facts, self.score_RN = config, day.facts, day.score_RN
        random = np.random.default_rng(seed)
        shared_RN, *own = random.standard_normal((4, *day.score_RN.shape))
        flaws = [APPEAL_ERROR * (np.sqrt(SHARED) * shared_RN + np.sqrt(1 - SHARED) * own_RN) for own_RN in own]
        believed_RN = INSIGHT * day.facts.appeal_RN + (1 - INSIGHT) * day.score_RN
        ranker, rival = (replace(day.facts, appeal_RN=believed_RN + flaw_RN) for flaw_RN in flaws[:2])
        self._judge = replace(day.facts, appeal_RN=day.facts.appeal_RN + flaws[2])
        self.lists = {
            "retriever": np.argsort(-day.score_RN, axis=1)[:, :LENGTH],
            "ranker": best_lists(ranker, LENGTH, width=4)[0],
            "rival": best_lists(rival, LENGTH, width=4)[0],
            "random": random.permuted(np.tile(np.arange(config.candidates), (requests, 1)), axis=1)[:, :LENGTH],
        }
        self.truth = {name: expected_reward(day.facts, found[:, None])[:, 0] for name, found in self.lists.items()}
        self.first_truth = {name: _rewards(day.facts, found)[:, 0] for name, found in self.lists.items()}
        self.value = {
            (name, model): self.predict(model, np.arange(requests), found)
            for name, found in self.lists.items()
            for model in MODELS
        }
        order_R = np.argsort(day.user_R, kind="stable")
        _, first = np.unique(day.user_R[order_R], return_index=True)
        self._requests_of = np.split(order_R, first[1:])

    def predict(self, model: str, rows_n: np.ndarray, lists_nL: np.ndarray) -> np.ndarray:
        """The control variate's reward of each position [n, L], knowing nothing of what stands below it."""
        if model == "none":
            return np.zeros(lists_nL.shape)
        facts = self._judge[rows_n]
        if model == "lists":
            return _rewards(facts, lists_nL)  # a place's feedback depends on the items above alone
        alone_nL = [_rewards(facts, lists_nL[:, place : place + 1])[:, 0] for place in range(lists_nL.shape[1])]
        return np.stack(alone_nL, axis=1) * (1.0 + np.arange(lists_nL.shape[1])) ** -1.0

    def replicate(self, requests: int, random: np.random.Generator) -> Replicate:
        """About `requests` requests of users drawn with replacement."""
        users = round(requests * len(self._requests_of) / len(self.score_RN))
        drawn = random.integers(0, len(self._requests_of), max(users, 2))
        rows_n = np.concatenate([self._requests_of[user] for user in drawn])
        users_n = np.repeat(np.arange(len(drawn)), [len(self._requests_of[user]) for user in drawn])
        uniform_n = random.random(len(rows_n)) < self.config.uniform_share
        logits_nN = np.where(uniform_n[:, None], 0.0, self.score_RN[rows_n] / self.config.temperature)
        slate_nL = sample_lists(logits_nN, LENGTH, random)
        weights = RewardWeights()
        feedback = sample_feedback(self.facts[rows_n], slate_nL, random)
        reward_nL = (
            weights.click * feedback.click
            + weights.like * feedback.like
            + weights.watch_minute / 60 * feedback.watch_seconds
        )
        return Replicate(rows_n, users_n, slate_nL, plackett_luce_propensity(logits_nN, slate_nL), reward_nL)


def _rewards(facts: CandidateFacts, lists_nL: np.ndarray) -> np.ndarray:
    """Expected reward of each position [n, L]."""
    weights = RewardWeights()
    expected = expected_feedback(facts, lists_nL[:, None])
    places_nGL = (
        weights.click * expected.click
        + weights.like * expected.like
        + weights.watch_minute / 60 * expected.watch_seconds
    )
    return places_nGL[:, 0]
