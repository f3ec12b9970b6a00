"""How all plots look, and how a figure becomes SVG inside a page.

Figures are drawn in colours that stand for CSS variables; `svg` puts the variables in their place, so that one drawing
is readable in light, in dark and on paper. Text stays text: small, selectable, in the page's own font.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup

matplotlib.use("svg")
from matplotlib.axes import Axes  # noqa: E402 - after the backend
from matplotlib.figure import Figure  # noqa: E402

INK, SOFT, LINE, FILL = "#01010a", "#01010b", "#01010c", "#01010d"
CHALLENGER, CHAMPION, OTHER = "#02020a", "#02020b", "#02020c"
GOOD, WARN, BAD = "#03030a", "#03030b", "#03030c"
_VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line-strong",
    FILL: "--fill",
    CHALLENGER: "--challenger",
    CHAMPION: "--champion",
    OTHER: "--other",
    GOOD: "--good",
    WARN: "--warn",
    BAD: "--bad",
}
"""Colour drawn in -> the page's variable (templates/page.css)."""

TONES = {"passed": GOOD, "failed": BAD, "inconclusive": WARN}
"""Colour of a check's status; anything else is soft."""

SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "goalrank",  # same night, same bytes
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FILL,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": SOFT,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "path.simplify_threshold": 0.2,
}

WIDE, NARROW = 9.4, 4.5
"""Widths of figures in inches; a page shows one wide or two narrow ones in a row."""

CURVE_POINTS = 300
"""Points drawn of a curve: more than its pixels show nothing."""


@dataclass(frozen=True)
class Plot:
    """One figure of the page."""

    title: str
    alt: str
    svg: Markup
    wide: bool = True


def draw(width: float, height: float, paint: Callable[[Figure], None]) -> Markup:
    """A new figure of that size in inches, painted, as inline SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        return svg(figure)


def svg(figure: Figure) -> Markup:
    """A figure as inline SVG with the page's colours; the same bytes for the same figure."""
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # Its style sheet would reach the whole page; page.css says the same of plots alone.
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return Markup(text)


def with_own_ids(svg_text: Markup, prefix: str) -> Markup:
    """The same drawing with ids of its own: matplotlib numbers every figure's parts from 1, and a page holds many."""
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', str(svg_text))  # a Markup would be escaped piece by piece
    return Markup(re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text))


def numbered(plots: Iterable[Plot], start: str) -> list[Plot]:
    """Plots whose ids meet in no page, called start1, start2, ..."""
    return [
        Plot(plot.title, plot.alt, with_own_ids(plot.svg, f"{start}{number}"), plot.wide)
        for plot, number in zip(plots, itertools.count(1), strict=False)
    ]


def made(makers: Iterable[Callable[[], Plot | None]]) -> list[Plot]:
    """The plots that could be drawn. An odd figure costs the report that plot, never the page."""
    plots = []
    for make in makers:
        try:
            plot = make()
        except Exception:  # noqa: BLE001 - whatever an outcome holds, a report is published
            continue
        if plot is not None:
            plots.append(plot)
    return plots


def intervals(axes: Axes, rows: list[dict[str, Any]], zero: float | None = 0.0) -> None:
    """A forest plot, the first row on top: {"label", "mean", "low", "high", "colour"}, `threshold` a tick of its own.

    Ends that are None or missing are left out; a row without a mean keeps its place and its label.
    """
    for place, row in enumerate(rows):
        mean, low, high = row.get("mean"), row.get("low"), row.get("high")
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=row["colour"], linewidth=2.2, alpha=0.55, zorder=2)
        if mean is not None:
            axes.plot([mean], [place], marker="o", markersize=5, color=row["colour"], linestyle="none", zorder=3)
        if row.get("threshold") is not None:
            axes.plot([row["threshold"]], [place], marker="|", markersize=11, markeredgewidth=1.6, color=BAD, zorder=3)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    if zero is not None:
        axes.axvline(zero, color=LINE, linewidth=1, zorder=1)


def thinned(points: list[Any]) -> list[Any]:
    """At most CURVE_POINTS of them, the last one among them."""
    stride = max(1, -(-len(points) // CURVE_POINTS))
    kept = points[::stride]
    return kept if not points or kept[-1] is points[-1] else [*kept, points[-1]]
