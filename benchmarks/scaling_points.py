"""One point of benchmarks/scaling.py: a ranker of some size, trained on some of the requests, and what it earns.

The paper let data grow with size; here one stays.

Shapes: R training requests.
"""

from __future__ import annotations

from dataclasses import replace
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

BF16_WIDTH = 128
"""From this width on a ranker learns in bf16, on whatever device: a size is learnt in one way."""
_ORDER_SEED = 23


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


def first_of(problem: Simulated, requests: int) -> np.ndarray:
    """rows_R: the first so many training requests, of one order that is the same for all."""
    return np.random.default_rng(_ORDER_SEED).permutation(problem.rows[TRAIN])[:requests]


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
    rows_R = first_of(problem, requests)
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
