"""Runs of arms, each kept under a digest of all it depends on; what comes before (world, encoders, guides) is
benchmarks/quality's own and kept in the same cache.

    CACHE/ablation/seed<seed>-<digest>/    result.json, requests.parquet: the true reward and H@6 of each test request
    CACHE/order/..., CACHE/best/...        how much of the order a signal has right; the best lists under r*
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.ablations.arms import Arm, Signal
from benchmarks.ablations.settings import Size
from benchmarks.ablations.signals import Truth
from benchmarks.ablations.training import order_of, reward_of, trained_arm
from benchmarks.devices import name_of
from benchmarks.kept import RESULT, digest_of, kept, result_of
from benchmarks.quality import stages
from benchmarks.quality.problem import TEST
from benchmarks.quality.simulated import KINDS, Simulated
from benchmarks.quality.stages import Place, Task, code_digest
from benchmarks.report import progress
from goalrank.checkpoint import load_model
from goalrank.errors import ModelRefused
from goalrank.reward import RewardModel

KIND = KINDS[0]
KEPT_FIGURES = ("reward", "h@6")


@dataclass(frozen=True)
class Run:
    """One arm, one seed."""

    arm: Arm
    seed: int


def prepare(place: Place, seeds: int, jobs: int = 1) -> None:
    """World, encoders and guides, unless they are there; seeds by so many processes."""
    place.cache.mkdir(parents=True, exist_ok=True)
    _make(place, data_task())
    missing = [seed for seed in range(seeds) if not stages.cached(place, guide_task(seed))]
    in_processes(_teach, [(place, seed) for seed in missing], jobs)


def in_processes(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], jobs: int) -> list[Any]:
    """work(*one) of each, in their order, by so many processes; what each makes it keeps."""
    if jobs == 1:
        return [work(*one) for one in arguments]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return [waiting.result() for waiting in [pool.submit(work, *one) for one in arguments]]


def _teach(place: Place, seed: int) -> None:
    _make(place, encoder_task(seed))
    _make(place, guide_task(seed))


def _make(place: Place, task: Task) -> None:
    if not stages.cached(place, task):
        progress(f"{task.stage}, seed {task.seed}")
        stages.perform(place, task)


def conduct(place: Place, runs: Sequence[Run], jobs: int, note: str) -> dict[Run, dict[str, Any]]:
    """Results of all runs, from the cache or by doing them."""
    missing = [run for run in dict.fromkeys(runs) if not (_folder(place, run) / RESULT).is_file()]
    if missing:
        progress(f"{note}: {len(missing)} runs to do, {len(set(runs)) - len(missing)} in the cache")
        begun = time.perf_counter()
        for number, (run, result) in enumerate(_done(place, missing, jobs), start=1):
            left = (time.perf_counter() - begun) / number * (len(missing) - number) / 60
            said = result.get("refused", f"{result.get('seconds', 0):.0f} s, reward {result.get('reward', 0):.4f}")
            progress(
                f"{note}: {number} of {len(missing)}, {run.arm.name}, seed {run.seed}: {said}; {left:.0f} min more"
            )
    return {run: result_of(_folder(place, run)) for run in runs}


def figures_of(place: Place, run: Run) -> dict[str, np.ndarray]:
    """Of each test request."""
    table = pq.read_table(_folder(place, run) / "requests.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


def order(place: Place, size: Size, signal: Signal, seed: int) -> dict[str, float]:
    """training.order_of the signal; of a guide, the seed's."""
    seed = 0 if signal.truth else seed
    depends = {"signal": Arm("", signal=signal).to_dict()["signal"], "requests": size.measured_groups}
    folder = place.cache / "order" / digest_of(depends | _before(place, seed))

    def work(_: Path) -> dict[str, Any]:
        model = reward_of(signal, guide_of(place, seed), truth_of(place))
        return order_of(problem_of(place), truth_of(place), model, size.measured_groups)

    return kept(folder, work)


def best_reward(place: Place) -> float:
    """Mean r* over the test requests of the best list found."""
    folder = place.cache / "best" / digest_of({"data": stages.digest(place, data_task())})
    return float(kept(folder, lambda _: {"reward": float(problem_of(place).best(TEST).mean())})["reward"])


@lru_cache(maxsize=2)
def problem_of(place: Place) -> Simulated:
    """The world's requests."""
    problem = stages.problem_of(place, KIND)
    assert isinstance(problem, Simulated)
    return problem


@lru_cache(maxsize=2)
def truth_of(place: Place) -> Truth:
    """r* of the training requests."""
    return Truth(problem_of(place))


@lru_cache(maxsize=8)
def guide_of(place: Place, seed: int) -> RewardModel:
    """The reward model of a seed."""
    model = load_model(stages.folder_of(place, guide_task(seed)) / "model")
    assert isinstance(model, RewardModel)
    return model


def _done(place: Place, missing: list[Run], jobs: int) -> Any:
    if jobs == 1:
        yield from ((run, _perform(place, run)) for run in missing)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(_perform, place, run): run for run in missing}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def _perform(place: Place, run: Run) -> dict[str, Any]:
    def work(folder: Path) -> dict[str, Any]:
        guide, preset = guide_of(place, run.seed), place.scale.preset
        try:
            problem, truth = problem_of(place), truth_of(place)
            found, figures = trained_arm(problem, truth, guide, preset, run.seed, run.arm, place.device)
            found["device"] = name_of(place.device)
        except ModelRefused as error:
            return {"refused": str(error)}  # an arm that diverges is a result
        columns = {name: np.asarray(figures[name], dtype=np.float32) for name in KEPT_FIGURES}
        pq.write_table(pa.table(columns), folder / "requests.parquet")
        return found

    return kept(_folder(place, run), work)


def _folder(place: Place, run: Run) -> Path:
    depends = run.arm.to_dict() | {"seed": run.seed} | _before(place, run.seed)
    return place.cache / "ablation" / f"seed{run.seed}-{digest_of(depends)}"


@lru_cache(maxsize=64)
def _before(place: Place, seed: int) -> dict[str, Any]:
    """What every run of a seed depends on: the guide's digest holds world, encoder and preset, but for the ranker's."""
    preset = place.scale.preset
    return {
        "guide": stages.digest(place, guide_task(seed)),
        "ranker": [preset.helper_lists, preset.on_policy_lists, preset.ranker_steps, preset.helpers, preset.refresh],
        "code": code_digest(("benchmarks.ablations.training",)),
    }


def data_task() -> Task:
    """The world's requests."""
    return Task("data", KIND)


def encoder_task(seed: int) -> Task:
    """Pretrained on the next item."""
    return Task("encoder", KIND, seed)


def guide_task(seed: int) -> Task:
    """The reward model, nothing tuned."""
    return Task("guide", KIND, seed)
