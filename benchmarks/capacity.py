"""Theorem 1 as a picture: `python -m benchmarks.capacity [--quick] [--json FILE]`; the figure is written beside FILE.

The theorem (the paper of docs/method.md; a statement of what exists): for finite k there is, from width M = k alpha + n
on, a generator-only policy that is nearer to pi* than the best mixture of k generators of width alpha, and its error
goes to 0 as n grows. Here a world is small enough for every ordered list to be written down (capacity_world.py), pi* is
exact, and so is the error KL(pi* || pi) of any policy. capacity_policies.py defines the classes that are compared:

    generator only   one network of width M
    mixture          k generators of width ALPHA under weights that are free for every user: the theorem's C
    picked           k generators of width ALPHA propose, an evaluator that knows r* picks: beyond those mixtures

An error is the least found from several random starts: an upper bound of what the class can do, for every class alike.
So a claim that holds is evidence and no proof, and one that fails may be the optimiser's failure. Nothing here is
learnt from logs, samples or a reward model: all see pi* itself. It shows capacity, not what training on feedback finds.
Each start is kept on disk as it ends (--cache), and a run goes on from those that are there.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.capacity_figure import draw
from benchmarks.capacity_policies import ALPHA, Fit, PolicyClass, beyond, fit
from benchmarks.capacity_world import SmallWorld, small_world
from benchmarks.kept import digest_of, kept
from benchmarks.quality.stages import code_digest
from benchmarks.report import Claim, Row, claim, progress, run

CACHE = Path(__file__).parents[1] / ".goalrank" / "benchmarks" / "capacity"

LAST_SHARE = 0.01
"""Of the error of the narrowest generator-only model: what the widest may have left if the error goes to 0."""


@dataclass(frozen=True)
class Size:
    """Of a run."""

    users: int
    widths: tuple[int, ...]  # of generator only, beside those that the theorem names
    counts: tuple[int, ...]  # k
    starts: int
    steps: int
    picked_counts: tuple[int, ...]
    picked_starts: int
    picked_steps: int

    @property
    def all_widths(self) -> list[int]:
        """The grid and those of the theorem, for every k."""
        return sorted({*self.widths, *(beyond(count) for count in self.counts)})


Start = tuple[int, PolicyClass, int, int]
"""Users, class, seed, steps at most."""

FULL = Size(24, (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8, 16, 32), 8, 3000, (2, 4, 8, 16), 6, 1500)
QUICK = Size(12, (1, 2, 4, 8, 16, 64), (1, 2, 4), 2, 200, (2, 4), 2, 60)


def classes(size: Size) -> list[tuple[PolicyClass, int, int]]:
    """Every class with its starts and steps."""
    return [
        *((PolicyClass("generator only", 1, width), size.starts, size.steps) for width in size.all_widths),
        *((PolicyClass("mixture", count, ALPHA), size.starts, size.steps) for count in size.counts),
        *((PolicyClass("picked", count, ALPHA), size.picked_starts, size.picked_steps) for count in size.picked_counts),
    ]


def rows_for(size: Size, cache: Path, processes: int = 1) -> list[Row]:
    """One row a class, and the uniform policy's; `cache` is a folder for the starts that have ended."""
    world = _world(size.users)
    progress(
        f"{size.users} users, {len(world.lists_PL)} lists; pi* spreads over {np.exp(world.entropies).mean():.1f} of "
        f"them, the best list earns {world.list_gain:.1%} above the order by single items"
    )
    wanted = classes(size)
    tasks = [(size.users, policies, seed, steps) for policies, starts, steps in wanted for seed in range(starts)]
    fits = _fit_all(tasks, cache, processes)
    uniform = float(np.log(len(world.lists_PL)) - world.entropies.mean())
    rows: list[Row] = [{"policies": "uniform", "error": uniform}]
    for policies, starts, steps in wanted:
        found = sorted((fits.pop(0) for _ in range(starts)), key=lambda one: one.error)
        rows.append(
            {
                "policies": policies.kind,
                "k": policies.generators,
                "width": policies.generators * policies.width,
                "parameters": policies.parameters(world),
                "error": found[0].error,
                "second": found[min(1, starts - 1)].error,
                "median": float(np.median([one.error for one in found])),
                "reverse": found[0].reverse,
                "starts": starts,
                "steps": steps,
                "converged": sum(one.converged for one in found),
            }
        )
    return rows


def claims_of(rows: list[Row]) -> list[Claim]:
    """What the theorem says, what it says of the limit, and the same question to evaluators it does not speak of."""
    alone = {row["width"]: row["error"] for row in rows if row["policies"] == "generator only"}
    claims = []
    for kind, text in (("mixture", "the mixture of"), ("picked", "an evaluator that knows r* over")):
        for row in rows:
            if row["policies"] == kind:
                width = beyond(row["k"])
                name = (
                    f"error at width {width}, generator only, as a share of that of {text} {row['k']} of width {ALPHA}"
                )
                claims.append(claim(name, alone[width] / row["error"], "at most", 1.0))
    # A wider class holds the narrower, so that a rise is the optimiser's: noise, as long as the narrower one's median
    # start is not better than the wider one's best.
    alone_rows = sorted((row for row in rows if row["policies"] == "generator only"), key=lambda row: row["width"])
    rise = max(wide["error"] / narrow["median"] for narrow, wide in pairwise(alone_rows))
    name = "error of generator only, greatest ratio to the median start of the next narrower one"
    claims.append(claim(name, rise, "at most", 1.0))
    name = f"error of generator only at width {max(alone)}, as a share of that at width {min(alone)}"
    return [*claims, claim(name, alone[max(alone)] / alone[min(alone)], "at most", LAST_SHARE)]


def rows_of(quick: bool, cache: Path = CACHE) -> tuple[list[Row], list[Claim]]:
    """The table and its claims."""
    rows = rows_for(QUICK if quick else FULL, cache, os.cpu_count() or 1)
    return rows, claims_of(rows)


@lru_cache(maxsize=2)
def _world(users: int) -> SmallWorld:
    return small_world(users)


def _fit_one(cache: Path, code: str, task: Start) -> Fit:
    users, policies, seed, steps = task
    depends = {"users": users, "policies": asdict(policies), "seed": seed, "steps": steps, "code": code}

    def work(_: Path) -> dict[str, Any]:
        torch.set_num_threads(1)  # the tensors are small; a thread waits more than it works
        return {"fit": asdict(fit(policies, _world(users), seed, steps))}

    return Fit(**kept(cache / digest_of(depends), work)["fit"])


def _fit_all(tasks: Sequence[Start], cache: Path, processes: int) -> list[Fit]:
    """In the order of the tasks."""
    found: list[Fit] = []
    fit_one = partial(_fit_one, cache, code_digest(("benchmarks.capacity_policies",)))

    def told(task: Start, one: Fit) -> None:
        found.append(one)
        _, policies, seed, _ = task
        what = f"{policies.kind}, {policies.generators} x width {policies.width}, start {seed}"
        progress(f"{len(found)} of {len(tasks)}: {what}: {one.error:.5f} after {one.steps} steps")

    if processes == 1:
        for task in tasks:
            told(task, fit_one(task))
        return found
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for task, one in zip(tasks, pool.imap(fit_one, tasks), strict=True):
            told(task, one)
    return found


OPTIONS: dict[str, dict[str, Any]] = {
    "cache": {"type": Path, "default": CACHE, "metavar": "FOLDER", "help": "starts that have ended; a run goes on"},
}

if __name__ == "__main__":
    run("capacity", rows_of, (__doc__ or "").splitlines()[0], figure=draw, options=OPTIONS)
