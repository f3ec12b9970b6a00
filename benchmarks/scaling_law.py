"""GoalRank at several sizes with the data fixed, and at several amounts of data with the size fixed; the law fitted.

    regret(x) = exp(a) * x^-b

by least squares on the logarithms, means over seeds. Intervals are a bootstrap over seeds: residuals within the points,
pooled (three seeds of one point tell too little of their own spread) and widened by S / (S - 1) in variance. They hold
what other seeds would have changed, not that the law may be no law. The largest point is held out, predicted from the
others, and compared. The paper let data grow with size; here one stays.

Shapes: P points, S seeds, D draws of the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.ablations.arms import Signal
from benchmarks.ablations.signals import Truth
from benchmarks.ablations.training import greedy_lists, reward_of
from benchmarks.devices import name_of
from benchmarks.quality.problem import TEST, TRAIN
from benchmarks.quality.simulated import Simulated
from goalrank.encoders import ModelSizes, RequestEncoder
from goalrank.execution import Execution
from goalrank.groups import build_groups
from goalrank.presets import Preset
from goalrank.pretrain import copy_pretrained
from goalrank.processes import Processes
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schedule import START, derived_seed
from goalrank.train import train_ranker

DRAWS = 2000
BF16_WIDTH = 128
"""From this width on a ranker learns in bf16, on whatever device: a size is learnt in one way."""
_ORDER_SEED = 23


@dataclass(frozen=True)
class Law:
    """regret = exp(a) x^-b, and what it predicts of the point that was held out."""

    exponent: float  # b
    low: float  # of its 95% interval
    high: float
    predicted: float
    predicted_low: float
    predicted_high: float
    observed: float


def sized(preset: Preset, width: int, layers: int) -> Preset:
    """The preset at another width and depth; the learning rate falls with the root of the width, from the preset's."""
    rate = preset.learning_rate * min(1.0, (preset.width / width) ** 0.5)
    heads = max(1, min(8, width // 8))
    return replace(
        preset,
        name=f"{preset.name}-{width}x{layers}",
        width=width,
        heads=heads,
        candidate_layers=layers,
        decoder_layers=layers,
        learning_rate=rate,
    )


def trained(
    problem: Simulated,
    truth: Truth,
    guide: RewardModel,
    encoder: RequestEncoder,
    preset: Preset,
    seed: int,
    requests: int,
    signal: Signal,
    device: str = "cpu",
) -> dict[str, Any]:
    """A ranker of the preset's size, from an encoder of its size, on the first so many training requests of one
    order that is the same for all; the guide may be of another size.

    Raises:
        ModelRefused: a loss or a weight is not finite.
    """
    model = reward_of(signal, guide, truth)
    rows_R = np.random.default_rng(_ORDER_SEED).permutation(problem.rows[TRAIN])[:requests]
    groups = build_groups(problem.data, rows_R, model, preset.helper_lists, seed, device=device)
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, START, 1))
        start = Ranker(ModelSizes.from_preset(preset))
    copy_pretrained(encoder, start.encoder)
    execution = Execution(Processes(device=device), bf16=preset.width >= BF16_WIDTH)
    ranker = train_ranker(problem.data, groups, model, preset, seed, warm_start=start, execution=execution).ranker.to(
        "cpu"
    )
    figures = problem.figures(TEST, greedy_lists(ranker, problem), None)
    total = sum(weight.numel() for weight in ranker.parameters())
    return {
        "reward": float(figures["reward"].mean()),
        "parameters": total,
        "without embeddings": total - ranker.encoder.items.embedding.weight.numel(),
        "requests": len(rows_R),
        "device": name_of(device),
        "bf16": execution.bf16,
    }


def fitted(x_P: np.ndarray, regret_PS: np.ndarray, seed: int = 0) -> Law:
    """The law through all points (its exponent), and through all but the largest x (its prediction).

    Raises:
        ValueError: a regret or an x is not positive, or fewer than three points.
    """
    if len(x_P) < 3 or (x_P <= 0).any() or (regret_PS <= 0).any():
        raise ValueError(f"{len(x_P)} points found, expected three or more, with positive x and regret")
    order_P = np.argsort(x_P)
    log_x_P, log_PS = np.log(x_P[order_P].astype(float)), np.log(regret_PS[order_P])
    points, seeds = log_PS.shape
    mean_P = log_PS.mean(axis=1)
    residuals = ((log_PS - mean_P[:, None]) * np.sqrt(seeds / max(1, seeds - 1))).ravel()
    drawn_DPS = np.random.default_rng(seed).choice(residuals, (DRAWS, points, seeds))
    log_DP = np.concatenate([mean_P[None], mean_P + drawn_DPS.mean(axis=2)])  # the first row is no draw
    slope_D, _ = _line(log_x_P, log_DP)
    slope_held_D, intercept_held_D = _line(log_x_P[:-1], log_DP[:, :-1])
    predicted_D = np.exp(intercept_held_D + slope_held_D * log_x_P[-1])
    low, high = np.percentile(-slope_D[1:], [2.5, 97.5])
    predicted_low, predicted_high = np.percentile(predicted_D[1:], [2.5, 97.5])
    observed = np.exp(mean_P[-1])
    values = (-slope_D[0], low, high, predicted_D[0], predicted_low, predicted_high, observed)
    return Law(*(float(value) for value in values))


def _line(x_P: np.ndarray, y_DP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of each row by least squares."""
    centred_P = x_P - x_P.mean()
    slope_D = (y_DP @ centred_P) / (centred_P @ centred_P)
    return slope_D, y_DP.mean(axis=1) - slope_D * x_P.mean()
