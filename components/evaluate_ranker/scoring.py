"""What each policy would have shown for the evaluation requests, and what judge and clicks say about it.

Shapes: R evaluation requests, B of them at a time, N candidates (padded to the longest), L list length, P policies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from goalrank import metrics
from goalrank.dataset import TrainingSet
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH

BATCH = 256
LATENCY_REQUESTS = 30
LATENCY_TRIES = 3


@dataclass
class Answers:
    """One policy's answers to all R requests."""

    lists_RL: np.ndarray  # int64 candidate indices, best first, -1 where a list is shorter
    scores_RN: np.ndarray  # one a candidate, a ranker's are its first step's logits
    rewards_R: np.ndarray  # the judge's opinion of each list


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
        judge: reward model that no ranker was optimised against.
        seed: of the random order.
        report: called with (requests done, of how many).
    """
    requests, longest = len(indices_R), int(data.candidates.lengths[indices_R].max(initial=1))
    answers = {
        name: Answers(
            lists_RL=np.full((requests, LIST_LENGTH), -1, dtype=np.int64),
            scores_RN=np.full((requests, longest), -np.inf),
            rewards_R=np.full(requests, np.nan),
        )
        for name in (*rankers, "retriever", "random")
    }
    chance = torch.Generator().manual_seed(seed)
    for first in range(0, requests, BATCH):
        rows = slice(first, min(first + BATCH, requests))
        batch = data.batch(indices_R[rows])
        scores: dict[str, Tensor] = {}
        lists: dict[str, Tensor] = {}
        with torch.inference_mode():
            for name, ranker in rankers.items():
                encoded = ranker.encode(batch)
                scores[name], lists[name] = ranker.first_step_logits(encoded), ranker.greedy(encoded, LIST_LENGTH)
            scores["retriever"] = batch.score_BN
            scores["random"] = torch.rand(batch.mask_BN.shape, generator=chance)
            for name in ("retriever", "random"):
                lists[name] = _by_score(scores[name], batch.mask_BN)
            rewards_BP = judge.reward(judge.encode(batch), torch.stack([lists[name] for name in answers], dim=1))
        for column, (name, answer) in enumerate(answers.items()):
            answer.lists_RL[rows] = lists[name].numpy()
            answer.scores_RN[rows, : batch.mask_BN.shape[1]] = scores[name].numpy()
            answer.rewards_R[rows] = rewards_BP[:, column].numpy()
        report(rows.stop, requests)
    return answers


def positives(data: TrainingSet, indices_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which candidates were clicked, and which are real: both bool [R, N]."""
    longest = int(data.candidates.lengths[indices_R].max(initial=1))
    feedback = data.feedback(indices_R)
    slate_RL, clicked_RL = feedback.slate_BL.numpy(), (feedback.click_BL > 0).numpy()
    positives_RN = np.zeros((len(indices_R), longest), dtype=bool)
    row, place = np.nonzero(clicked_RL & (slate_RL >= 0))
    positives_RN[row, slate_RL[row, place]] = True
    return positives_RN, np.arange(longest) < data.candidates.lengths[indices_R][:, None]


def measure(answers: Answers, positives_RN: np.ndarray, mask_RN: np.ndarray) -> dict[str, float | None]:
    """Mean over requests of the judge's reward and, over those with a click, of the ranking measures.

    A measure that no request defines (nobody clicked all day) is None; one that is not finite stays so.
    """
    figures: dict[str, float | None] = {"judged_reward": float(answers.rewards_R.mean()) if len(mask_RN) else None}
    for name, values_R in ranking_measures(answers, positives_RN, mask_RN).items():
        defined_R = values_R[~np.isnan(values_R)]
        figures[name] = float(defined_R.mean()) if len(defined_R) else None
    if not np.isfinite(np.where(mask_RN, answers.scores_RN, 0.0)).all():
        figures["auc"] = float("nan")  # a ranker whose scores are not finite must not pass as "does not apply"
    return figures


def ranking_measures(answers: Answers, positives_RN: np.ndarray, mask_RN: np.ndarray) -> dict[str, np.ndarray]:
    """By name each request's measure [R] against the logged clicks, NaN where nothing was clicked."""
    measured = {
        f"hit_at_{LIST_LENGTH}": metrics.hit_at_k(answers.lists_RL, positives_RN, LIST_LENGTH),
        f"ndcg_at_{LIST_LENGTH}": metrics.ndcg_at_k(answers.lists_RL, positives_RN, LIST_LENGTH),
        f"map_at_{LIST_LENGTH}": metrics.map_at_k(answers.lists_RL, positives_RN, LIST_LENGTH),
        "auc": metrics.auc(np.where(mask_RN, answers.scores_RN, 0.0), positives_RN, mask_RN),
    }
    return {name: np.where(positives_RN.any(axis=1), values_R, np.nan) for name, values_R in measured.items()}


def latency_ms(data: TrainingSet, indices_R: np.ndarray, ranker: Ranker) -> dict[str, float]:
    """Milliseconds of one request at a time, from encoded features to list, on this machine's CPU: median and 95%.

    Of each request's LATENCY_TRIES the fastest counts: other work on the machine only ever adds to a measurement.
    """
    elapsed = []
    with torch.inference_mode():
        for index in indices_R[:LATENCY_REQUESTS]:
            batch = data.batch([int(index)])
            tries = []
            for _ in range(LATENCY_TRIES):
                begun = time.perf_counter()
                ranker.greedy(ranker.encode(batch), LIST_LENGTH)
                tries.append((time.perf_counter() - begun) * 1000)
            elapsed.append(min(tries))
    return {f"latency_p{round(q * 100)}_ms": round(float(np.quantile(elapsed, q)), 3) for q in (0.5, 0.95) if elapsed}


def _by_score(scores_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """lists_BL: the real candidates with the highest scores first, ties in the order of the log, -1 beyond them."""
    order_BN = scores_BN.masked_fill(~mask_BN, -torch.inf).argsort(dim=1, descending=True, stable=True)
    lists_BL = torch.full((len(scores_BN), LIST_LENGTH), -1, dtype=torch.int64)
    width = min(LIST_LENGTH, order_BN.shape[1])
    chosen_BL = order_BN[:, :width]
    lists_BL[:, :width] = chosen_BL.masked_fill(~mask_BN.gather(1, chosen_BL), -1)
    return lists_BL
