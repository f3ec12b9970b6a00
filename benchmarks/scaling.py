"""Generators or width: `python -m benchmarks.scaling [--quick] [--gpu] [--json FILE]`, the figure beside FILE.

    generators    MG-E with 3, 20 and 100 generators, and 1, 10 and 100 lists of each (scaling_generators.py)
    size          GoalRank at several sizes, data fixed            (scaling_points.py; scaling_law.py: the law)
    data          GoalRank on several amounts of data, size fixed  (the same)

In the simulated world, judged by the true reward: regret to the best list found. A ranker learns from r* itself, so
that what grows is the ranker and no reward model's ceiling is in it, and from the guide, in which it is (in "data" from
one that learnt from the same requests). Steps, batch and groups are the same at every point; nothing is tuned. Runs are
kept one by one in the cache of benchmarks/ablations, whose world this is. --gpu adds sizes up to about 100 M
parameters and computes on it whatever the cache does not hold; what a GPU has added stays in the table of a run
without one. Each row says what its runs were computed on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ablations import runs
from benchmarks.ablations import settings as ablations
from benchmarks.ablations.arms import TRUTH, Arm, Signal
from benchmarks.ablations.signals import Truth
from benchmarks.devices import name_of, require
from benchmarks.kept import RESULT, digest_of, kept
from benchmarks.quality import stages
from benchmarks.quality.problem import TEST, TRAIN
from benchmarks.quality.settings import Scale
from benchmarks.quality.stages import SIMULATOR, Place, code_digest
from benchmarks.report import Claim, Row, claim, positive, progress, result_file, run
from benchmarks.scaling_figure import draw, draw_with_larger
from benchmarks.scaling_generators import generators_and_evaluator, judged, size_of
from benchmarks.scaling_law import FEWEST_POINTS, Law, fitted
from benchmarks.scaling_points import first_of, sized, trained
from goalrank.checkpoint import load_model, save_model
from goalrank.encoders import ModelSizes
from goalrank.errors import ModelRefused, UsageError
from goalrank.presets import Preset
from goalrank.pretrain import copy_pretrained
from goalrank.reward import RewardModel
from goalrank.reward_training import train as train_reward

PARTS = ("generators", "size", "data")
CACHE = Path(__file__).parents[1] / ".goalrank" / "benchmarks" / "ablations"
SIGNALS = {"r*": TRUTH, "guide": Signal()}


@dataclass(frozen=True)
class Size:
    """Of all parts."""

    scale: Scale
    seeds: int
    generators: tuple[int, ...]
    lists: tuple[int, ...]  # of each generator
    judged_requests: int
    sizes: tuple[tuple[int, int], ...]  # width, layers of candidates and of the decoder
    gpu_sizes: tuple[tuple[int, int], ...]
    requests: tuple[int, ...]


FULL = Size(
    scale=ablations.FULL.scale,
    seeds=3,
    generators=(3, 20, 100),
    lists=(1, 10, 100),
    judged_requests=300,
    sizes=((8, 1), (16, 1), (24, 1), (40, 1), (64, 2), (96, 2)),
    gpu_sizes=((192, 3), (384, 4), (640, 6), (1024, 6)),
    requests=(500, 1000, 2000, 4000, 8000),
)
QUICK = Size(
    scale=ablations.QUICK.scale,
    seeds=2,
    generators=(3, 6),
    lists=(1, 4),
    judged_requests=20,
    sizes=((8, 1), (16, 1), (24, 1), (32, 1)),
    gpu_sizes=((40, 1),),
    requests=(15, 30, 45, 60),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    given = _parser().parse_args(argv)
    device = "cuda" if given.gpu else "cpu"
    try:
        require(device)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    size = QUICK if given.quick else FULL
    place = Place(SIMULATOR, size.scale, given.cache.resolve(), Path("unused"), device)
    parts = PARTS if given.part == "all" else (given.part,)
    torch.set_num_threads(1)

    def measured(_: bool) -> tuple[list[Row], list[Claim]]:
        runs.prepare(place, size.seeds)
        rows: list[Row] = []
        if "generators" in parts:
            rows += generator_rows(place, size, given.jobs)
        if "size" in parts:
            rows += size_rows(place, size, given.jobs)
        if "data" in parts:
            rows += data_rows(place, size, given.jobs)
        return rows, claims_of(rows)

    options = ["--quick"] * given.quick + (["--json", str(given.json)] if given.json else [])
    own = given.quick or given.gpu or "size" not in parts  # the figure's points are the table's own
    run("scaling", measured, argv=options, figure=draw if own else draw_with_larger)
    return 0


def generator_rows(place: Place, size: Size, jobs: int = 1) -> list[Row]:
    """One row for each number of generators and of lists, and GoalRank's as a night makes it."""
    best = runs.best_reward(place)
    problem, preset = runs.problem_of(place), place.scale.preset
    first = problem.best(TEST)[: size.judged_requests]
    rows: list[Row] = []
    seeds = range(size.seeds)
    wanted = [(place, size, count, seed) for count in reversed(size.generators) for seed in seeds]  # the longest first
    made = dict(zip([one[2:] for one in wanted], runs.in_processes(_generators, wanted, jobs), strict=True))
    for count in size.generators:
        found = [made[count, seed] for seed in seeds]
        for lists in size.lists:
            by_seed = [one["by lists"][str(lists)] for one in found]
            mean = {name: float(np.mean([one[name] for one in by_seed])) for name in by_seed[0]}
            rows.append(
                {
                    "part": "generators",
                    "method": f"mg-e-{count}",
                    "generators": count,
                    "lists of each": lists,
                    "scored": count * lists,
                    "distinct": round(mean["distinct"], 1),
                    "seeds": size.seeds,
                    "regret": round(float(first.mean()) - mean["reward"], 4),
                    "sd": _sd([one["reward"] for one in by_seed]),
                    "regret of best proposed": round(float(first.mean()) - mean["best proposed"], 4),
                    "mis-picks": round(mean["mis-picks"], 4),
                    "lost by them": round(mean["best proposed"] - mean["reward"], 4),
                    **{name: found[0][name] for name in ("parameters", "without embeddings", "parts")},
                }
            )
    ours = [runs.Run(Arm("goalrank"), seed) for seed in range(size.seeds)]
    runs.conduct(place, ours, jobs, "goalrank")
    rewards = [float(runs.figures_of(place, one)["reward"][: size.judged_requests].mean()) for one in ours]
    sized_like = _parameters(preset)
    row = {"part": "generators", "method": "goalrank", "scored": 0, "seeds": size.seeds, "sd": _sd(rewards)}
    regret = round(float(first.mean()) - float(np.mean(rewards)), 4)
    progress(f"generators: GoalRank's regret {regret}, over all test requests the best list earns {best:.4f}")
    return [*rows, {**row, "regret": regret, **sized_like, "parts": 1}]


