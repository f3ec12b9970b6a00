"""GoalRank compared with its rivals: what the rows, the claims and the figure of a study are made of.

Shapes: S seeds, R test requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.quality.methods import FIELD, ORDERS, family, needs_guide
from benchmarks.quality.problem import TEST
from benchmarks.quality.settings import OURS
from benchmarks.quality.stages import MOVIELENS, SIMULATOR, Task, figures_of, problem_of
from benchmarks.quality.statistics import Difference, above, of_seeds, over_seeds, paired, paired_over_seeds
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
    """All figures of one kind of candidates, and ours against each rival, over the seeds that both have."""

    values: dict[str, dict[str, np.ndarray]]  # method -> metric -> [S, R], NaN throughout a seed that was refused
    differences: dict[str, dict[str, Difference]]  # metric -> rival -> ours less theirs, over requests
    p_above: dict[str, dict[str, float]]  # metric -> rival -> Holm's p of "ours is above"
    searched: frozenset[str]  # methods that learn with the guide whose best lists SEARCH is of

    def by_seed(self, method: str, metric: str) -> np.ndarray:
        """Means over requests [S], NaN of a seed that was refused."""
        return of_seeds(self.values[method][metric])

    def mean(self, method: str, metric: str) -> float:
        """Over seeds and requests; NaN where there is none."""
        return _mean(self.values[method][metric])

    def means(self, metric: str, *methods: str) -> list[float]:
        """Of each method over the seeds that all of these have; NaN where there is none."""
        return [_mean(values_SR) for values_SR in _of_common_seeds(self.values, metric, *methods)]

    def rivals(self, *families: str) -> list[str]:
        """Rivals of these families; without any, all."""
        named = next(iter(self.differences.values()), {})
        return [name for name in named if not families or family(name) in families]

    def gain(self, metric: str, rival: str) -> float:
        """By how much ours is above, as a share of the rival's mean."""
        _, theirs = self.means(metric, OURS, rival)
        return self.differences[metric][rival].mean / theirs


def compare(found: Results, kind: str) -> Comparison:
    """Read the figures of all methods, and test ours against the field, the sequence model and the search of r_hat."""
    tasks_of = dict(found.runs[kind])
    if found.searches.get(kind):
        tasks_of[SEARCH] = found.searches[kind]
    values = {method: read for method, tasks in tasks_of.items() if (read := _over_tasks(found, tasks)) is not None}
    users_R = problem_of(found.place, kind).users(TEST)
    differences: dict[str, dict[str, Difference]] = {}
    p_above: dict[str, dict[str, float]] = {}
    rivals = [name for name in values if name in FIELD or name in ("sequence", SEARCH)] if OURS in values else []
    for metric in COMPARED[found.place.world]:
        differences[metric] = {rival: _difference(values, metric, rival, users_R) for rival in rivals}
        adjusted = above(list(differences[metric].values()))
        p_above[metric] = dict(zip(rivals, adjusted.tolist(), strict=True))
    searched = frozenset(method for method in values if _learns_with_the_searched_guide(found, kind, method))
    return Comparison(values, differences, p_above, searched)


def _learns_with_the_searched_guide(found: Results, kind: str, method: str) -> bool:
    searches = found.searches.get(kind)
    if not searches or method in (*ORDERS, SEARCH) or not needs_guide(method, found.place.scale.preset):
        return False
    return found.runs[kind][method][0].guide == searches[0].guide


def _over_tasks(found: Results, tasks: list[Task]) -> dict[str, np.ndarray] | None:
    """metric -> [S, R], NaN in the seeds that were refused or have no task; None if all were."""
    read = {task.seed: figures_of(found.place, task) for task in tasks if "refused" not in found.results[task]}
    if not read:
        return None
    some = next(iter(read.values()))
    refused = {metric: np.full_like(values_R, np.nan) for metric, values_R in some.items()}
    return {metric: np.stack([read.get(seed, refused)[metric] for seed in found.seeds]) for metric in some}


def _difference(values: dict[str, dict[str, np.ndarray]], metric: str, rival: str, users_R: np.ndarray) -> Difference:
    """Ours less theirs over requests."""
    ours_SR, theirs_SR = _of_common_seeds(values, metric, OURS, rival)
    return paired(over_seeds(ours_SR), over_seeds(theirs_SR), users_R)


def _of_common_seeds(values: dict[str, dict[str, np.ndarray]], metric: str, *methods: str) -> list[np.ndarray]:
    """Of each method the figures of the seeds in which none of these was refused."""
    values_SR = [values[method][metric] for method in methods]
    common_S = np.logical_and.reduce([np.isfinite(each_SR).any(axis=1) for each_SR in values_SR])
    return [each_SR[common_S] for each_SR in values_SR]


def _mean(values_SR: np.ndarray) -> float:
    return float(np.nanmean(values_SR)) if np.isfinite(values_SR).any() else float("nan")


def against(compared: Comparison, rival: str) -> Row:
    """What ours is above this rival, metric by metric, in the seeds in which neither was refused.

    Relative gain and its 95% interval over requests in percent; "p", Holm's of ours being above over requests; "p over
    seeds", of any difference over trainings (statistics.py says what each is of).
    """
    row: Row = {}
    for metric, differences in compared.differences.items():
        if rival in differences:
            _, base = compared.means(metric, OURS, rival)
            gap = differences[rival]
            row[f"ours {metric} %"] = (
                f"{100 * gap.mean / base:+.2f} ({100 * gap.low / base:+.2f} to {100 * gap.high / base:+.2f})"
            )
            row[f"p {metric}"] = float(f"{compared.p_above[metric][rival]:.2g}")
            of_ours, of_theirs = (compared.by_seed(method, metric) for method in (OURS, rival))
            if np.isfinite(p := paired_over_seeds(of_ours, of_theirs)):
                row[f"p over seeds {metric}"] = float(f"{p:.2g}")
    return row
