"""The guides as rows: on held-out requests as the log shows them and, where the truth is known, kind of lists by kind.

Every figure is a mean over seeds (of the reward model of random lists there is one). What both parts measure, they
measure differently:

    held out                                                   judged, kind of lists by kind (guide_measures.measures)
    rank_correlation_logged  r_hat and the logged reward,      rank_correlation  r_hat and r* over the lists of a
                             over the lists of all requests                      request, mean over requests
    noise_random_lists       the heads', of random lists,      noise             the heads', of lists of the kind,
                             mean over requests                                  root mean square over requests
    spread_predicted         of r_hat over random lists of a   spread            of r* over the lists of a request,
                             request, mean over requests                         root mean square over requests
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.quality.guide_measures import KINDS
from benchmarks.quality.stages import Task
from benchmarks.quality.study import Results, guides_of
from benchmarks.report import Row

HELD_OUT, JUDGED = "guide, held out", "guide"
MEASURED = {
    "auc": "auc",
    "like_auc": "like_auc",
    "calibration_error": "calibration_error",
    "rank_correlation": "rank_correlation_logged",
    "reward_predicted": "reward_predicted",
    "reward_logged": "reward_logged",
    "noise": "noise_random_lists",
    "spread": "spread_predicted",
}
"""Of what goalrank.reward_training.measure says, the column of each; "auc_by_position" too, a column a position."""


def rows_of(found: Results, kind: str) -> list[Row]:
    """A row a guide, then one a kind of lists of the guide that GoalRank learns with."""
    of_setting: dict[str, list[Task]] = {}
    for task in guides_of({kind: found.runs[kind]}):
        of_setting.setdefault(task.setting, []).append(task)
    if kind in found.stand_in:
        of_setting["of random lists"] = [Task("stand_in", kind)]
    rows: list[Row] = []
    for setting, tasks in of_setting.items():
        if results := _finished(found, tasks):
            figures = [_measured(result) for result in results]
            row: Row = {"part": HELD_OUT, "kind": kind, "setting": setting, "seeds": len(figures)}
            rows.append(row | {name: _mean(figures, name) for name in figures[0]})
    for lists in KINDS:
        if judged := _finished(found, found.judged.get(kind, [])):
            setting = replace(found.judged[kind][0], trial=found.judged[kind][0].guide).setting
            figures = [result["lists"][lists] for result in judged]
            row = {"part": JUDGED, "kind": kind, "setting": setting, "lists": lists, "seeds": len(figures)}
            for name in figures[0]:
                row |= {name: _mean(figures, name), f"{name} sd": _spread(figures, name)}
            rows.append(row)
    return rows


def _finished(found: Results, tasks: list[Task]) -> list[dict[str, Any]]:
    return [found.results[task] for task in tasks if "refused" not in found.results[task]]


def _measured(result: dict[str, Any]) -> dict[str, float | None]:
    by_position = {f"auc at {place}": value for place, value in enumerate(result["auc_by_position"], start=1)}
    return {column: result[name] for name, column in MEASURED.items()} | by_position


def _mean(figures: list[dict[str, float | None]], name: str) -> float:
    """Over seeds; NaN where one has none."""
    return round(float(_values(figures, name).mean()), 4)


def _spread(figures: list[dict[str, float | None]], name: str) -> float:
    """Standard deviation (ddof 1) over seeds; NaN with one, or where one has none."""
    return round(float(_values(figures, name).std(ddof=1)), 4) if len(figures) > 1 else float("nan")


def _values(figures: list[dict[str, float | None]], name: str) -> np.ndarray:
    return np.array([figure.get(name) for figure in figures], dtype=np.float64)
