"""What each choice of the method is worth: `python -m benchmarks.ablations --study NAME|all`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.ablations import (
    bound,
    ceiling,
    choices,
    group_size,
    helpers,
    normalisation,
    objective,
    on_policy,
    runs,
    tables,
)
from benchmarks.ablations.settings import FULL, GOOD_GUIDE, QUICK
from benchmarks.ablations.study import Study
from benchmarks.devices import DEVICES, require
from benchmarks.quality.stages import SIMULATOR, Place
from benchmarks.report import Claim, Row, positive, result_file, run
from goalrank.errors import UsageError

STUDIES = {
    "objective": objective.study,
    "normalisation": normalisation.study,
    "group_size": group_size.study,
    "ceiling": ceiling.study,
    "on_policy": on_policy.study,
    "helpers": helpers.study,
    "choices": choices.study,
    "bound": bound.study,
}
"""In the order of `all`."""
ALL = "all"
CACHE = Path(__file__).parents[2] / ".goalrank" / "benchmarks" / "ablations"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    given = _parser().parse_args(argv)
    try:
        require(given.device)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    size = given.size
    names = list(STUDIES) if given.study == ALL else [given.study]
    studies = [STUDIES[name](size.thin) for name in names]
    if given.arms is not None:
        arms = [arm.name for study in studies for arm in study.arms]
        studies = [narrowed for study in studies if (narrowed := study.narrowed(given.arms)).arms]
        if not studies:
            expected = f"part of the name of an arm: {'; '.join(arms)}" if arms else "none: this study has no arms"
            print(f"--arms {given.arms.pattern!r} found, expected {expected}", file=sys.stderr)
            return UsageError.exit_code
    place = Place(SIMULATOR, size.scale, given.cache.resolve(), Path("unused"), given.device)
    torch.set_num_threads(1)
    claims: dict[str, list[Claim]] = {}

    def measured(_: bool) -> tuple[list[Row], list[Claim]]:
        rows: list[Row] = []
        if any(study.name != "bound" for study in studies):
            runs.prepare(place, size.seeds, given.jobs)
        for study in studies:
            found = _conducted(place, study, size.seeds, given.jobs)
            own = tables.rows_of(place, size, study, found)
            claims[study.name] = study.claims(own)
            rows += own
        return rows, [made | {"name": f"{name}: {made['name']}"} for name in claims for made in claims[name]]

    options = ["--quick"] * (size is QUICK) + (["--json", str(given.json)] if given.json else [])
    run(
        "ablations",
        measured,
        argv=options,
        figure=lambda rows, file: tables.write(file.with_suffix(".json"), size, studies, rows, claims),
    )
    return 0


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} found, expected a regular expression ({error})") from None


def _conducted(place: Place, study: Study, seeds: int, jobs: int) -> dict:
    """All arms of the first seed before any of the second: what is interrupted is a whole study with fewer seeds."""
    wanted = [runs.Run(arm, seed) for seed in range(seeds) for arm in study.arms]
    return runs.conduct(place, wanted, jobs, study.name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    parser.add_argument("--study", choices=(*STUDIES, ALL), required=True)
    only = "only arms with this in their name, and what these are compared with; nothing is claimed of them"
    parser.add_argument("--arms", type=_pattern, metavar="REGEX", help=only)
    parser.add_argument("--cache", type=Path, default=CACHE, help="finished runs; a study goes on from them")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one torch thread each")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="what models learn on")
    parser.set_defaults(size=FULL)
    size = parser.add_mutually_exclusive_group()
    for option, made, text in (
        ("--quick", QUICK, "minutes on one core: shows that it runs, no result"),
        ("--good-guide", GOOD_GUIDE, "logs, sizes and steps of benchmarks/quality"),
    ):
        size.add_argument(option, dest="size", action="store_const", const=made, help=text)
    parser.add_argument("--json", type=result_file, metavar="FILE", help="the result, tables and figures beside it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
