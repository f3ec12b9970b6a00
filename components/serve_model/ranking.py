"""Requests to lists: features read online, the model's greedy lists or now and then a sampled one, many at a time.

What happens when something is missing is defined, and said in the answer's `fallback`:
    None                features found, the model answered
    unknown_user        nobody has features of this user: the model answered on the items alone, as it learnt to
    missing_features    the store has no features of any candidate: the retriever's order
    store_away          the online store did not answer, or nothing readable: the retriever's order
    model_failed        the model gave no valid list: the retriever's order
    no_champion         the champion was withdrawn from the registry: the retriever's order

Legend: B requests, N candidates, L list length.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.serve_model.bodies import RankBody
from components.serve_model.champion import Champion, Models
from components.serve_model.exploration import mixture_propensities
from components.serve_model.feature_rows import FeatureRows, Gathered
from components.serve_model.holdback import RETRIEVER_POLICY
from goalrank.dataset import assemble
from goalrank.errors import UsageError

UNKNOWN_USER, MISSING_FEATURES = "unknown_user", "missing_features"
STORE_AWAY, MODEL_FAILED, NO_CHAMPION = "store_away", "model_failed", "no_champion"

CLOSE_CALL = 3e-4
"""Two candidates whose logits are closer than this (relative to their size, at least 1) are a close call: sums in a
batch run in another order than alone, which could turn it. Such a request is answered again alone, hence batching
changes no list. The logits themselves differ by 1e-6 of their size, by 4e-5 in models made to be ill-conditioned."""

_log = logging.getLogger("goalrank.serve")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid request and the model it is to be answered by."""

    body: RankBody
    champion: Champion
    may_explore: bool = True


@dataclass(frozen=True, slots=True)
class _Batch:
    """Requests in hand, their rows, and the chances drawn for them: once, whoever is answered again meets the same."""

    asked: Sequence[Asked]
    ids: list[list[int]]
    found: Gathered
    explores_B: np.ndarray  # True = gets a sampled list
    seeds_B: np.ndarray  # int64, of the sampling


