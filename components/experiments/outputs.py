"""What an experiment leaves behind: result.json and lifts.png in a folder of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.step import write_atomic
from goalrank.ab_simulation import Day
from goalrank.ab_test import METRICS, PRIMARY, AbTest
from goalrank.sequential import Lift

FORMAT = 1
RESULT, FIGURE = "result.json", "lifts.png"
COLOURS = ("#3b7dd8", "#d9822b", "#2d8a57", "#a0418f", "#7a6a53")


def document(name: str, test: AbTest, days: Sequence[Day], about: dict[str, Any]) -> dict[str, Any]:
    """The result as plain values; an infinite end of an interval is null.

    Args:
        name: of the experiment.
        test: with all its looks.
        days: as lived.
        about: more about it (policies, world, days asked for).
    """
    last = test.looks[-1]
    return {
        "format": FORMAT,
        "name": name,
        **about,
        "control": test.control,
        "shares": test.shares,
        "alpha": test.alpha,
        "alpha_of_an_interval": {metric: test.level(metric) for metric in METRICS},
        "primary": PRIMARY,
        "decisions": dict(last.decisions()),
        "sample_ratio": {"p_value": last.sample_ratio.p_value, "passed": last.sample_ratio.passed},
        "reason": reason(test),
        "looks": [
            {
                "date": day.look.date,
                "users": day.look.users,
                "requests": day.look.requests,
                "means": day.look.means,
                "true_reward": day.true_reward,
                "sample_ratio_p": day.look.sample_ratio.p_value,
                "lifts": {
                    arm: {metric: _interval(found) for metric, found in lifts.items()}
                    for arm, lifts in day.look.lifts.items()
                },
            }
            for day in days
        ],
    }


def reason(test: AbTest) -> str:
    """One sentence: what was found."""
    last = test.looks[-1]
    if not last.sample_ratio.passed:
        counts = ", ".join(f"{arm} {count}" for arm, count in last.users.items())
        return (
            f"the split is not the planned one (users: {counts}; p {last.sample_ratio.p_value:.2g}): "
            "nothing can be concluded; look for users that an arm loses"
        )
    days = len(test.looks)
    found = [
        f"{arm} is {decision} than {test.control}" if decision != "undecided" else f"{arm} is undecided"
        for arm, decision in last.decisions().items()
    ]
    return f"after {days} day{'s' if days > 1 else ''}: {', '.join(found)}"


def write(folder: Path, result: dict[str, Any]) -> Path:
    """Write both files, each whole or not at all; returns the figure's path."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{FIGURE}"
    draw(result, aside)
    aside.replace(folder / FIGURE)
    write_atomic(folder / RESULT, json.dumps(result, indent=1))
    return folder / FIGURE


def draw(result: dict[str, Any], path: Path) -> None:
    """The lifts over the days, in percent of the control's mean: the primary metric large, the others below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    others = [metric for metric in METRICS if metric != PRIMARY]
    grid = figure.add_gridspec(2, len(others), height_ratios=(2, 1))
    axes = {PRIMARY: figure.add_subplot(grid[0, :])}
    axes |= {metric: figure.add_subplot(grid[1, column]) for column, metric in enumerate(others)}
    for metric, ax in axes.items():
        ax.axhline(0, color="#222", linewidth=0.8)
        for colour, arm in zip(COLOURS * 9, result["looks"][-1]["lifts"], strict=False):
            points = [
                (day, percent)
                for day, look in enumerate(result["looks"], start=1)
                if (percent := percentages(look, arm, metric, result["control"])) and percent[1] is not None
            ]
            if points:
                days, (mean, low, high) = [day for day, _ in points], zip(*(p for _, p in points), strict=True)
                ax.fill_between(days, low, high, color=colour, alpha=0.15, linewidth=0)
                ax.plot(days, mean, color=colour, marker="o", markersize=3, label=arm)
        ax.set_title(metric.replace("_", " "), fontsize=9, loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    axes[PRIMARY].set_ylabel(f"lift over {result['control']}, %")
    axes[PRIMARY].set_xlabel("day")
    if axes[PRIMARY].get_legend_handles_labels()[0]:
        axes[PRIMARY].legend(frameon=False, fontsize=8)
    level = 100 * (1 - result["alpha"])
    figure.suptitle(f"All intervals of all days hold at once with {level:.0f}%", fontsize=9)
    figure.savefig(path, format="png", metadata={"Software": None})


def percentages(
    look: dict[str, Any], arm: str, metric: str, control: str
) -> tuple[float, float | None, float | None] | None:
    """Mean, low and high of a lift in percent of the control's mean so far; None where that is 0 or unknown."""
    base, lift = look["means"][control][metric], look["lifts"][arm][metric]
    if not base or not math.isfinite(base) or lift["mean"] is None:
        return None
    scale = 100 / abs(base)
    low, high = lift["low"], lift["high"]
    return lift["mean"] * scale, None if low is None else low * scale, None if high is None else high * scale


def _interval(found: Lift) -> dict[str, float | None]:
    values = {"mean": found.mean, "low": found.low, "high": found.high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
