"""Every method by its name: how it is trained in the study, and asked for lists and scores.

    random, retriever-ascending, retriever-descending, sequence    nothing is trained: ORDERS
    the rest of goalrank.baselines.NAMES                           the field, by its own harness
    goalrank                                                       as the night trains it

One budget for all: `preset.reward_steps + preset.ranker_steps` optimiser steps over all parts of a method. Who has an
evaluator or a guide (the reward model of the seed, the same for all that give it as many steps and are as wide) has
spent the first part on it, how much its trial says; who has none trains so much longer.

What is kept: the field's parts and the guide at their best held-out loss (a tenth of the training requests is held
out), GoalRank at its last step.

Shapes: B requests, N candidates, L positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.devices import device_of
from benchmarks.quality.problem import TRAIN, Problem
from benchmarks.quality.settings import OURS, Trial
from goalrank import baselines
from goalrank.baselines.harness import Lesson
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes, RequestEncoder, z_scored
from goalrank.policies import top_lists
from goalrank.presets import Preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH

BATCH = 256

GENERATOR_EVALUATOR, LIST_WISE, POINTWISE, ORDER = "generator-evaluator", "list-wise", "pointwise", "order"
_FAMILIES = {
    "g-e": GENERATOR_EVALUATOR,
    "mg-e-3": GENERATOR_EVALUATOR,
    "mg-e-20": GENERATOR_EVALUATOR,
    "mg-e-100": GENERATOR_EVALUATOR,
    "pier": GENERATOR_EVALUATOR,
    "nar4rec": GENERATOR_EVALUATOR,
    "dlcm": LIST_WISE,
    "prm": LIST_WISE,
    "mir": LIST_WISE,
    "dnn": POINTWISE,
    OURS: "ours",
}
WITH_REWARD = "+r"
"""What the names of variants that get the reward model's signal end in."""

Answer = tuple[Tensor, Tensor | None]
"""lists_BL and, where the method has them, scores_BN."""


@dataclass
class Method:
    """A method ready to answer."""

    answer: Callable[[RequestBatch, bool], Answer]  # (batch, scores wanted)
    parameters: int  # of all that is needed to answer
    figures: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"  # that it answers on


def _sequence_scores(batch: RequestBatch, encoder: RequestEncoder) -> Tensor:
    _, _, taste_BD = encoder.encode_history(batch.history_items_BH, batch.history_topics_BH)
    return (encoder.items(batch.item_id_BN, batch.item_topics_BNT) * taste_BD[:, None]).sum(dim=-1)


def _random_scores(batch: RequestBatch, _: RequestEncoder) -> Tensor:
    drawn = torch.Generator().manual_seed(int(batch.item_id_BN.sum()) % 2**31)
    return torch.rand(batch.mask_BN.shape, generator=drawn).to(batch.mask_BN.device)


ORDERS: dict[str, Callable[[RequestBatch, RequestEncoder], Tensor]] = {
    "random": _random_scores,
    "retriever-ascending": lambda batch, _: -batch.score_BN,
    "retriever-descending": lambda batch, _: batch.score_BN,
    "sequence": _sequence_scores,
}
"""scores_BN of what needs no training; always in the table."""

FIELD = tuple(name for name in baselines.NAMES if name not in ORDERS)
METHODS = (*ORDERS, *FIELD, OURS)


def family(name: str) -> str:
    """What kind of method it is; a variant with the reward model's signal is of its original's."""
    return ORDER if name in ORDERS else _FAMILIES.get(name.removesuffix(WITH_REWARD), "other")


def needs_guide(name: str, preset: Preset) -> bool:
    """Whether the method has an evaluator or a guide."""
    if name == OURS:
        return True
    policy = _untrained(name, ModelSizes.from_preset(preset))
    return has_evaluator(name, preset) or bool(getattr(policy, "with_reward", False))


def has_evaluator(name: str, preset: Preset) -> bool:
    """Whether the method is two models when it answers."""
    return name in FIELD and hasattr(_untrained(name, ModelSizes.from_preset(preset)), "evaluator")


def modules_of(name: str, preset: Preset) -> tuple[str, ...]:
    """Python modules that hold the classes a method of the field is made of."""
    if name not in FIELD:
        return ()
    parts = _untrained(name, ModelSizes.from_preset(preset)).modules()
    return tuple(sorted({type(part).__module__ for part in parts if type(part).__module__.startswith("goalrank.")}))


@lru_cache(maxsize=64)
def _untrained(name: str, sizes: ModelSizes) -> baselines.Baseline:
    with torch.random.fork_rng():
        return baselines.build(name, sizes)


# ----------------------------------------------------------------------------------------------------------- training


