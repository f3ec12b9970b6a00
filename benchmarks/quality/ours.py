"""GoalRank in the study, as a night trains it: groups of helper lists scored by the guide, then the ranker.

Apart from the field's methods, whose finished runs depend on nothing here (benchmarks/quality/stages.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.quality.methods import Answer, Method, size_of
from benchmarks.quality.problem import TRAIN, Problem
from benchmarks.quality.settings import WIDE, Trial
from goalrank.dataset import RequestBatch
from goalrank.execution import Execution
from goalrank.group_plan import planned, taught_by
from goalrank.groups import build_groups
from goalrank.objective import ObjectiveConfig
from goalrank.presets import Preset
from goalrank.processes import Processes
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.reward_training import split
from goalrank.schema import LIST_LENGTH
from goalrank.taught_helpers import taught_generators, with_lists_of
from goalrank.train import train_ranker

_TAUGHT = "helpers=retriever,shown,shown_perturbed,retriever_sampled lists=4 own=8 generators=8 taught=50"
TRIALS = (
    Trial(1.0, 0.25, guided=0.8),
    Trial(4.0, 0.25, 10.0),
    Trial(2.0, 0.25, plan=_TAUGHT, guided=0.8),
    Trial(1.0, 0.25),
    Trial(2.0, 0.25, 3.0, plan=_TAUGHT, guided=0.8),
    Trial(2.0, 0.25, 10.0, width=WIDE),
    Trial(1.0, 0.25, 10.0, width=WIDE),
    Trial(1.0, 0.25, plan=_TAUGHT, guided=0.8, width=WIDE),
)
"""A list's log-likelihood is some 12 nats, an item's some 3: at weight 10 the supervised term counts twice as much as
the group-relative one; in the authors' public code it counts a hundred times as much. What was tried on the validation
requests before these were chosen stands in docs/experiments.md."""


def train_ours(
    problem: Problem,
    guide: RewardModel,
    preset: Preset,
    seed: int,
    trial: Trial,
    watch: Callable[[int, Ranker], None] | None = None,
    device: str = "cpu",
) -> Method:
    """See :func:`benchmarks.quality.methods.train`; the preset's learning rate is the trial's already."""
    assert trial.temperature is not None
    taught, preset = taught_by(trial.plan), planned(preset, trial.plan)
    # What rivals hold out to keep their best weights by (harness.fit), and the guide: nobody learns from more.
    rows_R, mix = np.sort(split(problem.rows[TRAIN], seed)[0]), preset.helpers
    groups = build_groups(problem.data, rows_R, guide, preset.helper_lists, seed, mix=mix, device=device)
    if taught.generators:
        count, steps = taught.generators, taught.steps
        light = taught_generators(problem.data, rows_R, guide, preset, seed, count, steps, device=device)
        groups = with_lists_of(light, groups, problem.data, guide, device=device)
        preset = replace(preset, ranker_steps=preset.ranker_steps - steps)  # out of the same budget
    objective = ObjectiveConfig(temperature=trial.temperature, supervised_weight=trial.supervised)
    execution = Execution(Processes(device=device))
    trained = train_ranker(
        problem.data, groups, guide, preset, seed, objective=objective, watch=watch, execution=execution
    )
    ranker = trained.ranker

    def answer(batch: RequestBatch, scored: bool) -> Answer:
        encoded = ranker.encode(batch)
        return ranker.greedy(encoded, LIST_LENGTH), ranker.first_step_logits(encoded) if scored else None

    return Method(answer, size_of(ranker), {"curves": trained.curves}, device)
