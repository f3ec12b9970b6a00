"""What every baseline learns from, and the loop they all learn in: same requests, same steps, same start.

All begin with the encoder that was pretrained on the next item (docs/method.md, offline protocol), or, where the lesson
says so, with their evaluator's, take the optimiser
steps that the lesson says, and keep the weights of the best held-out loss; none stops early. Where a
method has an evaluator it is the list-level reward model, so it has the signal that GoalRank's groups are scored with.

Legend: B requests of a batch, E requests to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goalrank.dataset import Feedback, RequestBatch, TrainingSet
from goalrank.encoders import ModelSizes, RequestEncoder
from goalrank.errors import ModelRefused
from goalrank.presets import Preset
from goalrank.pretrain import SHARED_PARTS, Best, copy_pretrained
from goalrank.reward import RewardModel
from goalrank.reward_training import HELD_OUT_LIMIT, PRETRAINED_RATE, split
from goalrank.reward_training import train as train_reward
from goalrank.schedule import START, STEP, batch_rows, derived_seed, rate_share

Progress = Callable[[int, int], None]

CURVE_POINTS = 20
BETAS, WEIGHT_DECAY, CLIP_NORM = (0.9, 0.98), 1e-2, 5.0
"""As for the reward model (goalrank/reward_training.py)."""


@dataclass(frozen=True)
class Lesson:
    """The same for every method."""

    training_set: TrainingSet
    indices: np.ndarray  # requests to learn from, rows in examples.parquet
    encoder: RequestEncoder  # pretrained on the next item
    preset: Preset
    seed: int
    evaluator: RewardModel | None = None  # trained on the same requests; None: each method trains its own
    steps: int | None = None  # None: the preset's reward_steps
    device: str = "cpu"
    from_evaluator: bool = False
    """Begin with what fits of the evaluator's encoder, as GoalRank's ranker begins with its guide's."""

    @property
    def step_count(self) -> int:
        """Optimiser steps of each trained part."""
        return self.steps or self.preset.reward_steps


class Baseline(nn.Module):
    """A method of the field."""

    sizes: ModelSizes

    def rank(self, batch: RequestBatch, length: int) -> Tensor:
        """lists_BL of distinct candidate indices, -1 where a request has fewer than `length`."""
        raise NotImplementedError

    def learn(self, lesson: Lesson, progress: Progress | None = None) -> Trained:
        """Train every part; ends in evaluation mode on the CPU."""
        raise NotImplementedError


@dataclass
class Trained:
    """A trained method and how its training went."""

    policy: Baseline
    figures: dict[str, Any] = field(default_factory=dict)  # of each part; with "curves": {name: [[step, value], ...]}


class Learner(nn.Module):
    """A part that `fit` can train; its RequestEncoder is called `encoder`."""

    encoder: RequestEncoder

    def loss(
        self, batch: RequestBatch, feedback: Feedback, rows_B: np.ndarray | None, chance: torch.Generator
    ) -> Tensor:
        """The scalar to minimise.

        Args:
            batch: of the requests.
            feedback: to their logged lists.
            rows_B: which of the E requests they are; None while measuring on held-out ones.
            chance: for whatever is drawn; on the CPU.
        """
        raise NotImplementedError