def train(
    name: str,
    problem: Problem,
    encoder: RequestEncoder,
    guide: RewardModel,
    preset: Preset,
    seed: int,
    trial: Trial,
    watch: Callable[[int, Ranker], None] | None = None,
    device: str = "cpu",
) -> Method:
    """Train the method of that name on the problem's training requests.

    Args:
        name: one of METHODS.
        problem: whose TRAIN requests to learn from.
        encoder: pretrained on the next item.
        guide: the reward model of this seed, trained on the same requests; the evaluators are it.
        preset: sizes and steps, those of the guide and those that are left.
        seed: of everything random.
        trial: changes the preset's learning rate, and GoalRank's objective.
        watch: of GoalRank alone, as goalrank.train.train_ranker's.
        device: where to train, and to answer later; encoder and guide may come from the CPU.

    Raises:
        ModelRefused: a loss or a weight is not finite.
    """
    if name in ORDERS:
        return _ordered(name, encoder, device)
    preset = replace(preset, learning_rate=preset.learning_rate * trial.rate)
    if name == OURS:
        from benchmarks.quality.ours import train_ours  # it is made of this module's Method

        return train_ours(problem, guide, preset, seed, trial, watch, device)
    steps = preset.ranker_steps if needs_guide(name, preset) else preset.ranker_steps + preset.reward_steps
    lesson = Lesson(
        problem.data, problem.rows[TRAIN], encoder, preset, seed, guide, steps, device, from_evaluator=trial.from_guide
    )
    trained = baselines.train(name, lesson)
    policy = trained.policy.to(device)

    def answer(batch: RequestBatch, scored: bool) -> Answer:
        return policy.rank(batch, LIST_LENGTH), item_scores(policy, batch) if scored else None

    return Method(answer, size_of(policy), {"parts": trained.figures}, device)


def _ordered(name: str, encoder: RequestEncoder, device: str) -> Method:
    encoder = encoder.to(device)

    def answer(batch: RequestBatch, scored: bool) -> Answer:
        scores_BN = ORDERS[name](batch, encoder)
        return top_lists(scores_BN, batch.mask_BN, LIST_LENGTH), scores_BN

    size = size_of(encoder.items) + size_of(encoder.history) if name == "sequence" else 0
    return Method(answer, size, device=device)


def size_of(module: nn.Module) -> int:
    """Its weights."""
    return sum(weight.numel() for weight in module.parameters())


# ------------------------------------------------------------------------------------------------------------- asking


def item_scores(policy: nn.Module, batch: RequestBatch) -> Tensor | None:
    """scores_BN of the part that scores single candidates, for pointwise metrics; None where there is none.

    Of several generators the mean of their z-scored scores; of a matching of candidates and places the first place's.
    """
    if hasattr(policy, "scorer"):
        return policy.scorer.scores(batch)
    if hasattr(policy, "generators"):
        scores_BKN = policy.generators.scores(batch)
        B, K, N = scores_BKN.shape
        mask_XN = batch.mask_BN[:, None].expand(B, K, N).flatten(0, 1)
        return z_scored(scores_BKN.flatten(0, 1), mask_XN).view(B, K, N).mean(dim=1)
    if hasattr(policy, "permuter"):
        return policy.permuter.scorer(policy.permuter.encoder(batch).candidates_BND).squeeze(-1)
    if hasattr(policy, "generator"):
        return policy.generator.match(policy.generator.encoder(batch), 1)[0][:, 0]
    return None


@torch.inference_mode()
def ask(method: Method, problem: Problem, split: str, *, scored: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """lists_RL and, if wanted and had, scores_RN for all requests of a split."""
    rows_R = problem.rows[split]
    width = int(problem.data.candidates.lengths[rows_R].max(initial=1))
    lists, scores = [], []
    for batch in batches(problem, rows_R, method.device):
        lists_BL, scores_BN = method.answer(batch, scored)
        lists.append(lists_BL.cpu().numpy())
        if scored and scores_BN is not None:
            scores.append(np.pad(scores_BN.cpu().numpy(), ((0, 0), (0, width - scores_BN.shape[1]))))
    return np.concatenate(lists), np.concatenate(scores) if scores else None


@torch.inference_mode()
def opinion(guide: RewardModel, problem: Problem, split: str, lists_RL: np.ndarray) -> float:
    """The mean of what a reward model expects of a list for each request of a split."""
    total, done = 0.0, 0
    for batch in batches(problem, problem.rows[split], device_of(guide)):
        lists_B1L = torch.from_numpy(lists_RL[done : done + len(batch), None]).to(batch.mask_BN.device)
        total += float(guide.reward(guide.encode(batch), lists_B1L).double().sum())
        done += len(batch)
    return total / max(done, 1)


def batches(problem: Problem, rows_R: np.ndarray, device: torch.device | str = "cpu") -> Iterator[RequestBatch]:
    """The requests, BATCH at a time."""
    for begin in range(0, len(rows_R), BATCH):
        yield problem.data.batch(rows_R[begin : begin + BATCH]).to(device)
