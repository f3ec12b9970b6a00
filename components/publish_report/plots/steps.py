"""Where time and memory went, step by step."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from components.publish_report.plots.style import CHALLENGER, CHAMPION, OTHER, WIDE, Plot, draw


def durations(rows: list[dict[str, Any]]) -> Plot | None:
    """Seconds of work and of tools' starts, and the peak memory where it was measured: a bar a step."""
    if not rows:
        return None
    names = [row["name"] for row in rows]
    memory = [row["memory_mb"] or 0.0 for row in rows]

    def paint(figure: Figure) -> None:
        both = any(memory)
        left, *more = figure.subplots(1, 2, sharey=True, width_ratios=[1.7, 1]) if both else [figure.subplots()]
        work = [max(row["seconds"] - row["tools"], 0.0) for row in rows]
        left.barh(names, work, color=CHALLENGER, height=0.62, label="work")
        left.barh(names, [row["tools"] for row in rows], left=work, color=CHAMPION, height=0.62, label="starting tools")
        left.set_xlabel("seconds")
        left.invert_yaxis()
        left.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)
        for axes in more:
            axes.barh(names, memory, color=OTHER, height=0.62)
            axes.set_xlabel("peak memory, MB")
        for axes in (left, *more):
            axes.grid(axis="y", visible=False)

    slowest = max(rows, key=lambda row: row["seconds"])
    alt = f"Seconds and peak memory of each step; the longest is {slowest['name']} with {slowest['seconds']:.0f} s."
    return Plot("Where time and memory went", alt, draw(WIDE, 0.24 * len(names) + 0.9, paint))
