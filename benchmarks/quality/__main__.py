"""The whole field and GoalRank under equal conditions: `python -m benchmarks.quality --world movielens|simulator`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.devices import DEVICES, require
from benchmarks.quality import movielens
from benchmarks.quality.claims import claims_of
from benchmarks.quality.comparison import compare
from benchmarks.quality.figure import draw
from benchmarks.quality.methods import METHODS, ORDERS
from benchmarks.quality.settings import FULL, LONG, OURS, QUICK, SHOWN
from benchmarks.quality.stages import KINDS, MOVIELENS, Place
from benchmarks.quality.study import conduct
from benchmarks.quality.tables import printed, rows_of
from benchmarks.report import Claim, Row, positive, result_file, run
from goalrank.errors import GoalRankError, UsageError

CACHE = Path(__file__).parents[2] / ".goalrank" / "benchmarks" / "quality"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    given = _parser().parse_args(argv)
    scale = given.scale
    try:
        methods, kinds = _methods(given.methods), _kinds(given.world, given.kinds)
        if scale is SHOWN and given.world != MOVIELENS:
            raise UsageError(
                f"--shown-alone found with --world {given.world}, expected {MOVIELENS}, where users chose; leave it out"
            )
        require(given.device)
        if given.world == MOVIELENS:
            movielens.require_files(given.data)
    except GoalRankError as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code
    place = Place(given.world, scale, given.cache.resolve(), given.data.resolve(), given.device)
    torch.set_num_threads(1)

    def measured(_: bool) -> tuple[list[Row], list[Claim]]:
        found = conduct(place, methods, given.seeds or scale.seeds, given.jobs, kinds)
        comparisons = {kind: compare(found, kind) for kind in kinds}
        return rows_of(found, comparisons), claims_of(given.world, comparisons)

    options = ["--quick"] * (scale is QUICK) + (["--json", str(given.json)] if given.json else [])
    run(
        f"quality_{given.world}{'' if scale in (FULL, QUICK) else f'_{scale.name}'}",
        measured,
        argv=options,
        figure=partial(draw, given.world),
        printed=printed,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--world", choices=tuple(KINDS), required=True)
    parser.add_argument("--data", type=Path, default=movielens.DATA, help="GroupLens' MovieLens-1M files")
    parser.add_argument("--cache", type=Path, default=CACHE, help="finished runs; a study goes on from them")
    parser.add_argument("--methods", default="", help=f"some of {','.join(METHODS)}; the orders always")
    parser.add_argument("--kinds", default="", help=f"some of {','.join(KINDS[MOVIELENS])}, of MovieLens' candidates")
    parser.add_argument("--seeds", type=positive, help=f"instead of {FULL.seeds}")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one torch thread each")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="what models learn and answer on")
    parser.set_defaults(scale=FULL)
    scale = parser.add_mutually_exclusive_group()
    for option, made, text in (
        ("--quick", QUICK, "minutes on one core: shows that it runs, no result"),
        ("--long", LONG, "four times the steps; for a GPU"),
        ("--shown-alone", SHOWN, "the reward model learns from shown lists alone"),
    ):
        scale.add_argument(option, dest="scale", action="store_const", const=made, help=text)
    parser.add_argument("--json", type=result_file, metavar="FILE", help="the result, a figure beside it")
    return parser


def _methods(named: str) -> tuple[str, ...]:
    """The methods to compare, in the table's order; GoalRank and the orders are always among them.

    Raises:
        UsageError: one is unknown.
    """
    wanted = [name for name in named.split(",") if name]
    unknown = [name for name in wanted if name not in METHODS]
    if unknown:
        raise UsageError(f"method {unknown[0]!r} found, expected some of {', '.join(METHODS)}")
    return tuple(name for name in METHODS if not wanted or name in wanted or name in ORDERS or name == OURS)


def _kinds(world: str, named: str) -> tuple[str, ...]:
    """The kinds of candidates to compare on, in the world's order.

    Raises:
        UsageError: the world has no such kind.
    """
    wanted = [kind for kind in named.split(",") if kind]
    unknown = [kind for kind in wanted if kind not in KINDS[world]]
    if unknown:
        raise UsageError(f"kind {unknown[0]!r} found, expected some of {', '.join(KINDS[world])} in world {world}")
    return tuple(kind for kind in KINDS[world] if not wanted or kind in wanted)


if __name__ == "__main__":
    sys.exit(main())
