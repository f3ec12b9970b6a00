"""The true reward as a reward model, with an error planted in it.

The errors, z being (r* - mean) / spread over random lists and S that spread within a request:

    constant     r* + size S c(u)            one standard normal number a request
    scale        r* size^v(u)                v uniform in -1..1, one number a request: from 1/size to size times
    noise        r* + size S n(u, l)         independent for every list: nothing to be learnt, it averages out
    popularity   r* + size S p(u, l)         sum of the items' z-scored log clicks over sqrt(L): can be learnt
    cube         z^3                         monotone: the order is right, gaps are not
    saturating   tanh(2 z)                   monotone: what is best hardly differs
    steps        floor(2 z)                  monotone, with ties

At size "inf" of noise and popularity nothing of r* is left. A number is the same whenever a list is scored again.

Shapes: R training requests, B requests of a batch, G lists, N candidates, L positions.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from benchmarks.ablations.arms import Signal
from benchmarks.quality.problem import TRAIN
from benchmarks.quality.simulated import Simulated
from goalrank.dataset import RequestBatch
from goalrank.encoders import Encoded, RequestEncoder, z_scored
from goalrank.features import ITEM_DENSE
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH
from goalrank.simulator import CandidateFacts, candidate_facts, expected_reward

_CLICKS = ITEM_DENSE.index("log_clicks")
_SCALE_REQUESTS, _SCALE_LISTS = 500, 16
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Truth:
    """r* of any list of a split's requests, which are known by their candidates."""

    def __init__(self, problem: Simulated, split: str = TRAIN) -> None:
        parts = list(candidate_facts(problem.config, problem.requests(split), LIST_LENGTH))
        self._facts = _together([facts for _, _, facts in parts])
        ids_RN = np.concatenate([ids_rN for _, ids_rN, _ in parts])  # day by day, as the facts are
        self._row_of = {ids.tobytes(): row for row, ids in enumerate(ids_RN)}
        drawn = np.random.default_rng(0)
        some_r = drawn.permutation(len(ids_RN))[:_SCALE_REQUESTS]
        lists_rGL = drawn.random((len(some_r), _SCALE_LISTS, ids_RN.shape[1])).argsort(axis=2)[..., :LIST_LENGTH]
        reward_rG = self.reward(some_r, lists_rGL)
        self.mean, self.spread = float(reward_rG.mean()), float(np.sqrt(reward_rG.var(axis=1).mean()))

    def rows(self, batch: RequestBatch) -> np.ndarray:
        """Where these requests are among those that r* is known of [B]."""
        return np.array([self._row_of[ids.tobytes()] for ids in batch.item_id_BN.cpu().numpy()])

    def reward(self, rows_B: np.ndarray, lists_BGL: np.ndarray) -> np.ndarray:
        """r* [B, G]."""
        return expected_reward(self._facts[rows_B], lists_BGL)


class PlantedReward(RewardModel):
    """Scores lists by r* and an error; one head, so no noise of its own is known."""

    def __init__(self, truth: Truth, signal: Signal, guide: RewardModel) -> None:
        super().__init__(replace(guide.sizes, reward_heads=1))
        self.encoder = guide.encoder  # what the ranker starts from, as with the guide
        self._truth, self._signal = truth, signal

    def encode(self, batch: RequestBatch) -> Encoded:
        """The encoder's, worked out only where a helper looks at it (a fifth of a training step), and the batch."""
        return _Asked(self.encoder, batch)

    def score_lists(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        """Rewards [1, B, G]."""
        assert isinstance(encoded, _Asked)
        rows_B, lists = self._truth.rows(encoded.batch), lists_BGL.cpu().numpy()
        reward_BG = self._truth.reward(rows_B, lists)
        reward_1BG = torch.from_numpy(self._with_error(reward_BG, rows_B, lists, encoded.batch)).float().unsqueeze(0)
        return reward_1BG.to(lists_BGL.device)

    def _with_error(self, reward_BG: np.ndarray, rows_B: np.ndarray, lists: np.ndarray, batch: RequestBatch) -> Any:
        error, size, spread = self._signal.error, self._signal.size, self._truth.spread
        z_BG = (reward_BG - self._truth.mean) / spread
        if error == "none":
            return reward_BG
        if error == "constant":
            return reward_BG + size * spread * ndtri(_uniform(rows_B))[:, None]
        if error == "scale":
            return reward_BG * size ** (2.0 * _uniform(rows_B) - 1.0)[:, None]
        if error == "cube":
            return z_BG**3
        if error == "saturating":
            return np.tanh(2.0 * z_BG)
        if error == "steps":
            return np.floor(2.0 * z_BG)
        planted_BG = _list_noise(rows_B, lists) if error == "noise" else _popularity(batch, lists)
        return planted_BG * spread if math.isinf(size) else reward_BG + size * spread * planted_BG


class _Asked(Encoded):
    """A batch, and what the encoder says of it once that is asked for."""

    def __init__(self, encoder: RequestEncoder, batch: RequestBatch) -> None:
        self.batch = batch
        self._encoder = encoder

    def __getattr__(self, name: str) -> Tensor:
        if name not in {entry.name for entry in fields(Encoded)}:
            raise AttributeError(name)
        self.__dict__.update(vars(self._encoder(self.batch)))
        return getattr(self, name)


def _uniform(keys: np.ndarray) -> np.ndarray:
    """A number in (0, 1) for each key, the same for the same key (splitmix64's finaliser)."""
    with np.errstate(over="ignore"):
        x = keys.astype(np.uint64) * _MIX + _MIX
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _list_noise(rows_B: np.ndarray, lists_BGL: np.ndarray) -> np.ndarray:
    """Standard normal [B, G], one number for each list of each request."""
    key_BG = np.broadcast_to(rows_B[:, None].astype(np.uint64), lists_BGL.shape[:2]).copy()
    with np.errstate(over="ignore"):
        for place in range(lists_BGL.shape[2]):
            key_BG = key_BG * np.uint64(1_000_003) + (lists_BGL[..., place] + 2).astype(np.uint64)
    return ndtri(_uniform(key_BG))


def _popularity(batch: RequestBatch, lists_BGL: np.ndarray) -> np.ndarray:
    """[B, G], of a uniformly random list about standard normal."""
    clicks_BN = z_scored(batch.item_dense_BNF[..., _CLICKS], batch.mask_BN).cpu().numpy()
    listed_BGL = np.take_along_axis(clicks_BN[:, None], np.maximum(lists_BGL, 0), axis=2) * (lists_BGL >= 0)
    return listed_BGL.sum(axis=2) / math.sqrt(lists_BGL.shape[2])


def _together(parts: list[CandidateFacts]) -> CandidateFacts:
    names = [entry.name for entry in fields(CandidateFacts) if entry.name != "coefficients"]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return CandidateFacts(coefficients=parts[0].coefficients, **joined)
