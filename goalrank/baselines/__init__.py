"""The field GoalRank is compared with: one file a method, all on the shared encoders, trained by one harness.

    harness.py        what every method learns from, and the one training loop
    capacity.py       how large a method may be
    retriever.py      the retriever's order, down and up
    sequence.py       the pretrained next-item model alone
    scorers.py        what the methods that sort by a score have in common
    dnn.py            each candidate by itself
    dlcm.py           DLCM: a recurrent network over the initial ranking
    prm.py            PRM: a transformer over the initial ranking
    mir.py            MIR: candidates as a set and history as a list act on each other
    generators.py     k light scorers on one encoder, each with its own objective, requests and taste for diversity
    g_e.py            one generator and an evaluator
    mg_e.py           k generators and an evaluator
    pier.py           PIER: permutations selected by hashed interest, judged with context from all directions
    nar4rec.py        NAR4Rec: all places filled at once, lists decoded by contrast, an evaluator
    distillation.py   the reward model's signal for what learns from the log alone: the variants "...+r"

A method is a module with `rank(batch, length) -> lists_BL`. `build` makes it untrained, `train` trains it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from goalrank.baselines import dlcm, dnn, g_e, mg_e, mir, nar4rec, pier, prm, retriever, sequence
from goalrank.baselines.harness import Baseline, Lesson, Progress, Trained, seeded
from goalrank.baselines.scorers import TopScored
from goalrank.encoders import ModelSizes

_BUILD: dict[str, Callable[[ModelSizes], Baseline]] = {
    "retriever-ascending": partial(retriever.RetrieverOrder, descending=False),
    "retriever-descending": partial(retriever.RetrieverOrder, descending=True),
    "sequence": sequence.Sequence,
    "dnn": lambda sizes: TopScored(dnn.Dnn(sizes)),
    "dlcm": lambda sizes: TopScored(dlcm.Dlcm(sizes)),
    "prm": lambda sizes: TopScored(prm.Prm(sizes)),
    "mir": lambda sizes: TopScored(mir.Mir(sizes)),
    "g-e": g_e.GeneratorEvaluator,
    "mg-e-3": partial(mg_e.MultiGeneratorEvaluator, generators=3),
    "mg-e-20": partial(mg_e.MultiGeneratorEvaluator, generators=20),
    "mg-e-100": partial(mg_e.MultiGeneratorEvaluator, generators=100),
    "pier": pier.Pier,
    "nar4rec": nar4rec.Nar4Rec,
    "dlcm+r": lambda sizes: TopScored(dlcm.Dlcm(sizes), with_reward=True),
    "prm+r": lambda sizes: TopScored(prm.Prm(sizes), with_reward=True),
    "mir+r": lambda sizes: TopScored(mir.Mir(sizes), with_reward=True),
    "pier+r": partial(pier.Pier, with_reward=True),
    "nar4rec+r": partial(nar4rec.Nar4Rec, with_reward=True),
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
