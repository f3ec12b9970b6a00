"""Champion, challenger and reward model on one request: the lists they make, what the reward model expects of a list.

Models come from the registry, verified, as the service loads them; features from the online store, as the service reads
them; opinions from RewardModel itself (goalrank/reward.py), the mean of its heads. Ids leave here as texts, since
JavaScript's numbers are exact to 2^53 only.

Legend: G lists, L positions, N candidates of the one request.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from components import registry
from components.feature_store import OnlineReader
from components.serve_model.champion import Champion, champion_model, load_champion
from console.ui.requests import Logged
from goalrank.checkpoint import load_model
from goalrank.dataset import RequestBatch, assemble
from goalrank.encoders import Encoded
from goalrank.errors import ModelRefused, UsageError
from goalrank.features import encode_items, encode_users
from goalrank.policies import top_lists
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH, TOPIC_BUCKETS
from goalrank.verdict import ModelVersion

REMEMBERED = 64
"""Requests whose encoding is kept: every move of an item asks for the same one."""


@dataclass(frozen=True)
class Models:
    """Who takes part."""

    champion: Champion
    challenger: Champion | None
    """None where the newest version is the champion."""
    reward: RewardModel
    reward_version: ModelVersion

    @classmethod
    def load(cls, tracking_uri: str) -> Models:
        """Champion, challenger and the champion's reward model.

        Raises:
            ModelRefused, CheckpointDamaged: nobody is champion, or a version may not be used.
            TryAgain: MLflow is away.
        """
        champion = load_champion(tracking_uri)
        client = registry.connect(tracking_uri)
        with registry.reaching(tracking_uri):
            newest = registry.by_alias(client, registry.RANKER, registry.CHALLENGER)
        challenger = None
        if newest is not None and str(newest.version) != champion.version.version:
            challenger = load_champion(tracking_uri, registry.CHALLENGER)
        with tempfile.TemporaryDirectory() as aside:
            version, directory = champion_model(tracking_uri, aside, registry.REWARD)
            reward = load_model(directory)
        if not isinstance(reward, RewardModel):
            raise ModelRefused(f"{version.name} version {version.version} is a {type(reward).__name__}")
        return cls(champion, challenger, reward, version)

    def rankers(self) -> dict[str, Champion]:
        """By the part they play."""
        found = {"champion": self.champion}
        return found if self.challenger is None else found | {"challenger": self.challenger}


@dataclass(frozen=True)
class Case:
    """One request, ready to be asked about."""

    logged: Logged
    batch: RequestBatch
    encoded: Encoded
    titles: list[str]
    topics: list[list[int]]
    known: bool
    """Does the online store have features of the user?"""


class Lists:
    """Asked by one thread at a time."""

    def __init__(self, models: Models, reader: OnlineReader) -> None:
        self.models, self._reader = models, reader
        self._cases: OrderedDict[str, Case] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def describe(self, logged: Logged) -> dict[str, Any]:
        """Candidates, and every list with the reward model's opinion of it.

        Returns:
            candidates [{item_id, title, topics, score}], lists [{name, version, opinion}], known_user.
        """
        with self._one_at_a_time, torch.inference_mode():
            case = self._case(logged)
            named = self._named_lists(case)
            opinions = self._opinions(case, [list_L for _, _, list_L in named])
        candidates = [
            {"item_id": str(item), "title": title, "topics": topics, "score": score}
            for item, title, topics, score in zip(
                logged.candidates, case.titles, case.topics, logged.scores, strict=True
            )
        ]
        lists = [
            {"name": name, "version": version, "opinion": opinion}
            for (name, version, _), opinion in zip(named, opinions, strict=True)
        ]
        return {"candidates": candidates, "lists": lists, "known_user": case.known}

    def opinion(self, logged: Logged, items: Sequence[int]) -> dict[str, Any]:
        """What the reward model expects of a list of the request's candidates.

        Returns:
            reward, spread (standard deviation of the heads), positions [{item_id, click, like, watch_minutes, worth}].

        Raises:
            UsageError: no list, or not of distinct candidates.
        """
        length = min(LIST_LENGTH, len(logged.candidates))
        if not 1 <= len(items) <= length or len(set(items)) != len(items) or not set(items) <= set(logged.candidates):
            raise UsageError(f"{list(items)} found, expected 1 to {length} different candidates of this request")
        index = {item: at for at, item in enumerate(logged.candidates)}
        with self._one_at_a_time, torch.inference_mode():
            (opinion,) = self._opinions(self._case(logged), [[index[item] for item in items]])
        return opinion

    def _case(self, logged: Logged) -> Case:
        case = self._cases.get(logged.request_id)
        if case is None:
            case = self._read(logged)
            self._cases[logged.request_id] = case
            if len(self._cases) > REMEMBERED:
                self._cases.popitem(last=False)
        self._cases.move_to_end(logged.request_id)
        return case

    def _read(self, logged: Logged) -> Case:
        """Features as they are online now.

        Raises:
            TryAgain: the online store is away.
        """
        users = self._reader.rows("user_id", [logged.user_id])
        items = self._reader.rows("item_id", logged.candidates)
        count = len(logged.candidates)
        batch = assemble(
            encode_users(users),
            encode_items(items),
            np.zeros(1, dtype=np.int64),
            np.arange(count)[None],
            np.array([logged.scores], dtype=np.float64),
            np.ones((1, count), dtype=bool),
        )
        titles = [
            title or f"item {item}" for item, title in zip(logged.candidates, items["title"].to_pylist(), strict=True)
        ]
        topics = [
            [bucket for bucket in range(TOPIC_BUCKETS) if (mask or 0) >> bucket & 1]
            for mask in items["topic_mask"].to_pylist()
        ]
        known = any(value is not None for value in users.drop_columns(["user_id", "as_of"]).to_pylist()[0].values())
        return Case(logged, batch, self.models.reward.encode(batch), titles, topics, known)

    def _named_lists(self, case: Case) -> list[tuple[str, str | None, list[int]]]:
        """(name, version, candidate indices) of every list there is of this request."""
        length = min(LIST_LENGTH, len(case.logged.candidates))
        named: list[tuple[str, str | None, list[int]]] = []
        for name, ranker in self.models.rankers().items():
            list_L = ranker.model.greedy(ranker.model.encode(case.batch), length)[0].tolist()
            named.append((name, ranker.version.version, list_L))
        index = {item: at for at, item in enumerate(case.logged.candidates)}
        shown = [index[item] for item in case.logged.shown if item in index]
        if shown:
            named.append(("shown", None, shown[:length]))
        by_score = top_lists(case.batch.score_BN, case.batch.mask_BN, length)[0].tolist()
        return [*named, ("retriever", None, by_score)]

    def _opinions(self, case: Case, lists: list[list[int]]) -> list[dict[str, Any]]:
        """The reward model's, of lists of candidate indices."""
        longest = max(len(list_L) for list_L in lists)
        lists_1GL = torch.tensor([[*list_L, *[-1] * (longest - len(list_L))] for list_L in lists])[None]
        model = self.models.reward
        predicted = model.predict(case.encoded, lists_1GL)
        worth_GL = model.worth(*predicted).mean(dim=0)[0]
        reward_G = model.reward(case.encoded, lists_1GL)[0]
        spread_G = model.score_lists(case.encoded, lists_1GL)[:, 0].std(dim=0, correction=0)
        click_GL, like_GL, watch_GL = (part.mean(dim=0)[0] for part in predicted)
        return [
            {
                "reward": float(reward_G[g]),
                "spread": float(spread_G[g]),
                "positions": [
                    {
                        "item_id": str(case.logged.candidates[at]),
                        "click": float(click_GL[g, place]),
                        "like": float(like_GL[g, place]),
                        "watch_minutes": float(watch_GL[g, place]),
                        "worth": float(worth_GL[g, place]),
                    }
                    for place, at in enumerate(list_L)
                ],
            }
            for g, list_L in enumerate(lists)
        ]