def size_rows(place: Place, size: Size, jobs: int = 1) -> list[Row]:
    """GoalRank at each size, with r* and with the guide, and the laws."""
    requests = len(runs.problem_of(place).rows[TRAIN])
    presets = [sized(place.scale.preset, *one) for one in size.sizes]
    presets += [
        preset
        for preset in (sized(place.scale.preset, *one) for one in size.gpu_sizes)
        if place.device != "cpu"
        or all(
            _is_kept(place, preset, seed, requests, signal) for seed in range(size.seeds) for signal in SIGNALS.values()
        )
    ]
    found = _points(place, presets, [requests] * len(presets), size.seeds, jobs)
    return [row for name in SIGNALS for row in _series(place, f"size, {name}", "without embeddings", found[name])]


def data_rows(place: Place, size: Size, jobs: int = 1) -> list[Row]:
    """GoalRank on each amount of data, with r* and with a guide that learnt from the same requests, and the laws."""
    found = _points(place, [place.scale.preset] * len(size.requests), size.requests, size.seeds, jobs, own_guide=True)
    return [row for name in SIGNALS for row in _series(place, f"data, {name}", "requests", found[name])]


def claims_of(rows: list[Row]) -> list[Claim]:
    """What the paper says of generators and of size, and whether the laws foretell the point held out."""
    made: list[Claim] = []
    by = {(row["generators"], row["lists of each"]): row for row in rows if "generators" in row}
    ours = next((row["regret"] for row in rows if row.get("method") == "goalrank"), None)
    if by:
        counts, lists = (sorted({key[at] for key in by}) for at in (0, 1))
        if ours is not None:
            least = min(row["regret"] for row in by.values())
            made.append(claim("regret of GoalRank less the least of MG-E", ours - least, "at most", 0.0))
        few, most = by[counts[0], lists[0]], by[counts[-1], lists[-1]]
        name = f"mis-picks at {most['scored']} lists less those at {few['scored']}"
        made.append(claim(name, most["mis-picks"] - few["mis-picks"], "at least", 0.0))
        name = f"regret of {counts[-1]} generators less that of {counts[-2]}, one list each (gains shrink)"
        gain = by[counts[-1], lists[0]]["regret"] - by[counts[-2], lists[0]]["regret"]
        made.append(claim(name, gain, "at least", 0.0))
    return [*made, *(one for row in rows if row.get("fit") for one in _claims_of_law(row))]