def fit(model: Learner, lesson: Lesson, progress: Progress | None = None) -> dict[str, Any]:
    """Train a part in place; it ends in evaluation mode on the CPU.

    Returns:
        {"steps", "best_step", "requests", "held_out", "curves": {"loss", "held_out_loss"}}.

    Raises:
        DataRefused: fewer than two requests.
        ModelRefused: a loss is not finite.
    """
    copy_pretrained(lesson.encoder, model.encoder)
    if lesson.from_evaluator and lesson.evaluator is not None:
        # Not strict: a pointwise encoder (capacity.py) has no layers in which candidates see each other.
        model.encoder.load_state_dict(lesson.evaluator.encoder.state_dict(), strict=False)
    learning, held_out = split(np.asarray(lesson.indices), lesson.seed)
    held_out = held_out[:HELD_OUT_LIMIT]
    steps, preset, device = lesson.step_count, lesson.preset, lesson.device
    every = max(1, steps // CURVE_POINTS)
    curves: dict[str, list[list[float]]] = {"loss": [], "held_out_loss": []}
    kept, total = Best(), 0.0
    model.to(device).train()
    optimizer = torch.optim.AdamW(_groups(model, preset.learning_rate), betas=BETAS, weight_decay=WEIGHT_DECAY)
    highest = [group["lr"] for group in optimizer.param_groups]
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        for step in range(steps):
            torch.manual_seed(derived_seed(lesson.seed, STEP, step))  # dropout
            chance = torch.Generator().manual_seed(derived_seed(lesson.seed, STEP, step))
            for group, rate in zip(optimizer.param_groups, highest, strict=True):
                group["lr"] = rate * rate_share(step, steps)
            rows_B = batch_rows(len(learning), preset.batch_requests, step, lesson.seed)
            loss = _loss(model, lesson, learning[rows_B], rows_B, chance)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            value = float(loss.detach())
            if not math.isfinite(value) or not math.isfinite(float(norm)):
                raise ModelRefused(
                    f"{type(model).__name__} loss {value}, gradient norm {float(norm)} at step {step + 1}, expected "
                    "finite numbers; lower the learning rate or look for broken features"
                )
            optimizer.step()
            total += value
            if (step + 1) % every == 0 or step + 1 == steps:
                measured = _held_out_loss(model, lesson, held_out)
                curves["loss"].append([step + 1, total / (step % every + 1)])
                curves["held_out_loss"].append([step + 1, measured])
                total = 0.0
                kept.improves(step + 1, measured, model)
            if progress is not None:
                progress(step + 1, steps)
    kept.restore(model)
    model.to("cpu").eval()
    counts = {"steps": steps, "best_step": kept.step, "requests": len(learning), "held_out": len(held_out)}
    return {**counts, "curves": curves}


def fit_evaluator(model: RewardModel, lesson: Lesson, progress: Progress | None = None) -> dict[str, Any]:
    """Give `model` the lesson's evaluator, or train it as the night trains its guide; returns its figures."""
    if lesson.evaluator is not None:
        model.load_state_dict(lesson.evaluator.state_dict())
        model.eval()
        return {"given": True}
    copy_pretrained(lesson.encoder, model.encoder)
    return train_reward(
        model,
        lesson.training_set,
        lesson.indices,
        lesson.preset,
        lesson.seed,
        progress,
        steps=lesson.step_count,
        device=lesson.device,
    )


def learn_generators(
    policy: Baseline, generators: Learner, evaluator: RewardModel, lesson: Lesson, progress: Progress | None = None
) -> Trained:
    """Train a method's generators, then its evaluator (or take the lesson's)."""
    parts = 1 if lesson.evaluator is not None else 2
    figures = {
        "generators": fit(generators, lesson, part_of(progress, lesson, 0, parts)),
        "evaluator": fit_evaluator(evaluator, lesson, part_of(progress, lesson, 1, parts)),
    }
    policy.eval()
    return Trained(policy, figures)


def part_of(progress: Progress | None, lesson: Lesson, part: int, parts: int) -> Progress:
    """Progress of one trained part (counted from 0) as progress of the whole method."""
    steps = lesson.step_count
    return lambda done, _: None if progress is None else progress(part * steps + done, parts * steps)


def seeded(lesson: Lesson) -> None:
    """Seed torch for the initial weights of a method."""
    torch.manual_seed(derived_seed(lesson.seed, START, 0))


def best_of(model: RewardModel, batch: RequestBatch, lists_BGL: Tensor) -> Tensor:
    """lists_BL: of each request's lists the one the evaluator likes best, the first of equals."""
    best_B = model.reward(model.encode(batch), lists_BGL).argmax(dim=1)
    return lists_BGL[torch.arange(len(best_B), device=best_B.device), best_B]


def _loss(
    model: Learner, lesson: Lesson, indices_B: np.ndarray, rows_B: np.ndarray | None, chance: torch.Generator
) -> Tensor:
    data, device = lesson.training_set, lesson.device
    return model.loss(data.batch(indices_B).to(device), data.feedback(indices_B).to(device), rows_B, chance)


@torch.no_grad()
def _held_out_loss(model: Learner, lesson: Lesson, held_out: np.ndarray) -> float:
    """Mean loss over the held-out requests, with the same draws each time."""
    model.eval()
    chance, total = torch.Generator().manual_seed(lesson.seed + 1), 0.0
    for start in range(0, len(held_out), lesson.preset.batch_requests):
        indices_B = held_out[start : start + lesson.preset.batch_requests]
        total += float(_loss(model, lesson, indices_B, None, chance)) * len(indices_B)
    model.train()
    return total / len(held_out)


def _groups(model: Learner, rate: float) -> list[dict[str, Any]]:
    """Parameter groups: the pretrained parts learn more slowly, as in the reward model."""
    shared = tuple(f"encoder.{part}" for part in SHARED_PARTS)
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, weight in model.named_parameters():
        groups[name.startswith(shared)].append(weight)
    return [{"params": groups[False], "lr": rate}, {"params": groups[True], "lr": rate * PRETRAINED_RATE}]
