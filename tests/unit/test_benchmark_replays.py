"""Replays spread over processes: each seed once, in order, with one BLAS thread."""

from __future__ import annotations

import os
from dataclasses import dataclass

from threadpoolctl import threadpool_info

from benchmarks.replays import CHUNK, spread


@dataclass(frozen=True)
class Case:
    name: str
    replays: int


def tell(case: Case, seed: int) -> tuple[str, int, int, int]:
    import numpy  # noqa: F401  # brings BLAS, whose threads are asked for

    return case.name, seed, os.getpid(), max(one["num_threads"] for one in threadpool_info())


def test_each_seed_of_each_case_is_replayed_once_and_told_in_order() -> None:
    cases = [Case("many", 3 * CHUNK + 1), Case("few", 3)]
    found = spread(tell, cases)
    for case, told in zip(cases, found, strict=True):
        assert [(name, seed) for name, seed, _, _ in told] == [(case.name, seed) for seed in range(case.replays)]
    everybody = [one for told in found for one in told]
    assert os.getpid() not in {process for _, _, process, _ in everybody}
    assert {threads for *_, threads in everybody} == {1}