def _claims_of_law(row: Row) -> list[Claim]:
    """Regret falls as a power of x, and the law foretells the point held out better than no law does.

    Where the exponent is not identified, what a law says nearer than a constant is chance: the first claim and the last
    do not hold. That on the prediction interval is held against what was measured all the same.
    """
    part, identified = row["part"], row["identified"]
    outside = max(row["predicted_low"] - row["observed"], row["observed"] - row["predicted_high"])
    law, constant = (abs(row[name] - row["observed"]) for name in ("predicted", "constant"))
    share = law / constant if identified and constant > 0.0 else float("nan")
    lowest = row["low"] if identified else float("nan")
    return [
        claim(f"{part}: lower end of the exponent's 95% interval, if it is identified", lowest, "at least", 0.0),
        claim(f"{part}: held-out regret, how far outside its 95% prediction interval", outside, "at most", 0.0),
        claim(f"{part}: error of the law's prediction as a share of the constant predictor's", share, "at most", 1.0),
    ]


def _series(place: Place, part: str, across: str, points: list[list[dict[str, Any]]]) -> list[Row]:
    """A row a point, and one of the law."""
    best = runs.best_reward(place)
    rows: list[Row] = []
    for found in points:
        sound = [one for one in found if "refused" not in one]
        if len(sound) < len(found):
            rows.append({"part": part, "refused": next(one["refused"] for one in found if "refused" in one)})
            continue
        regret = best - float(np.mean([one["reward"] for one in sound]))
        row = {name: sound[0][name] for name in ("requests", "parameters", "without embeddings", "bf16")}
        row["device"] = ", ".join(sorted({one["device"] for one in sound}))
        sd = _sd([one["reward"] for one in sound])
        rows.append({"part": part, **row, "seeds": len(sound), "regret": round(regret, 4), "sd": sd})
    whole = [found for found in points if not any("refused" in one for one in found)]
    if len(whole) >= FEWEST_POINTS:
        x_P = np.array([found[0][across] for found in whole])
        law = fitted(x_P, np.array([[best - one["reward"] for one in found] for found in whole]))
        rows.append({"part": part, "fit": f"regret against {across}, last point held out", **_rounded(law)})
    return rows


def _points(
    place: Place, presets: Sequence[Preset], requests: Sequence[int], seeds: int, jobs: int, own_guide: bool = False
) -> dict[str, list[list[dict[str, Any]]]]:
    """By signal, then point by point, a result a seed; the largest are begun first."""
    points = list(zip(presets, requests, strict=True))
    wanted = [
        (place, preset, seed, count, signal, own_guide)
        for preset, count in reversed(points)
        for signal in SIGNALS.values()
        for seed in range(seeds)
    ]
    encoders = {(_sized(place, one[1]), one[2]): None for one in wanted if not _is_kept(*one)}
    runs.in_processes(_encoder, list(encoders), jobs)  # two points must not both make one
    made = iter(runs.in_processes(_point, wanted, jobs))
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in SIGNALS}
    for _ in points:
        for name in SIGNALS:
            found[name].insert(0, [next(made) for _ in range(seeds)])
    return found


def _generators(place: Place, size: Size, count: int, seed: int) -> dict[str, Any]:
    """MG-E of so many generators, kept."""

    def work(_: Path) -> dict[str, Any]:
        problem, preset = runs.problem_of(place), place.scale.preset
        encoder = stages.encoder_of(place, runs.encoder_task(seed))
        guide = runs.guide_of(place, seed)
        model = generators_and_evaluator(problem, guide, encoder, preset, seed, count, place.device)
        truth = Truth(problem, TEST)
        device = name_of(place.device)
        return {
            "device": device,
            **size_of(model),
            "by lists": judged(model, problem, truth, size.judged_requests, size.lists),
        }

    depends = {"generators": count, "lists": size.lists, "requests": size.judged_requests}
    return _kept(place, "generators", depends, seed, work)


def _sized(place: Place, preset: Preset) -> Place:
    return replace(place, scale=replace(place.scale, preset=preset))


