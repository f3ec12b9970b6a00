"""Results of a study as rows, and the comparison of GoalRank with its rivals that claims and figure are made of.

Shapes: S seeds, R test requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.methods import FIELD, family
from benchmarks.quality.problem import TEST
from benchmarks.quality.settings import OURS, Trial
from benchmarks.quality.simulated import Simulated
from benchmarks.quality.stages import MOVIELENS, SIMULATOR, Task, figures_of, problem_of
from benchmarks.quality.statistics import Difference, above, over_seeds, paired, spread
from benchmarks.quality.study import Results
from benchmarks.report import Row
from goalrank.schema import LIST_LENGTH

SEARCH = "long search of r_hat"
STAND_IN_SEARCH = "long search of the reward model of random lists"
COMPARED = {
    MOVIELENS: (f"h@{LIST_LENGTH}", f"ndcg@{LIST_LENGTH}", f"map@{LIST_LENGTH}"),
    SIMULATOR: ("reward", f"h@{LIST_LENGTH}"),
}
"""Metrics that are tested against every rival."""


@dataclass
class Comparison:
    """All figures of one kind of candidates, and ours against each rival."""

    values: dict[str, dict[str, np.ndarray]]  # method -> metric -> [S, R]
    differences: dict[str, dict[str, Difference]]  # metric -> rival -> ours less theirs, over requests
    p_above: dict[str, dict[str, float]]  # metric -> rival -> Holm's p of "ours is above"

    def mean(self, method: str, metric: str) -> float:
        """Over seeds and requests; NaN where there is none."""
        return float(np.nanmean(values)) if np.isfinite(values := self.values[method][metric]).any() else float("nan")

    def rivals(self, *families: str) -> list[str]:
        """Rivals of these families; without any, all."""
        named = next(iter(self.differences.values()), {})
        return [name for name in named if not families or family(name) in families]

    def gain(self, metric: str, rival: str) -> float:
        """By how much ours is above, as a share of the rival's mean."""
        return self.differences[metric][rival].mean / self.mean(rival, metric)


def compare(found: Results, kind: str) -> Comparison:
    """Read the figures of all methods, and test ours against the field, the sequence model and the search of r_hat."""
    values = {
        method: read for method, tasks in found.runs[kind].items() if (read := _over_tasks(found, tasks)) is not None
    }
    if found.searches.get(kind):
        searched = _over_tasks(found, found.searches[kind])
        assert searched is not None  # a search is never refused
        values[SEARCH] = searched
    users_R = problem_of(found.place, kind).users(TEST)
    differences: dict[str, dict[str, Difference]] = {}
    p_above: dict[str, dict[str, float]] = {}
    rivals = [name for name in values if name in FIELD or name in ("sequence", SEARCH)] if OURS in values else []
    for metric in COMPARED[found.place.world]:
        differences[metric] = {
            rival: paired(over_seeds(values[OURS][metric]), over_seeds(values[rival][metric]), users_R)
            for rival in rivals
        }
        adjusted = above(list(differences[metric].values()))
        p_above[metric] = dict(zip(rivals, adjusted.tolist(), strict=True))
    return Comparison(values, differences, p_above)


def _over_tasks(found: Results, tasks: list[Task]) -> dict[str, np.ndarray] | None:
    """metric -> [S, R] of the seeds that were not refused; None if all were."""
    read = [figures_of(found.place, task) for task in tasks if "refused" not in found.results[task]]
    return {metric: np.stack([one[metric] for one in read]) for metric in read[0]} if read else None


# --------------------------------------------------------------------------------------------------------------- rows


def rows_of(found: Results, comparisons: dict[str, Comparison]) -> list[Row]:
    """The table: methods by kind of candidates, then the truth's decomposition and curve, then every trial."""
    rows: list[Row] = []
    for kind, compared in comparisons.items():
        rows += [_method_row(found, kind, method, compared) for method in found.runs[kind]]
        if found.searches.get(kind):
            rows += _truth_rows(found, kind, compared)
    for kind in comparisons:
        rows += _trial_rows(found, kind)
    return rows


