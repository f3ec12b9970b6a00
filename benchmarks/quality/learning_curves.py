"""How training went, as rows: every curve that the guides and each method's run of the first seed recorded.

A value is a mean over the steps since the curve's point before, but held_out_loss, which is measured at its step; here
stand at most POINTS of a curve's points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.quality.study import GUIDE, Results, guides_of
from benchmarks.report import Row

PART = "learning curve"
POINTS = 10
"""Of a curve at most, evenly spaced, its last among them."""


def rows_of(found: Results, kind: str) -> list[Row]:
    """Of each method and each guide whose first seed was not refused; who learns nothing has no curve."""
    tasks = [(GUIDE, task) for task in guides_of({kind: found.runs[kind]})]
    tasks += [(method, task) for method, of_method in found.runs[kind].items() for task in of_method]
    rows: list[Row] = []
    for name, task in tasks:
        result = found.results[task]
        if task.seed == found.seeds[0] and "refused" not in result:
            about = {"part": PART, "kind": kind, "method": name, "setting": task.setting}
            for curve, points in curves_in(result if name == GUIDE else result["training"]).items():
                rows += [
                    {**about, "curve": curve, "step": step, "value": round(value, 5)} for step, value in thinned(points)
                ]
    return rows


def curves_in(figures: dict[str, Any]) -> dict[str, list[list[float]]]:
    """By name the curves of a training's figures; where more than one part of a method learnt, "part: name"."""
    parts = {"": figures, **figures.get("parts", {})}
    learnt = {part: found["curves"] for part, found in parts.items() if "curves" in found}
    return {
        f"{part}: {name}" if len(learnt) > 1 else name: points
        for part, curves in learnt.items()
        for name, points in curves.items()
    }


def thinned(points: list[list[float]]) -> list[list[float]]:
    """At most POINTS of them, from the first to the last."""
    chosen = np.linspace(0, len(points) - 1, min(len(points), POINTS)).round().astype(int)
    return [points[at] for at in chosen]
