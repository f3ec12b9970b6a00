"""What each policy would have shown for the evaluation requests, and what judge and clicks say about it.

Shapes: R evaluation requests, B of them at a time, N candidates, L list length, P policies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from goalrank.dataset import RequestBatch, TrainingSet
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH

BATCH = 256
LATENCY_REQUESTS = 30


@dataclass
class Answers:
    """One policy's answers to all R requests."""

    lists: list[list[int]] = field(default_factory=list)  # candidate indices, best first
    scores: list[np.ndarray] = field(default_factory=list)  # one a candidate, the first step's for a ranker
    rewards: list[float] = field(default_factory=list)  # the judge's opinion of the list

    @property
    def rewards_R(self) -> np.ndarray:
        return np.array(self.rewards, dtype=np.float64)


def answer_all(
    data: TrainingSet,
    indices_R: np.ndarray,
    rankers: dict[str, Ranker],
    judge: RewardModel,
    seed: int,
    report: Callable[[int, int], None],
) -> dict[str, Answers]:
    """Answers of every ranker, of the retriever's order and of a random order, each judged.

    Args:
        data: the training set that holds the requests.
        indices_R: which requests.
        rankers: by policy name.
        judge: reward model that neither was optimised against.
        seed: of the random order.
        report: called with (requests done, of how many).
    """
    answers = {name: Answers() for name in (*rankers, "retriever", "random")}
    chance = torch.Generator().manual_seed(seed)
    for first in range(0, len(indices_R), BATCH):
        batch = data.batch(indices_R[first : first + BATCH])
        with torch.inference_mode():
            scores = {name: _first_step(ranker, batch) for name, ranker in rankers.items()}
            lists = {name: ranker.greedy(ranker.encode(batch), LIST_LENGTH) for name, ranker in rankers.items()}
            scores["retriever"] = batch.score_BN
            scores["random"] = torch.rand(batch.mask_BN.shape, generator=chance)
            for name in ("retriever", "random"):
                lists[name] = _by_score(scores[name], batch.mask_BN)
            rewards_BP = judge.reward(judge.encode(batch), torch.stack([lists[name] for name in answers], dim=1))
        real_B = batch.mask_BN.sum(dim=1).tolist()
        for column, (name, answer) in enumerate(answers.items()):
            answer.lists += [[index for index in row if index >= 0] for row in lists[name].tolist()]
            answer.scores += [row[:count].numpy() for row, count in zip(scores[name].float(), real_B, strict=True)]
            answer.rewards += rewards_BP[:, column].double().tolist()
        report(min(first + BATCH, len(indices_R)), len(indices_R))
    return answers


def latency_ms(data: TrainingSet, indices_R: np.ndarray, ranker: Ranker) -> dict[str, float]:
    """Median and worst-of-twenty milliseconds of one request at a time, from batch to list, on this machine's CPU."""
    elapsed = []
    with torch.inference_mode():
        for index in indices_R[:LATENCY_REQUESTS]:
            batch = data.batch([index])
            begun = time.perf_counter()
            ranker.greedy(ranker.encode(batch), LIST_LENGTH)
            elapsed.append((time.perf_counter() - begun) * 1000)
    return {
        "latency_p50_ms": round(float(np.quantile(elapsed, 0.5)), 3),
        "latency_p95_ms": round(float(np.quantile(elapsed, 0.95)), 3),
    }


def _first_step(ranker: Ranker, batch: RequestBatch) -> Tensor:
    return ranker.first_step_logits(ranker.encode(batch))


def _by_score(scores_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """lists_BL: the real candidates with the highest scores first, ties in the order of the log, -1 beyond them."""
    order_BN = scores_BN.masked_fill(~mask_BN, -torch.inf).argsort(dim=1, descending=True, stable=True)
    lists_BL = torch.full((len(scores_BN), LIST_LENGTH), -1, dtype=torch.int64)
    width = min(LIST_LENGTH, order_BN.shape[1])
    chosen_BL = order_BN[:, :width]
    lists_BL[:, :width] = chosen_BL.masked_fill(~mask_BN.gather(1, chosen_BL), -1)
    return lists_BL