def _method_row(found: Results, kind: str, method: str, compared: Comparison) -> Row:
    tasks = found.runs[kind][method]
    row: Row = {"part": kind, "method": method, "family": family(method)}
    if method not in compared.values:
        return row | {"refused": found.results[tasks[0]]["refused"]}
    results = [found.results[task] for task in tasks if "refused" not in found.results[task]]
    tested = COMPARED[found.place.world]
    row |= {"parameters": results[0]["parameters"], "seeds": len(results), "setting": _setting(tasks[0].trial)}
    for metric, values_SR in compared.values[method].items():
        mean = compared.mean(method, metric)
        row[metric] = round(mean, 4) if np.isfinite(mean) else ""
        if metric in tested and len(values_SR) > 1:
            row[f"{metric} sd"] = round(spread(values_SR), 4)
    row |= _against(compared, method)
    row["r_hat"] = round(float(np.mean([result["r_hat"] for result in results])), 4)
    row["device"] = ", ".join(sorted({result["device"] for result in results}))
    row["seconds"] = round(float(np.median([result["seconds"] for result in results])), 1)
    return row


def _against(compared: Comparison, rival: str) -> Row:
    """What ours is above this rival: relative gain and its 95% interval in percent, and Holm's p."""
    row: Row = {}
    for metric, differences in compared.differences.items():
        if rival in differences:
            base = compared.mean(rival, metric)
            gap = differences[rival]
            row[f"ours {metric} %"] = (
                f"{100 * gap.mean / base:+.2f} ({100 * gap.low / base:+.2f} to {100 * gap.high / base:+.2f})"
            )
            row[f"p {metric}"] = float(f"{compared.p_above[metric][rival]:.2g}")
    return row


def _truth_rows(found: Results, kind: str, compared: Comparison) -> list[Row]:
    """The regret of each method to the best list found, in its three parts (docs/method.md, the simulated world)."""
    problem = problem_of(found.place, kind)
    assert isinstance(problem, Simulated)
    best, singly = float(problem.best(TEST).mean()), float(problem.single_item_order(TEST).mean())
    stand_in = figures_of(found.place, found.stand_in[kind])
    knowable, guided = float(stand_in["reward"].mean()), compared.mean(SEARCH, "reward")
    rows: list[Row] = [
        {"part": "truth", "method": "best list found under r*", "reward": round(best, 4)},
        {"part": "truth", "method": "order by true single-item value", "reward": round(singly, 4)},
        {"part": "truth", "method": STAND_IN_SEARCH, "reward": round(knowable, 4)},
        {
            "part": "truth",
            "method": SEARCH,
            "seeds": len(found.searches[kind]),
            **{metric: round(compared.mean(SEARCH, metric), 4) for metric in COMPARED[SIMULATOR]},
            "reward sd": round(spread(compared.values[SEARCH]["reward"]), 4),
            "r_hat": round(float(np.mean([found.results[task]["expected"] for task in found.searches[kind]])), 4),
            **_against(compared, SEARCH),
        },
    ]
    for method in found.runs[kind]:
        if method in compared.values:
            reward = compared.mean(method, "reward")
            rows.append(
                {
                    "part": "regret",
                    "method": method,
                    "regret": round(best - reward, 4),
                    "features cannot know": round(best - knowable, 4),
                    "r_hat is not that": round(knowable - guided, 4),
                    "not found of r_hat's best": round(guided - reward, 4),
                }
            )
    if kind in found.overtrained:
        for step, expected, true in found.results[found.overtrained[kind]]["curve"]:
            rows.append({"part": "curve", "step": step, "r_hat": round(expected, 4), "reward": round(true, 4)})
    return rows


def _trial_rows(found: Results, kind: str) -> list[Row]:
    """Every trial that chose a setting (seed 0): published, whatever came of it."""
    metric = problem_of(found.place, kind).selected_by
    rows = []
    for method, trials in found.trials[kind].items():
        for task, result in trials if len(trials) > 1 else ():
            row: Row = {"part": f"trials, {kind}", "method": method, "setting": _setting(task.trial)}
            if "refused" in result:
                row["refused"] = result["refused"]
            elif "validation" in result:
                row[f"validation {metric}"] = round(result["validation"][metric], 4)
            else:
                row["held-out loss"] = round(result["held_out_loss"], 4)
            rows.append(row)
    return rows


def _setting(trial: Trial) -> str:
    text = f"rate x{trial.rate:g}"
    if trial.guided != Trial.guided:
        text = f"{text}, {trial.guided:.0%} of the steps guide"
    if trial.temperature is None:
        return text
    text = f"{text}, temperature {trial.temperature:g}, supervised {trial.supervised:g}"
    return f"{text}, {trial.plan}" if trial.plan else text


def lost_by_optimisation(compared: Comparison, method: str) -> float:
    """True reward of the guide's best list less the method's: what its policy does not find, or avoids."""
    return compared.mean(SEARCH, "reward") - compared.mean(method, "reward")


def curves_of(found: Results, kind: str, method: str) -> dict[str, Any]:
    """What a method's first run recorded while training."""
    return found.results[found.runs[kind][method][0]]["training"]
