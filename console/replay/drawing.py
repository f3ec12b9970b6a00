"""The replay as a picture: each day's true reward, and what retraining has earned so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = {"champion": "#1a63c4", "frozen": "#c2410c", "retriever": "#7a7a7a"}
LABELS = {
    "champion": "retrained every night",
    "frozen": "frozen after the first night",
    "retriever": "retriever's order",
}
FAULT_LABELS = {"bad_data": "bad data", "drifting": "drifting data", "broken": "broken challenger"}
DARK, GRID = "#333333", "#e3e3e3"


def draw(document: dict[str, Any], path: Path) -> None:
    """Write the picture of a history (history.history) as PNG, 1600 pixels wide."""
    days = document["days"]
    number = [day["night"] for day in days]
    figure = Figure(figsize=(8, 5.4), dpi=200, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for name, colour in COLOURS.items():
        heights = [day["reward"][name] for day in days]
        above.plot(number, heights, color=colour, linewidth=1.8, label=LABELS[name])
    promoted = sorted({run["night"] for run in document["runs"] if run["verdict"] == "promoted"})
    reward = {day["night"]: day["reward"]["champion"] for day in days}
    shown = [night for night in promoted if night in reward]
    above.plot(
        shown,
        [reward[n] for n in shown],
        "o",
        markersize=4.5,
        color=COLOURS["champion"],
        label="a promotion that night",
    )
    above.set_ylabel("true reward a request")
    total = [day["difference_so_far"] for day in days]
    below.fill_between(
        number,
        [t["sum_low"] for t in total],
        [t["sum_high"] for t in total],
        color=COLOURS["champion"],
        alpha=0.18,
        lw=0,
    )
    below.plot(number, [t["sum"] for t in total], color=COLOURS["champion"], linewidth=1.8)
    below.axhline(0, color=DARK, linewidth=0.8)
    below.set_ylabel("retrained - frozen,\nreward so far")
    below.set_xlabel("night, and the day that its champion serves (band: 95%, over users)")
    for axes in (above, below):
        _plain(axes)
        for run in document["runs"]:
            if run["fault"]:
                axes.axvline(run["night"], color=DARK, linewidth=1, linestyle=":")
    low, high = above.get_ylim()
    above.set_ylim(low, high + 0.16 * (high - low))
    for run in document["runs"]:
        if run["fault"]:
            above.annotate(
                f"{FAULT_LABELS[run['fault']]}:\n{run['verdict']}",
                (run["night"], 0.99),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color=DARK,
            )
    figure.legend(frameon=False, fontsize=8, ncols=4, loc="outside upper center", labelcolor=DARK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=DARK)
    axes.yaxis.label.set(color=DARK, fontsize=9)
    axes.xaxis.label.set(color=DARK, fontsize=9)
