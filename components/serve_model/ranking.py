"""One request to one list: features read online, the champion's greedy list or now and then a sampled one.

What happens when something is missing is defined, and said in the answer's `fallback`:
    None            features found, the model answered
    unknown_user    nobody has features of this user: the model answered on the items alone
    store_away      the online store did not answer: the retriever's order
    model_failed    the model gave no valid list: the retriever's order

Legend: B = 1 request, N candidates, L list length.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from components.feature_store import online_rows
from components.serve_model.bodies import RankBody
from components.serve_model.champion import Champion
from components.serve_model.exploration import mixture_propensities
from goalrank import schema
from goalrank.dataset import batch_from_rows
from goalrank.errors import TryAgain, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore

UNKNOWN_USER, STORE_AWAY, MODEL_FAILED = "unknown_user", "store_away", "model_failed"
RETRIEVER_POLICY = "goalrank-fallback:retriever"

_log = logging.getLogger("goalrank.serve")


@dataclass(frozen=True)
class Ranked:
    """A list, who made it and with which probabilities."""

    items: list[int]
    propensities: list[float] | None
    """Of each item given those above it; None where no probabilities are known (a fallback order)."""
    policy: str
    model_name: str
    model_version: str
    fallback: str | None
    explored: bool


class Ranking:
    """Answers requests with one champion; safe to call from many threads."""

    def __init__(
        self, store: FeatureStore, champion: Champion, exploration: float = 0.0, seed: int | None = None
    ) -> None:
        """
        Args:
            store: opened for reading.
            champion: the loaded model; assign to `champion` to replace it.
            exploration: share of requests answered with a sampled list, 0..1.
            seed: of the sampling; None draws one.

        Raises:
            UsageError: exploration is no share.
        """
        if not 0.0 <= exploration <= 1.0:
            raise UsageError(f"exploration is {exploration}, expected a share between 0 and 1")
        self.champion = champion
        self.exploration = exploration
        self._store = store
        self._reading = threading.Lock()  # Feast's SQLite store has one connection for all threads
        self._drawing = threading.Lock()
        self._coin = np.random.default_rng(seed)

    def rank(self, body: RankBody) -> Ranked:
        """Order the candidates of a valid request: min(list_length, N) distinct items."""
        champion = self.champion  # one version for the whole answer, whatever is assigned meanwhile
        ids = [candidate.item_id for candidate in body.candidates]
        length = min(body.list_length, len(ids))
        try:
            with self._reading:
                users = online_rows(self._store, "user_id", [body.user_id])
                items = online_rows(self._store, "item_id", ids)
        except TryAgain as error:
            _log.warning("%s", error)
            return self._retriever_order(champion, body, length, STORE_AWAY)
        try:
            chosen_L, propensities_L, explored = self._choose(champion, body, users, items, length)
            if len(set(chosen_L)) != length or not all(0 <= index < len(ids) for index in chosen_L):
                raise ValueError(f"the model's list {chosen_L} is not {length} distinct candidates of {len(ids)}")
        except Exception:  # whatever a model does wrong, the user gets a list and the log gets the cause
            _log.exception("%s version %s failed", champion.version.name, champion.version.version)
            return self._retriever_order(champion, body, length, MODEL_FAILED)
        known = any(users[field.name].null_count == 0 for view in schema.USER_VIEWS for field in view.features)
        return Ranked(
            items=[ids[index] for index in chosen_L],
            propensities=propensities_L,
            policy=f"{champion.version.name}:{champion.version.version}",
            model_name=champion.version.name,
            model_version=champion.version.version,
            fallback=None if known else UNKNOWN_USER,
            explored=explored,
        )

    def _choose(
        self, champion: Champion, body: RankBody, users: pa.Table, items: pa.Table, length: int
    ) -> tuple[list[int], list[float], bool]:
        scores = [[candidate.score for candidate in body.candidates]]
        batch = batch_from_rows(users, items, [0], [list(range(len(body.candidates)))], scores)
        with self._drawing:
            explored = bool(self._coin.random() < self.exploration)
            generator = torch.Generator().manual_seed(int(self._coin.integers(2**62))) if explored else None
        with torch.inference_mode():
            encoded = champion.model.encode(batch)
            greedy_BL = champion.model.greedy(encoded, length)
            if self.exploration == 0.0:
                return greedy_BL[0].tolist(), [1.0] * length, False
            list_BL = champion.model.sample(encoded, 1, length, 1.0, generator)[:, 0] if explored else greedy_BL
            _, steps_BGL = champion.model.log_prob(encoded, list_BL.unsqueeze(1))
        if not torch.isfinite(steps_BGL).all():
            raise ValueError("the model's probabilities are not finite")
        follows_L = (list_BL[0] == greedy_BL[0]).numpy()
        propensities_L = mixture_propensities(steps_BGL[0, 0].double().numpy(), follows_L, self.exploration)
        return list_BL[0].tolist(), propensities_L.tolist(), explored

    @staticmethod
    def _retriever_order(champion: Champion, body: RankBody, length: int, fallback: str) -> Ranked:
        ordered = sorted(body.candidates, key=lambda candidate: -candidate.score)
        return Ranked(
            items=[candidate.item_id for candidate in ordered[:length]],
            propensities=None,
            policy=RETRIEVER_POLICY,
            model_name=champion.version.name,
            model_version=champion.version.version,
            fallback=fallback,
            explored=False,
        )
