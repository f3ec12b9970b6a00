"""What the studies' figures are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib.axes import Axes  # noqa: E402 - after the back end
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.report import Row  # noqa: E402

REGRET = "regret in true reward a request"


def panels(count: int, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels in a row."""
    figure = Figure(figsize=(1.0 + 5.2 * count, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def curve(axes: Axes, rows: Sequence[Row], across: str, label: str, joined: bool = True) -> None:
    """Regret along a series, whiskers the spread over seeds; points that are no series are not joined by lines."""
    known = sorted((row for row in rows if "regret" in row), key=lambda row: row[across])
    axes.errorbar(
        [row[across] for row in known],
        [row["regret"] for row in known],
        yerr=[row.get("sd") or 0.0 for row in known],
        marker="o",
        markersize=4,
        linestyle="-" if joined else "",
        capsize=2,
        label=label,
    )


def dots(axes: Axes, rows: Sequence[Row], base: str = "") -> None:
    """Arms from worst to best, whiskers the spread over seeds, a line where the base arm is.

    No bars: arms differ by a few hundredths of a regret that none of them brings near to 0.
    """
    known = sorted((row for row in rows if "regret" in row), key=lambda row: -row["regret"])
    for row in known:
        colour = "tab:red" if row["arm"] == base else "tab:blue"
        axes.errorbar(row["regret"], row["arm"], xerr=row.get("sd") or 0.0, fmt="o", capsize=2, color=colour)
        if row["arm"] == base:
            axes.axvline(row["regret"], color=colour, linewidth=0.8)
    axes.grid(axis="y", alpha=0.3)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel(REGRET)


def draw_arms(rows: Sequence[Row], file: Path, base: str, height: float = 4.2) -> None:
    """The figure of a study that is one row of arms: their dots alone."""
    figure, (axes,) = panels(1, height)
    dots(axes, [row for row in rows if "arm" in row], base)
    save(figure, file)


def save(figure: Figure, file: Path) -> None:
    """Write the PNG."""
    figure.savefig(file, dpi=110, metadata={"Software": None})