class Ranking:
    """Answers requests with the models in `models`; safe to call from many threads, one batch at a time."""

    def __init__(
        self,
        features: FeatureRows,
        models: Models | Champion,
        exploration: float = 0.0,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            features: what the requests' rows are read from.
            models: who answers; assign to `models` to replace them as a whole.
            exploration: share of requests answered with a sampled list, 0..1.
            seed: of the sampling; None draws one.

        Raises:
            UsageError: exploration is no share.
        """
        if not 0.0 <= exploration <= 1.0:
            raise UsageError(f"exploration is {exploration}, expected a share between 0 and 1")
        self.models = models if isinstance(models, Models) else Models(models)
        self.exploration = exploration
        self.features = features
        self._one_batch = threading.Lock()
        self._coin = np.random.default_rng(seed)
        self.answered_alone = 0
        """Close calls of a batch that were answered again on their own."""
        self.misses = {"user": 0, "item": 0}
        """Users and candidates the store had no features of."""

    @property
    def champion(self) -> Champion:
        """The model that answers users outside the holdback."""
        return self.models.champion

    def rank(self, body: RankBody) -> Ranked:
        """Order the candidates of one valid request: min(list_length, N) distinct items."""
        return self.rank_all([Asked(body, self.models.for_user(body.user_id))])[0]

    def rank_all(self, asked: Sequence[Asked]) -> list[Ranked]:
        """Order the candidates of each request, each by its own model; what one request does wrong harms no other."""
        with self._one_batch:
            if self.models.withdrawn:
                return [retriever_order(one, NO_CHAMPION) for one in asked]
            ids = [one.body.item_ids for one in asked]
            found = self.features.gather([one.body.user_id for one in asked], ids)
            here_B = ~found.away_B
            self.misses["user"] += int((here_B & ~found.known_user_B).sum())
            self.misses["item"] += int((found.mask_BN.sum(axis=1) - found.known_items_B)[here_B].sum())
            answers: dict[int, Ranked] = {}
            groups: dict[int, list[int]] = {}
            for number, one in enumerate(asked):
                if found.away_B[number]:
                    answers[number] = retriever_order(one, STORE_AWAY)
                elif found.known_items_B[number] == 0:
                    answers[number] = retriever_order(one, MISSING_FEATURES)
                else:
                    groups.setdefault(id(one.champion), []).append(number)
            explores_B, seeds_B = self._toss(asked)
            batch = _Batch(asked, ids, found, explores_B, seeds_B)
            for rows in groups.values():
                answers.update(self._rank_group(batch, rows))
            return [answers[number] for number in range(len(asked))]

    def _toss(self, asked: Sequence[Asked]) -> tuple[np.ndarray, np.ndarray]:
        """Who explores, and the seeds they sample with.

        Here and nowhere else: the logged propensities are those of one toss a request, and one who is answered again,
        as a close call or because the batch failed, would have a second one.
        """
        may_B = np.array([one.may_explore for one in asked])
        explores_B = may_B & (self._coin.random(len(asked)) < self.exploration)
        return explores_B, self._coin.integers(2**62, size=len(asked))

    def _rank_group(self, batch: _Batch, rows: list[int]) -> dict[int, Ranked]:
        """Answers of one model, by the request's number; a batch that fails is tried one by one."""
        try:
            choices, close_B = self._choose(batch, rows)
        except Exception:  # whatever a model does wrong, the user gets a list and the log gets the cause
            if len(rows) > 1:
                answers: dict[int, Ranked] = {}
                for row in rows:
                    answers.update(self._rank_group(batch, [row]))
                return answers
            version = batch.asked[rows[0]].champion.version
            _log.exception("%s version %s failed", version.name, version.version)
            return {rows[0]: retriever_order(batch.asked[rows[0]], MODEL_FAILED)}
        answers = {}
        for place, row in enumerate(rows):
            if close_B[place] and len(rows) > 1:
                self.answered_alone += 1
                answers.update(self._rank_group(batch, [row]))
                continue
            chosen_L, propensities_L, explored = choices[place]
            version = batch.asked[row].champion.version
            answers[row] = Ranked(
                items=[batch.ids[row][index] for index in chosen_L],
                propensities=propensities_L,
                policy=f"{version.name}:{version.version}",
                model_name=version.name,
                model_version=version.version,
                fallback=None if batch.found.known_user_B[row] else UNKNOWN_USER,
                explored=explored,
            )
        return answers

    def _choose(self, batch: _Batch, rows: list[int]) -> tuple[list[tuple[list[int], list[float], bool]], np.ndarray]:
        """(indices, propensities, explored) of each request's list, and which greedy lists were close calls."""
        asked, found, explores_B = [batch.asked[row] for row in rows], batch.found, batch.explores_B[rows]
        mask_BN = found.mask_BN[rows]
        counts_B = mask_BN.sum(axis=1)
        widest = int(counts_B.max())
        mask_BN = mask_BN[:, :widest]
        scores_BN = np.zeros(mask_BN.shape)
        scores_BN[mask_BN] = [score for one in asked for score in one.body.scores]
        features = assemble(
            found.users,
            found.items,
            found.user_rows_B[rows],
            found.rows_BN[rows, :widest],
            scores_BN,
            mask_BN,
        )
        lengths = [min(one.body.list_length, int(count)) for one, count in zip(asked, counts_B, strict=True)]
        longest = max(lengths)
        model = asked[0].champion.model
        with torch.inference_mode():
            encoded = model.encode(features)
            greedy_BL = model.greedy(encoded, longest)
            lists_BL = greedy_BL
            if explores_B.any():
                at = torch.from_numpy(np.flatnonzero(explores_B))
                chance = torch.Generator().manual_seed(int(batch.seeds_B[rows][explores_B][0]))
                lists_BL = greedy_BL.clone()
                lists_BL[at] = model.sample(encoded.rows(at), 1, longest, 1.0, chance)[:, 0]
            steps_BL = torch.zeros(lists_BL.shape)
            if self.exploration > 0.0:
                steps_BL = model.log_prob(encoded, lists_BL.unsqueeze(1))[1].squeeze(1)
            close_B = np.zeros(len(asked), dtype=bool)
            if len(asked) > 1 and widest > 1:
                close_B = _close_calls(model.decoder.logits(encoded, greedy_BL.unsqueeze(1)).squeeze(1), lengths)
        if not torch.isfinite(steps_BL).all():
            raise ValueError("the model's probabilities are not finite")
        epsilon_B1 = np.array([[self.exploration if one.may_explore else 0.0] for one in asked])
        follows_BL = (lists_BL == greedy_BL).numpy()
        propensities_BL = mixture_propensities(steps_BL.double().numpy(), follows_BL, epsilon_B1).tolist()
        choices = []
        for place, (chosen_L, length) in enumerate(zip(lists_BL.tolist(), lengths, strict=True)):
            chosen_L = chosen_L[:length]
            if len(set(chosen_L)) != length or min(chosen_L) < 0 or max(chosen_L) >= counts_B[place]:
                raise ValueError(f"the model's list {chosen_L} is not {length} distinct candidates")
            choices.append((chosen_L, propensities_BL[place][:length], bool(explores_B[place])))
        return choices, close_B


def _close_calls(logits_BLN: Tensor, lengths: list[int]) -> np.ndarray:
    """bool_B: at some position of the request's list the second best candidate came close to the best."""
    best_BL2 = logits_BLN.topk(2, dim=2).values
    gap_BL = best_BL2[..., 0] - best_BL2[..., 1]
    close_BL = (gap_BL < CLOSE_CALL * best_BL2[..., 0].abs().clamp(min=1.0)).numpy()
    own_BL = np.arange(close_BL.shape[1]) < np.array(lengths)[:, None]
    return np.any(close_BL & own_BL, axis=1)


def retriever_order(asked: Asked, fallback: str) -> Ranked:
    """The candidates by the retriever's score, best first, equal ones in the order they came in."""
    body, version = asked.body, asked.champion.version
    ordered = sorted(body.candidates, key=lambda candidate: -candidate.score)
    return Ranked(
        items=[candidate.item_id for candidate in ordered[: min(body.list_length, len(ordered))]],
        propensities=None,
        policy=RETRIEVER_POLICY,
        model_name=version.name,
        model_version=version.version,
        fallback=fallback,
        explored=False,
    )
