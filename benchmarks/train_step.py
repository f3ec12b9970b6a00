"""A training step of the ranker against slower ways of the same loss: `python -m benchmarks.train_step [--quick]`.

Same weights, requests, lists and rewards, on one thread, dropout off: one teacher-forced pass (goalrank/ranker.py)
against an encoding for each position of each list (the authors' public code: 20 lists of 6, 120 encodings) and against
one encoding with a decoder pass for each position (benchmarks/ranker_steps.py says how). Repetitions of the ways take
turns; times are medians of CPU time, which on one thread is the clock's on an idle machine, and does not count what
other processes took. Peak memory is what one step adds, in a process of its own (benchmarks/peak_memory.py).

"night's step" is the step of goalrank/train.py as the night takes it: batch, dropout, sampled lists, their rewards and
the preset's own group. On a GPU also bf16, torch.compile and FLOPs utilisation (benchmarks/gpu_step.py).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_step import gpu_rows
from benchmarks.peak_memory import peak_megabytes
from benchmarks.ranker_steps import (
    AUTHORS_GROUP,
    CANDIDATES,
    ONE_GRAPH,
    OURS,
    REENCODING,
    STEPWISE,
    Work,
    backward,
    fresh,
    log_prob,
    prepared,
    step,
)
from benchmarks.report import Claim, Row, claim, progress, run
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.groups import build_groups
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH
from goalrank.train import train_ranker
from tests.synthetic import make_training_set

TARGETS = {REENCODING: 30.0, STEPWISE: 1.5}
LOSS_ROUNDING, GRADIENT_ROUNDING = 1e-5, 1e-4
"""Share of the loss, and of the gradient's length, by which float32 sums taken in another order may differ."""

EPOCH = 41_000  # requests, to compare with a rough loop's 25 to 75 s


@dataclass(frozen=True)
class Case:
    """The rows of one preset. The authors' batch is 512; re-encoding takes minutes with it."""

    preset: str
    requests: int
    repetitions: int
    group: int = AUTHORS_GROUP
    memory: bool = True
    graph_requests: int = 8  # of the one-graph memory row: it grows with requests x encodings
    night_steps: int = 12


FULL = [Case("tiny", 64, 9), Case("small", 128, 7), Case("base", 64, 3)]
QUICK = [Case("tiny", 32, 3), Case("small", 8, 3, memory=False, night_steps=4)]


def timed(call: Callable[[], object]) -> float:
    """CPU seconds it took."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def gradient(ranker: Ranker) -> torch.Tensor:
    """All gradients as one vector; clears them."""
    flat = torch.cat([weight.grad.flatten() for weight in ranker.parameters() if weight.grad is not None])
    ranker.zero_grad(set_to_none=True)
    return flat


def measure(case: Case) -> tuple[list[Row], list[Claim]]:
    """The rows of one preset and what is claimed of them."""
    ranker, optimizer = fresh(case.preset)
    work = Work.drawn(case.requests, case.group)
    ways = (OURS, STEPWISE, REENCODING)
    loss, slope = {}, {}
    for way in ways:
        progress(f"{case.preset}: loss and gradients, {way}")
        loss[way], slope[way] = backward(way, ranker, work), gradient(ranker)

    step_seconds: dict[str, list[float]] = {way: [] for way in ways}
    forward_seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways[:2]:
        step(way, ranker, optimizer, work)  # the optimiser's state and torch's own first calls
    for repetition in range(case.repetitions):
        progress(f"{case.preset}: repetition {repetition + 1} of {case.repetitions}")
        for at in range(len(ways)):
            way = ways[(at + repetition) % len(ways)]
            step_seconds[way].append(timed(lambda way=way: step(way, ranker, optimizer, work)))
            with torch.no_grad():
                forward_seconds[way].append(timed(lambda way=way: log_prob(way, ranker, work)))

    ours, ours_forward = np.median(step_seconds[OURS]), np.median(forward_seconds[OURS])
    rows, claims = [], []
    for way in ways:
        seconds, forward = float(np.median(step_seconds[way])), float(np.median(forward_seconds[way]))
        rows.append(
            {
                "preset": case.preset,
                "way": way,
                "requests": case.requests,
                "encodings": case.group * LIST_LENGTH if way == REENCODING else 1,
                "step_ms": 1e3 * seconds,
                "lists_s": work.lists / seconds,
                "step_ratio": float(seconds / ours),
                "log_prob_ms": 1e3 * forward,
                "log_prob_ratio": float(forward / ours_forward),
                "loss_off": abs(loss[way] - loss[OURS]) / abs(loss[OURS]),
                "gradient_off": float((slope[way] - slope[OURS]).norm() / slope[OURS].norm()),
            }
        )
        if case.memory:
            rows[-1] |= memory_of(case, way, case.requests)
        if way != OURS:
            claims += [
                claim(f"{case.preset}: lists per second over {way}", rows[-1]["step_ratio"], "at least", TARGETS[way]),
                claim(f"{case.preset}: loss beside {way}", rows[-1]["loss_off"], "at most", LOSS_ROUNDING),
                claim(f"{case.preset}: gradient beside {way}", rows[-1]["gradient_off"], "at most", GRADIENT_ROUNDING),
            ]
    for way in (OURS, ONE_GRAPH) if case.memory else ():
        row: Row = {"preset": case.preset, "way": way, "requests": case.graph_requests}
        rows.append(row | memory_of(case, way, case.graph_requests))
    rows.append(night_row(case))
    return rows, claims


def memory_of(case: Case, way: str, requests: int) -> Row:
    """The column of peak memory, in MB."""
    progress(f"{case.preset}: memory, {way}, {requests} requests")
    return {"memory_mb": peak_megabytes(prepared, way, case.preset, requests, case.group)}


def night_row(case: Case) -> Row:
    """The step of goalrank/train.py, data path and all, at the preset's own batch and group."""
    progress(f"{case.preset}: {case.night_steps} steps as the night takes them")
    chosen = preset(case.preset)
    chosen = replace(chosen, ranker_steps=case.night_steps, batch_requests=min(chosen.batch_requests, case.requests))
    torch.manual_seed(0)
    reward_model = RewardModel(ModelSizes.from_preset(chosen)).eval()
    with tempfile.TemporaryDirectory() as folder:
        make_training_set(Path(folder), requests=600, candidates=CANDIDATES)
        data = TrainingSet.load(folder)
    groups = build_groups(data, data.guide_indices(), reward_model, chosen.helper_lists, seed=0)
    ticks = [time.process_time()]
    train_ranker(
        data, groups, reward_model, chosen, 0, progress=lambda done, steps, note: ticks.append(time.process_time())
    )
    seconds = float(np.median(np.diff(ticks)[1:]))  # the first waits for the optimiser's state
    requests = min(chosen.batch_requests, len(groups))
    return {
        "preset": case.preset,
        "way": "night's step",
        "requests": requests,
        "step_ms": 1e3 * seconds,
        "lists_s": requests * chosen.group_size / seconds,
        "epoch_s": EPOCH / requests * seconds,
    }


def rows_of(quick: bool) -> tuple[list[Row], list[Claim]]:
    """The table and its claims."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows, claims = [], []
    try:
        for case in QUICK if quick else FULL:
            more_rows, more_claims = measure(case)
            rows, claims = rows + more_rows, claims + more_claims
        if torch.cuda.is_available():
            more_rows, more_claims = gpu_rows()
            rows, claims = rows + more_rows, claims + more_claims
    finally:
        torch.set_num_threads(threads)
    return rows, claims


if __name__ == "__main__":
    run("train_step", rows_of, __doc__ or "")
