"""The field GoalRank is compared with: one file a method, all on the shared encoders, trained by one harness.

    harness.py      what every method learns from, and the one training loop
    generators.py   k light scorers on one encoder, each with its own objective, requests and taste for diversity
    g_e.py          one generator and an evaluator
    mg_e.py         k generators and an evaluator
    pier.py         PIER: permutations selected by hashed interest, judged with context from all directions

A method is a module with `rank(batch, length) -> lists_BL`. `build` makes it untrained, `train` trains it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from goalrank.baselines import g_e, mg_e, pier
from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained, seeded
from goalrank.encoders import ModelSizes

_BUILD: dict[str, Callable[[ModelSizes], Baseline]] = {
    "g-e": g_e.GeneratorEvaluator,
    "mg-e-3": partial(mg_e.MultiGeneratorEvaluator, generators=3),
    "mg-e-20": partial(mg_e.MultiGeneratorEvaluator, generators=20),
    "mg-e-100": partial(mg_e.MultiGeneratorEvaluator, generators=100),
    "pier": pier.Pier,
}

NAMES = tuple(_BUILD)


def build(name: str, sizes: ModelSizes) -> Baseline:
    """The untrained method of that name (one of NAMES)."""
    return _BUILD[name](sizes)


def train(name: str, lesson: Lesson, progress: Progress | None = None) -> Trained:
    """Build and train the method of that name; it ends in evaluation mode.

    Raises:
        DataRefused: too few requests. ModelRefused: a loss is not finite.
    """
    seeded(lesson)
    return build(name, ModelSizes.from_preset(lesson.preset)).learn(lesson, progress)


__all__ = ["NAMES", "Baseline", "Lesson", "Trained", "build", "train"]
