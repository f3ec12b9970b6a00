"""How large the study is, and what each method's tuning trials are.

Every method gets as many trials, on seed 0, and is taken at the one that is best on the validation requests. The trials
of the field are learning rates and, where a method has a guide or an evaluator, what share of the steps that one gets
and whether the rest of the method begins with its encoder;
GoalRank's (ours.py) are learning rate, temperature, weight of the supervised term, plan of the groups and that share
together, and were chosen after a look at some ninety settings on those requests, which no rival had
(docs/experiments.md). The guide's learning rate is tuned like a method's, by its own held-out loss, at an even split.

About the same number of parameters at serving time (docs/method.md, offline protocol): a generator and its evaluator
are two models of the preset's width, so whoever is one model has half of its trials (GoalRank three of eight) at the
width at which one is as large.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from goalrank.presets import Preset, preset

OURS = "goalrank"


@dataclass(frozen=True)
class Trial:
    """One setting of a method."""

    rate: float = 1.0  # learning rate, as a share of the preset's
    temperature: float | None = None  # of GoalRank's reference policy
    supervised: float = 0.0  # weight of GoalRank's supervised term
    plan: str = ""  # of GoalRank's groups, where not as the preset makes them (goalrank/group_plan.py)
    guided: float = 0.5  # share of all steps that go into the guide or evaluator, where there is one
    from_guide: bool = False  # what the guide taught begins with the guide's encoder; GoalRank's ranker always does
    width: int = 0  # model width of the method, its guide and the encoder they begin with; 0: the preset's


WIDE = 88
"""One model of this width has about as many parameters as two of FULL's."""


def widened(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """The same at width WIDE."""
    return tuple(replace(trial, width=WIDE) for trial in trials)


RATE_TRIALS = (Trial(1.0), Trial(2.0), Trial(4.0), Trial(0.5))
"""Of the guide itself."""
GUIDED_TRIALS = (
    Trial(1.0),
    Trial(1.0, guided=0.8),
    Trial(4.0, guided=0.8),
    Trial(1.0, guided=0.8, from_guide=True),
)
"""Of those that have a guide or an evaluator. The last begins as GoalRank's ranker does."""
ONE_MODEL_TRIALS = RATE_TRIALS + widened(RATE_TRIALS)
ONE_GUIDED_MODEL_TRIALS = GUIDED_TRIALS + widened(GUIDED_TRIALS)
TWO_MODELS_TRIALS = (
    *GUIDED_TRIALS,
    Trial(4.0),
    Trial(1.0, from_guide=True),
    Trial(2.0, guided=0.8, from_guide=True),
    Trial(1.0, guided=0.2, from_guide=True),
)
"""Of a generator with an evaluator."""


def as_tried(preset: Preset, trial: Trial) -> Preset:
    """The preset at the trial's width, with its steps divided as the trial says between the guide and what it guides;
    its learning rate as it is."""
    both = preset.reward_steps + preset.ranker_steps
    guided = round(both * trial.guided)
    width = trial.width or preset.width
    return replace(preset, width=width, reward_steps=guided, ranker_steps=both - guided)


@dataclass(frozen=True)
class Scale:
    """The size of a study. Steps are optimiser steps; a method's own and its guide's add up to `preset.reward_steps +
    preset.ranker_steps`."""

    name: str
    preset: Preset
    pretrain_places: int  # predicted a step
    seeds: int
    trials: int
    train_requests: int  # at most, a seeded sample
    validation_requests: int  # at most, of MovieLens
    test_requests: int
    simulated_requests: int  # of the simulator's validation day at most, and of its test day
    days: int  # simulated
    world: tuple[tuple[str, int], ...]  # fields of the simulator's WorldConfig that are not its default
    random_lists: int  # shown to each training request, for the reward model that stands in for what features can know
    stand_in_steps: int
    watched_requests: int  # validation requests on which the ranker in training is asked
    overtraining: int  # the over-optimisation check trains so many times as long
    shown_alone: bool = False
    """The reward model learns from lists as they were shown, even where users chose among all candidates."""


FULL = Scale(
    name="full",
    preset=replace(
        preset("small"),
        name="quality",
        item_buckets=16384,
        pretrain_steps=1500,
        reward_steps=500,
        ranker_steps=500,
    ),
    pretrain_places=4096,
    seeds=5,
    trials=8,
    train_requests=41_000,
    validation_requests=2_000,
    test_requests=6_022,
    simulated_requests=2_000,
    days=16,
    world=(),
    random_lists=6,
    stand_in_steps=3_000,
    watched_requests=500,
    overtraining=4,
)

LONG = replace(FULL, name="long", preset=replace(FULL.preset, reward_steps=2000, ranker_steps=2000), trials=4)
"""Four times the steps, for a GPU: whether FULL's are too few. In the simulated world they are not. The first four
trials of each method, all at one width."""

SHOWN = replace(FULL, name="shown", trials=4, shown_alone=True)
"""An arm of its own (docs/method.md, offline protocol): a reward model that only ever saw shown lists. The first four
trials, all at one width."""

QUICK = Scale(
    name="quick",
    preset=replace(
        preset("tiny"),
        name="quality-quick",
        pretrain_steps=60,
        reward_steps=40,
        ranker_steps=40,
    ),
    pretrain_places=1024,
    seeds=2,
    trials=1,
    train_requests=4_000,
    validation_requests=200,
    test_requests=600,
    simulated_requests=150,
    days=5,
    world=(("users", 400), ("items", 300), ("requests_per_day", 600)),
    random_lists=2,
    stand_in_steps=80,
    watched_requests=100,
    overtraining=2,
)
