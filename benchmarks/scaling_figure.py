"""The picture of benchmarks/scaling.py: generators, size, data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.ablations.figure import REGRET, panels, save
from benchmarks.report import Row

SIGNALS = ("r*", "guide")


LARGER = Path(__file__).parent / "results" / "scaling_large_sizes.json"
"""Sizes that a GPU trained, in another precision: beside the figure's points, in none of its fits."""


def draw_with_larger(rows: list[Row], file: Path) -> None:
    """As :func:`draw`, with the points of LARGER."""
    draw(rows, file, json.loads(LARGER.read_text(encoding="utf-8"))["rows"])


def draw(rows: list[Row], file: Path, larger: Sequence[Row] = ()) -> None:
    """Write the figure of a table of benchmarks/scaling.py; a panel without rows stays empty.

    Args:
        rows: of the table.
        file: the PNG.
        larger: more sizes, with a "regret by seed" each, drawn as hollow points.
    """
    figure, (left, middle, right) = panels(3)
    made = [row for row in rows if row["part"] == "generators"]
    for number, lists in enumerate(sorted({row["lists of each"] for row in made if "lists of each" in row})):
        found = [row for row in made if row.get("lists of each") == lists]
        label = f"MG-E, {lists} list{'s' * (lists > 1)} of each"
        x = [row["generators"] for row in found]
        left.errorbar(x, [row["regret"] for row in found], [row["sd"] or 0 for row in found], marker="o", label=label)
        left.plot(x, [row["regret of best proposed"] for row in found], f"C{number}:", linewidth=1)
    for row in made:
        if row["method"] == "goalrank":
            left.axhline(row["regret"], color="tab:red", label="GoalRank")
    left.set(xlabel="generators (dotted: the best list proposed)", ylabel=REGRET)
    for axes, kind, across, text in (
        (middle, "size", "without embeddings", "parameters without item embeddings"),
        (right, "data", "requests", "training requests"),
    ):
        for number, signal in enumerate(SIGNALS):
            found = [row for row in rows if row["part"] == f"{kind}, {signal}"]
            points = [row for row in found if "regret" in row]
            if not points:
                continue
            x, colour = [row[across] for row in points], f"C{number}"
            sd = [row["sd"] or 0 for row in points]
            axes.errorbar(
                x, [row["regret"] for row in points], sd, marker="o", color=colour, label=f"taught by {signal}"
            )
            for law in (row for row in found if row.get("fit")):
                power = f"{law['low']:.3f} to {law['high']:.3f}" if law["identified"] else "not identified"
                axes.plot(x[-1:] * 2, [law["predicted_low"], law["predicted_high"]], color=colour, alpha=0.4)
                foretold = f"foretold from the points before, 95%; exponent {power}"
                axes.plot(x[-1:], [law["predicted"]], "x", color=colour, label=foretold)
            beyond = [row for row in larger if row["part"] == f"{kind}, {signal}"]
            if beyond:
                regret_SX = np.array([row["regret by seed"] for row in beyond]).T
                x, y, sd = [row[across] for row in beyond], regret_SX.mean(axis=0), regret_SX.std(axis=0, ddof=1)
                axes.errorbar(x, y, sd, fmt="o", mfc="none", color=colour, label="on a GPU in bf16, in no fit")
        axes.set_xlabel(text)
    for axes in (left, middle, right):
        if axes.has_data():
            axes.set_xscale("log")
            axes.legend(frameon=False, fontsize=7, loc="best" if axes is left else "upper right")
    for axes in (middle, right):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
    save(figure, file)
