"""The picture of benchmarks/capacity.py: error against width, and against parameters.

`python -m benchmarks.capacity_figure` draws it anew from results/capacity.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib.axes import Axes  # noqa: E402 - after the back end
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.capacity_policies import ALPHA, beyond  # noqa: E402
from benchmarks.report import Row  # noqa: E402

RESULTS = Path(__file__).with_name("results")
STYLES = {
    "generator only": ("#1a7f37", "o", "generator only, width M"),
    "mixture": ("#cf222e", "s", f"mixture of k generators of width {ALPHA}"),
    "picked": ("#999999", "^", "k generators, picked by an evaluator that knows r*"),
}


def draw(rows: list[Row], file: Path) -> None:
    """Write the figure of a table of benchmarks/capacity.py."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, across in ((left, "width"), (right, "parameters")):
        for kind, (colour, marker, label) in STYLES.items():
            found = sorted((row for row in rows if row["policies"] == kind), key=lambda row: row[across])
            place = [row[across] for row in found]
            axes.plot(place, [row["error"] for row in found], marker=marker, markersize=4, color=colour, label=label)
            axes.plot(place, [row["reverse"] for row in found], color=colour, linewidth=0.8, linestyle=":")
        axes.axhline(next(row["error"] for row in rows if row["policies"] == "uniform"), color="#cccccc", linewidth=1)
        axes.set(xscale="log", yscale="log")
    _mark_the_theorem(left, rows)
    left.set(xlabel=f"width: M, or k times {ALPHA}", ylabel="least error found, nats (line KL(π*‖π), dotted KL(π‖π*))")
    right.set(xlabel="parameters of all generators (evaluators not counted)")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _mark_the_theorem(axes: Axes, rows: list[Row]) -> None:
    """A ring where M = k alpha + n, and a thin line to the mixture it is compared with."""
    alone = {row["width"]: row["error"] for row in rows if row["policies"] == "generator only"}
    mixtures = [row for row in rows if row["policies"] == "mixture"]
    for row in mixtures:
        width = beyond(row["k"])
        axes.plot([row["width"], width], [row["error"], alone[width]], color="#555555", linewidth=0.7)
        axes.annotate(f"k={row['k']}", (row["width"], row["error"]), (3, 4), textcoords="offset points", fontsize=7)
    rings = [beyond(row["k"]) for row in mixtures]
    axes.plot(
        rings,
        [alone[width] for width in rings],
        "o",
        markersize=9,
        fillstyle="none",
        color="#555555",
        label="M = kα + n",
    )
    axes.legend(frameon=False, fontsize=8, handles=[axes.lines[-1]])


if __name__ == "__main__":
    document = json.loads((RESULTS / "capacity.json").read_text(encoding="utf-8"))
    draw(document["rows"], RESULTS / "capacity.png")
