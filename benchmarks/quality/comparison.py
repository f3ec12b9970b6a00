"""GoalRank compared with its rivals: what the rows, the claims and the figure of a study are made of.

Shapes: S seeds, R test requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.quality.methods import FIELD, family
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
    """All figures of one kind of candidates, and ours against each rival."""

    values: dict[str, dict[str, np.ndarray]]  # method -> metric -> [S, R], NaN throughout a seed that was refused
    differences: dict[str, dict[str, Difference]]  # metric -> rival -> ours less theirs, over requests
    p_above: dict[str, dict[str, float]]  # metric -> rival -> Holm's p of "ours is above"

    def by_seed(self, method: str, metric: str) -> np.ndarray:
        """Means over requests [S], NaN of a seed that was refused."""
        return of_seeds(self.values[method][metric])

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
    tasks_of = dict(found.runs[kind])
    if found.searches.get(kind):
        tasks_of[SEARCH] = found.searches[kind]
    values = {method: read for method, tasks in tasks_of.items() if (read := _over_tasks(found, tasks)) is not None}
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
    """metric -> [S, R], NaN in the seeds that were refused or have no task; None if all were."""
    read = {task.seed: figures_of(found.place, task) for task in tasks if "refused" not in found.results[task]}
    if not read:
        return None
    some = next(iter(read.values()))
    refused = {metric: np.full_like(values_R, np.nan) for metric, values_R in some.items()}
    return {metric: np.stack([read.get(seed, refused)[metric] for seed in found.seeds]) for metric in some}


def lost_by_optimisation(compared: Comparison, method: str) -> float:
    """True reward of the guide's best list less the method's: what its policy does not find, or avoids."""
    return compared.mean(SEARCH, "reward") - compared.mean(method, "reward")


def against(compared: Comparison, rival: str) -> Row:
    """What ours is above this rival, metric by metric.

    Relative gain and its 95% interval over requests in percent; "p", Holm's of ours being above over requests; "p over
    seeds", of any difference over trainings (statistics.py says what each is of).
    """
    row: Row = {}
    for metric, differences in compared.differences.items():
        if rival in differences:
            base = compared.mean(rival, metric)
            gap = differences[rival]
            row[f"ours {metric} %"] = (
                f"{100 * gap.mean / base:+.2f} ({100 * gap.low / base:+.2f} to {100 * gap.high / base:+.2f})"
            )
            row[f"p {metric}"] = float(f"{compared.p_above[metric][rival]:.2g}")
            of_ours, of_theirs = (compared.by_seed(method, metric) for method in (OURS, rival))
            if np.isfinite(p := paired_over_seeds(of_ours, of_theirs)):
                row[f"p over seeds {metric}"] = float(f"{p:.2g}")
    return row
