"""Many replays of a benchmark's cases, spread over all processors, one BLAS thread a process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Protocol, TypeVar

from threadpoolctl import threadpool_limits

from benchmarks.report import progress

CHUNK = 25
"""Replays a process takes at a time, where there are many."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What OpenMP and the BLAS libraries read their number of threads from."""


class Replayed(Protocol):
    """One row of a table."""

    @property
    def replays(self) -> int: ...


AnyCase = TypeVar("AnyCase", bound=Replayed)
Outcome = TypeVar("Outcome")


def spread(replay: Callable[[AnyCase, int], Outcome], cases: Sequence[AnyCase]) -> list[list[Outcome]]:
    """What each case's replays came to: replay(case, seed) for its seeds 0, 1, ..., in their order.

    `replay` travels to other processes: a function of a module, or a partial of one.
    """
    # Spawned, since threads may hold locks here; one BLAS thread each, since more would wait for one another.
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn"), initializer=_one_thread) as workers:
        waiting = []
        for case in cases:
            size = max(1, min(CHUNK, case.replays // 10))
            seeds = [range(first, min(first + size, case.replays)) for first in range(0, case.replays, size)]
            waiting.append([workers.submit(_some, replay, case, some) for some in seeds])
        found = []
        for case, parts in zip(cases, waiting, strict=True):
            found.append([one for part in parts for one in part.result()])
            progress(f"{case.replays} replays of {case}")
    return found


def _one_thread() -> None:
    # The limit binds the libraries that are loaded by now, the variables those that a replay loads later.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    threadpool_limits(1)


def _some(replay: Callable[[AnyCase, int], Outcome], case: AnyCase, seeds: range) -> list[Outcome]:
    return [replay(case, seed) for seed in seeds]