def _encoder(sized_place: Place, seed: int) -> None:
    stages.perform(sized_place, runs.encoder_task(seed))


def _is_kept(place: Place, preset: Preset, seed: int, requests: int, signal: Signal, own_guide: bool = False) -> bool:
    """Is this point in the cache?"""
    depends = _of_point(place, preset, seed, requests, signal, own_guide)
    return (_folder(place, "point", depends, seed) / RESULT).is_file()


def _point(
    place: Place, preset: Preset, seed: int, requests: int, signal: Signal, own_guide: bool = False
) -> dict[str, Any]:
    """One ranker, kept; its encoder is there."""
    sized_place = _sized(place, preset)

    def work(_: Path) -> dict[str, Any]:
        guide = runs.guide_of(place, seed)
        if own_guide and not signal.truth:
            guide = _guide_of(place, seed, requests)
        encoder = stages.encoder_of(sized_place, runs.encoder_task(seed))
        problem, truth = runs.problem_of(place), runs.truth_of(place)
        try:
            return trained(problem, truth, guide, encoder, preset, seed, requests, signal, place.device)
        except ModelRefused as error:
            return {"refused": str(error)}

    return _kept(place, "point", _of_point(place, preset, seed, requests, signal, own_guide), seed, work)


def _of_point(
    place: Place, preset: Preset, seed: int, requests: int, signal: Signal, own_guide: bool
) -> dict[str, Any]:
    """What a point depends on beside world and guide; not the device, which it names."""
    return {
        "preset": asdict(preset),
        "encoder": stages.digest(_sized(place, preset), runs.encoder_task(seed)),
        "requests": requests,
        "signal": Arm("", signal=signal).to_dict()["signal"],
        "own_guide": own_guide and not signal.truth,
    }


def _guide_of(place: Place, seed: int, requests: int) -> RewardModel:
    """A reward model that learnt from the first so many of the training requests."""

    def work(folder: Path) -> dict[str, Any]:
        problem, preset = runs.problem_of(place), place.scale.preset
        rows_R = first_of(problem, requests)
        torch.manual_seed(seed)
        model = RewardModel(ModelSizes.from_preset(preset))
        copy_pretrained(stages.encoder_of(place, runs.encoder_task(seed)), model.encoder)
        figures = train_reward(model, problem.data, rows_R, preset, seed, device=place.device)
        save_model(folder / "model", model, "reward", model.sizes.to_dict(), {"seed": seed}, {})
        return {"steps": figures["steps"], "best_step": figures["best_step"]}

    _kept(place, "guide", {"requests": requests}, seed, work)
    model = load_model(_folder(place, "guide", {"requests": requests}, seed) / "model")
    assert isinstance(model, RewardModel)
    return model


def _kept(place: Place, stage: str, depends: dict[str, Any], seed: int, work: Any) -> dict[str, Any]:
    folder = _folder(place, stage, depends, seed)
    if not (folder / RESULT).is_file():
        progress(f"{stage}, seed {seed}: {depends.get('generators', depends.get('requests', ''))}")
    return kept(folder, work)


def _folder(place: Place, stage: str, depends: dict[str, Any], seed: int) -> Path:
    code = code_digest(("benchmarks.scaling_generators", "benchmarks.scaling_points"))
    before = {"guide": stages.digest(place, runs.guide_task(seed)), "steps": place.scale.preset.ranker_steps}
    return place.cache / "scaling" / f"{stage}-seed{seed}-{digest_of(depends | before | {'code': code})}"


def _parameters(preset: Preset) -> dict[str, int]:
    from goalrank.ranker import Ranker

    ranker = Ranker(ModelSizes.from_preset(preset))
    total = sum(weight.numel() for weight in ranker.parameters())
    return {"parameters": total, "without embeddings": total - ranker.encoder.items.embedding.weight.numel()}


def _rounded(law: Law) -> Row:
    return {name: value if isinstance(value, bool) else round(value, 4) for name, value in asdict(law).items()}


def _sd(values: list[float]) -> float:
    return round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else float("nan")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--cache", type=Path, default=CACHE, help="finished runs; the study goes on from them")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one torch thread each")
    parser.add_argument("--gpu", action="store_true", help="larger sizes, and everything on the GPU")
    parser.add_argument("--quick", action="store_true", help="minutes on one core: shows that it runs, no result")
    parser.add_argument("--json", type=result_file, metavar="FILE", help="the result, the figure beside it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
