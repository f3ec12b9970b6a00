"""Results of a study as rows: methods by kind of candidates, what each seed came to, every trial, the cost; the other
parts of the document are made in truth_rows.py, guide_rows.py and learning_curves.py.

Shapes: S seeds, R test requests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.quality import guide_rows, learning_curves, truth_rows
from benchmarks.quality.comparison import COMPARED, Comparison, against
from benchmarks.quality.methods import family
from benchmarks.quality.stages import problem_of
from benchmarks.quality.statistics import spread
from benchmarks.quality.study import Results
from benchmarks.report import Row, tables

COST = "cost"


def rows_of(found: Results, comparisons: dict[str, Comparison]) -> list[Row]:
    """All rows of the document; "part" says what a row is about.

    Methods come first, by kind of candidates, then the truth's decomposition and curve, the guides, then what each seed
    came to, every trial, every learning curve and what it all took.

    Seconds are wall-clock ones of the one process that made a piece, on a CPU with one thread or with the GPU that its
    "device" names: "seconds" the median of a method's seeds, "seconds in all" the sum over trials and seeds. What the
    study took in all adds seconds of CPU to those of GPU, where pieces were made on either, and so names no device.
    """
    rows: list[Row] = []
    for kind, compared in comparisons.items():
        rows += [_method_row(found, kind, method, compared) for method in found.runs[kind]]
        if kind in found.stand_in:
            rows += truth_rows.rows_of(found, kind, compared)
    for kind in comparisons:
        rows += guide_rows.rows_of(found, kind)
    for kind, compared in comparisons.items():
        rows += _seed_rows(found, kind, compared)
    for kind in comparisons:
        rows += _trial_rows(found, kind)
    for kind in comparisons:
        rows += learning_curves.rows_of(found, kind)
    return rows + _cost_rows(found)


def printed(rows: list[Row]) -> str:
    """The rows for people, part by part; learning curves are for machines, and in the JSON alone."""
    return tables(rows, without=(learning_curves.PART,))


def _method_row(found: Results, kind: str, method: str, compared: Comparison) -> Row:
    tasks = found.runs[kind][method]
    row: Row = {"part": kind, "method": method, "family": family(method)}
    if method not in compared.values:
        return row | {"refused": found.results[tasks[0]]["refused"], "seconds in all": _seconds(found, kind, method)}
    results = [found.results[task] for task in tasks if "refused" not in found.results[task]]
    tested = COMPARED[found.place.world]
    row |= {"parameters": results[0]["parameters"], "seeds": len(results), "setting": tasks[0].setting}
    for metric, values_SR in compared.values[method].items():
        mean = compared.mean(method, metric)
        row[metric] = round(mean, 4) if np.isfinite(mean) else ""
        if metric in tested and np.isfinite(sd := spread(values_SR)):
            row[f"{metric} sd"] = round(sd, 4)
    row |= against(compared, method)
    row["r_hat"] = round(float(np.mean([result["r_hat"] for result in results])), 4)
    row["device"] = ", ".join(sorted({result["device"] for result in results}))
    row["seconds"] = round(float(np.median([result["seconds"] for result in results])), 1)
    row["seconds in all"] = _seconds(found, kind, method)
    return row


def _seconds(found: Results, kind: str, method: str) -> float:
    """Of all the trials and seeds of a method; not those of its guides, which methods share."""
    tasks = {*found.runs[kind][method], *(task for task, _ in found.trials[kind][method])}
    return _sum_of([found.results[task] for task in tasks])


def _cost_rows(found: Results) -> list[Row]:
    """What the study took, stage by stage, whenever its pieces were made."""
    of_stage: dict[str, list[dict[str, Any]]] = {}
    for task, result in found.results.items():
        of_stage.setdefault(task.stage, []).append(result)
    of_stage["all"] = list(found.results.values())
    return [
        {"part": COST, "stage": stage, "pieces": len(results), "seconds in all": _sum_of(results)}
        for stage, results in of_stage.items()
    ]


def _sum_of(results: list[dict[str, Any]]) -> float:
    return round(sum(result["seconds"] for result in results), 1)


def _seed_rows(found: Results, kind: str, compared: Comparison) -> list[Row]:
    """The means over requests that a method's spread over seeds, and the test over seeds, are of."""
    rows: list[Row] = []
    for method in compared.values:
        for metric in COMPARED[found.place.world]:
            means_S = compared.by_seed(method, metric)
            seeds = {f"seed {seed}": round(float(mean), 5) for seed, mean in zip(found.seeds, means_S, strict=True)}
            rows.append({"part": "by seed", "kind": kind, "method": method, "metric": metric, **seeds})
    return rows


def _trial_rows(found: Results, kind: str) -> list[Row]:
    """Every trial that chose a setting (seed 0): published, whatever came of it."""
    metric = problem_of(found.place, kind).selected_by
    rows = []
    for method, trials in found.trials[kind].items():
        for task, result in trials if len(trials) > 1 else ():
            row: Row = {"part": f"trials, {kind}", "method": method, "setting": task.setting}
            if "refused" in result:
                row["refused"] = result["refused"]
            elif "validation" in result:
                row[f"validation {metric}"] = round(result["validation"][metric], 4)
            else:
                row["held-out loss"] = round(result["held_out_loss"], 4)
            rows.append(row)
    return rows
