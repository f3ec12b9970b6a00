"""The pieces of a study in their order, on several processes, with an estimate of what is left.

data -> encoders -> the guide's trials (seed 0) -> every method's trials (seed 0) -> encoders of other widths, guides
                                          -> the other seeds
                                          -> in the simulator: guides judged, stand-in, searches, overtraining
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.quality import ours
from benchmarks.quality.methods import ORDERS, has_evaluator, needs_guide
from benchmarks.quality.settings import (
    ONE_GUIDED_MODEL_TRIALS,
    ONE_MODEL_TRIALS,
    OURS,
    RATE_TRIALS,
    TWO_MODELS_TRIALS,
    Scale,
    Trial,
)
from benchmarks.quality.stages import KINDS, SIMULATOR, STAND_IN, Place, Task, cached, encoder_task, perform, problem_of
from benchmarks.report import progress

GUIDE = "guide"
"""Under this name the guide's trials stand in the table of trials."""


@dataclass
class Results:
    """What a study found: tasks and their results, by kind of candidates."""

    place: Place
    seeds: tuple[int, ...]
    runs: dict[str, dict[str, list[Task]]] = field(default_factory=dict)  # kind -> method -> a task a seed
    trials: dict[str, dict[str, list[tuple[Task, dict[str, Any]]]]] = field(default_factory=dict)
    searches: dict[str, list[Task]] = field(default_factory=dict)  # kind -> one a seed whose guide was not refused
    stand_in: dict[str, Task] = field(default_factory=dict)  # kind -> the search of the stand-in
    judged: dict[str, list[Task]] = field(default_factory=dict)  # kind -> one a guide that is searched
    overtrained: dict[str, Task] = field(default_factory=dict)
    results: dict[Task, dict[str, Any]] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)


def trials_of(scale: Scale, method: str) -> tuple[Trial, ...]:
    """The method's trials."""
    if method == OURS:
        trials = ours.TRIALS
    elif method == GUIDE:
        trials = RATE_TRIALS
    elif has_evaluator(method, scale.preset):
        trials = TWO_MODELS_TRIALS
    else:
        trials = ONE_GUIDED_MODEL_TRIALS if needs_guide(method, scale.preset) else ONE_MODEL_TRIALS
    return trials[: scale.trials]


def conduct(place: Place, methods: Sequence[str], seeds: int, jobs: int, kinds: Sequence[str] | None = None) -> Results:
    """Do what is not in the cache yet.

    Args:
        place: world, scale, cache and data.
        methods: of methods.METHODS.
        seeds: 0, 1, ... so many.
        jobs: processes, each with one torch thread; 1: in this one.
        kinds: of candidates; all of the world's where none is named.
    """
    kinds = kinds or KINDS[place.world]
    place.cache.mkdir(parents=True, exist_ok=True)
    found = Results(place, tuple(range(seeds)))
    if jobs == 1:
        return _conduct(found, methods, kinds, None)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _one_thread) as pool:
        return _conduct(found, methods, kinds, pool)


def _conduct(found: Results, methods: Sequence[str], kinds: Sequence[str], pool: Executor | None) -> Results:
    place, seeds, scale = found.place, found.seeds, found.place.scale
    first = KINDS[place.world][0]  # whose sequences the encoders learn from
    _wave(found, "data", [Task("data", kind) for kind in dict.fromkeys((first, *kinds))], pool)
    _wave(found, "encoders", [Task("encoder", first, seed) for seed in seeds], pool)

    tried = {kind: [Task("guide", kind, trial=trial) for trial in trials_of(scale, GUIDE)] for kind in kinds}
    _wave(found, "guides: trials", [task for tasks in tried.values() for task in tasks], pool)
    guides = {kind: _best(found, tasks, "held_out_loss", largest=False).trial for kind, tasks in tried.items()}

    runs: dict[str, dict[str, list[Task]]] = {kind: {} for kind in kinds}
    for kind in kinds:
        for method in methods:
            trials = (Trial(),) if method in ORDERS else trials_of(scale, method)
            runs[kind][method] = [
                Task("run", kind, 0, method, trial, replace(guides[kind], guided=trial.guided, width=trial.width))
                for trial in trials
            ]
    _wave(found, "encoders: other widths", encoder_tasks(runs), pool)
    _wave(found, "guides: other shares of the steps and widths", guides_of(runs), pool)
    _wave(found, "methods: trials", tasks_of(runs), pool)
    for kind in kinds:
        found.trials[kind] = {GUIDE: [(task, found.results[task]) for task in tried[kind]]}
        found.runs[kind] = {}
        for method, tasks in runs[kind].items():
            found.trials[kind][method] = [(task, found.results[task]) for task in tasks]
            chosen = _best(found, tasks, problem_of(place, kind).selected_by, largest=True)
            found.runs[kind][method] = [replace(chosen, seed=seed) for seed in seeds]
    _wave(found, "encoders", encoder_tasks(found.runs), pool)
    _wave(found, "guides", guides_of(found.runs), pool)
    _wave(found, "methods", tasks_of(found.runs), pool)

    if place.world == SIMULATOR:
        for kind in kinds:
            guided = found.runs[kind].get(OURS)
            _truth_of(found, kind, guided[0].guide if guided else guides[kind], pool)
    return found


