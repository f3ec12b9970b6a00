"""How far features and feedback have moved since the last good snapshot."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from components.publish_report.plots.style import BAD, CHALLENGER, WARN, WIDE, Plot, draw

SMALLEST = 1e-4
"""Shifts below are drawn there: the axis is logarithmic."""


def shifts(rows: list[dict[str, Any]]) -> Plot | None:
    """Population stability index by column, with the limits it warns and stops at."""
    shown = [row for row in rows if row["psi"] is not None]
    if not shown:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        for place, row in enumerate(shown):
            axes.plot([SMALLEST, max(row["psi"], SMALLEST)], [place, place], color=CHALLENGER, linewidth=1.4, alpha=0.5)
            axes.plot([max(row["psi"], SMALLEST)], [place], marker="o", markersize=5, color=CHALLENGER)
            for limit, colour in (("warning_limit", WARN), ("critical_limit", BAD)):
                if row.get(limit) is not None:
                    axes.plot([row[limit]], [place], marker="|", markersize=11, markeredgewidth=1.6, color=colour)
        axes.set_yticks(range(len(shown)), [row["column"] for row in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(left=SMALLEST)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("population stability index; ticks: where it warns, where it stops")

    first = shown[0]
    alt = f"Population stability index of {len(shown)} columns; first {first['column']} with {first['psi']:.3g}."
    return Plot("Drift since the last good snapshot", alt, draw(WIDE, 0.24 * len(shown) + 0.75, paint))
