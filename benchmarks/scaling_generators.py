"""MG-E as it grows: more generators, more lists of each, and what its evaluator makes of them.

A generator's first list is its own best (goalrank/baselines/mg_e.py); the others are drawn around it: Gumbel noise on
its z-scored scores, as G-E's, under the generator's own taste for diversity. Fewer lists are the first of more. The
evaluator is the guide that GoalRank learns from.

    mis-pick        the evaluator's pick earns less, by r*, than the best list that was proposed
    lost by it      how much less, mean over requests
    parts           models that have to be trained, shipped and watched: generators (on one encoder), evaluator

Shapes: B requests, K generators, S lists of each, G = K * S, N candidates, L positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ablations.signals import Truth
from benchmarks.devices import device_of
from benchmarks.quality.problem import TEST, TRAIN
from benchmarks.quality.simulated import Simulated
from goalrank.baselines.generators import diverse_lists
from goalrank.baselines.harness import Lesson, seeded
from goalrank.baselines.mg_e import MultiGeneratorEvaluator
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes, RequestEncoder, z_scored
from goalrank.policies import PERTURBATION_TEMPERATURE, gumbel
from goalrank.presets import Preset
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH

_LISTS_AT_ONCE = 20_000
_SEED = 41


def generators_and_evaluator(
    problem: Simulated,
    guide: RewardModel,
    encoder: RequestEncoder,
    preset: Preset,
    seed: int,
    generators: int,
    device: str = "cpu",
) -> MultiGeneratorEvaluator:
    """Trained on the training requests, the generators for as many steps as GoalRank's ranker."""
    lesson = Lesson(problem.data, problem.rows[TRAIN], encoder, preset, seed, guide, preset.ranker_steps, device)
    seeded(lesson)
    trained = MultiGeneratorEvaluator(ModelSizes.from_preset(preset), generators).learn(lesson).policy
    assert isinstance(trained, MultiGeneratorEvaluator)
    return trained.to(device)


@torch.inference_mode()
def judged(
    model: MultiGeneratorEvaluator, problem: Simulated, truth: Truth, requests: int, lists: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    """By lists of each generator the means over the first test requests.

    Args:
        model: trained.
        truth: of the test requests.
        requests: how many of them.
        lists: of each generator, ascending.
    """
    rows_R = problem.rows[TEST][:requests]
    generators, most = model.generators.count, lists[-1]
    at_once = max(1, _LISTS_AT_ONCE // (generators * most))
    device = device_of(model)
    totals = {count: np.zeros(5) for count in lists}
    chance = torch.Generator().manual_seed(_SEED)
    for begin in range(0, len(rows_R), at_once):
        batch = problem.data.batch(rows_R[begin : begin + at_once]).to(device)
        lists_BSKL = proposals(model, batch, most, chance)
        flat_BGL = lists_BSKL.flatten(1, 2)
        opinion_BG = model.evaluator.reward(model.evaluator.encode(batch), flat_BGL).cpu().numpy()
        flat_BGL = flat_BGL.cpu()
        true_BG = truth.reward(truth.rows(batch), flat_BGL.numpy())
        for count in lists:
            within = slice(0, count * generators)
            totals[count] += _sums(opinion_BG[:, within], true_BG[:, within], flat_BGL[:, within].numpy())
    names = ("reward", "best proposed", "mis-picks", "mean proposed", "distinct")
    return {
        str(count): dict(zip(names, (total / len(rows_R)).tolist(), strict=True)) for count, total in totals.items()
    }


def proposals(model: MultiGeneratorEvaluator, batch: RequestBatch, count: int, chance: torch.Generator) -> Tensor:
    """lists_BSKL, each generator's own list first."""
    scores_BKN = model.generators.scores(batch)
    B, K, N = scores_BKN.shape
    mask_XN = batch.mask_BN[:, None].expand(B, K, N).reshape(-1, N)
    z_BKN = z_scored(scores_BKN.reshape(-1, N), mask_XN).view(B, K, N)
    made = [diverse_lists(scores_BKN, batch, LIST_LENGTH, model.generators.diversity_K)]
    for _ in range(count - 1):
        noisy_BKN = z_BKN / PERTURBATION_TEMPERATURE + gumbel(z_BKN.shape, chance, z_BKN.device)
        made.append(diverse_lists(noisy_BKN, batch, LIST_LENGTH, model.generators.diversity_K))
    return torch.stack(made, dim=1)


def size_of(model: MultiGeneratorEvaluator) -> dict[str, Any]:
    """Parameters, all and without the item embeddings, and parts."""
    counted = {name: weight.numel() for name, weight in model.named_parameters()}
    embedded = sum(count for name, count in counted.items() if "items.embedding" in name)
    total = sum(counted.values())
    return {"parameters": total, "without embeddings": total - embedded, "parts": model.generators.count + 1}


def _sums(opinion_BG: np.ndarray, true_BG: np.ndarray, lists_BGL: np.ndarray) -> np.ndarray:
    at_B = np.arange(len(true_BG))
    picked_B, best_B = true_BG[at_B, opinion_BG.argmax(axis=1)], true_BG.max(axis=1)
    distinct_B = [len(np.unique(lists_GL, axis=0)) for lists_GL in lists_BGL]
    return np.array(
        [
            picked_B.sum(),
            best_B.sum(),
            (picked_B < best_B - 1e-9).sum(),
            true_BG.mean(axis=1).sum(),
            float(np.sum(distinct_B)),
        ]
    )