def tasks_of(runs: dict[str, dict[str, list[Task]]]) -> list[Task]:
    """All tasks of runs by kind and method."""
    return [task for of_kind in runs.values() for of_method in of_kind.values() for task in of_method]


def encoder_tasks(runs: dict[str, dict[str, list[Task]]]) -> list[Task]:
    """The encoders that these runs begin with."""
    return list(dict.fromkeys(encoder_task(task) for task in tasks_of(runs)))


def guides_of(runs: dict[str, dict[str, list[Task]]]) -> list[Task]:
    """The guides that these runs need."""
    return list(dict.fromkeys(Task("guide", task.kind, task.seed, trial=task.guide) for task in tasks_of(runs)))


def _truth_of(found: Results, kind: str, guide: Trial, pool: Executor | None) -> None:
    """What only a world with a known truth can tell; `guide`, GoalRank's, is judged and its best lists are searched,
    but for the seeds in which it was refused."""
    guided = [seed for seed in found.seeds if "refused" not in found.results[Task("guide", kind, seed, trial=guide)]]
    found.judged[kind] = [Task("judged", kind, seed, guide=guide) for seed in guided]
    _wave(found, "guides judged", found.judged[kind], pool)
    _wave(found, "stand-in", [Task("stand_in", kind)], pool)
    found.searches[kind] = [Task("search", kind, seed, guide=guide) for seed in guided]
    found.stand_in[kind] = Task("search", kind, method=STAND_IN)
    tasks = [*found.searches[kind], found.stand_in[kind]]
    trained = [task for task in found.runs[kind].get(OURS, []) if "refused" not in found.results[task]]
    if trained:
        found.overtrained[kind] = replace(trained[0], stage="overtrain")
        tasks.insert(0, found.overtrained[kind])  # the longest first
    _wave(found, "searches", tasks, pool)


def _best(found: Results, tasks: list[Task], metric: str, *, largest: bool) -> Task:
    """The task whose figure is best: of a run its validation mean. One that was refused never is, unless all were."""

    def figure(task: Task) -> float:
        result = found.results[task]
        if "refused" in result:
            return float("-inf")
        value = result["validation"][metric] if "validation" in result else result[metric]
        return value if largest else -value

    return max(tasks, key=figure)


def _wave(found: Results, note: str, tasks: list[Task], pool: Executor | None) -> None:
    """Do the tasks; all they depend on is done."""
    wanted = [task for task in dict.fromkeys(tasks) if task not in found.results]
    ready = [task for task in wanted if cached(found.place, task)]
    missing = [task for task in wanted if task not in set(ready)]
    found.results.update({task: perform(found.place, task) for task in ready})
    if not missing:
        return
    progress(f"{note}: {len(missing)} to do, {len(ready)} in the cache")
    if pool is None:
        done = ((task, perform(found.place, task)) for task in missing)
    else:
        futures = {pool.submit(perform, found.place, task): task for task in missing}
        done = ((futures[future], future.result()) for future in as_completed(futures))
    begun = time.perf_counter()
    for number, (task, result) in enumerate(done, start=1):
        found.results[task] = result
        left = (time.perf_counter() - begun) / number * (len(missing) - number)
        elapsed = (time.perf_counter() - found.begun) / 60
        progress(
            f"{note}: {number} of {len(missing)}, {task.name}: {result['seconds']:.0f} s"
            f"{', refused' if 'refused' in result else ''}; {elapsed:.0f} min so far, "
            f"these need about {left / 60:.0f} more"
        )


def _one_thread() -> None:
    torch.set_num_threads(1)
