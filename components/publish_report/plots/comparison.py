"""Challenger against champion: intervals of differences, off-policy estimates, slices."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from components.publish_report.plots.style import CHALLENGER, CHAMPION, OTHER, SOFT, TONES, WIDE, Plot, draw, intervals


def differences(rows: list[dict[str, Any]], against: str) -> Plot | None:
    """Differences by metric: {"metric", "relative": {"mean", "low", "high"}}, in shares of the other's value."""
    shown = [row for row in rows if row.get("relative")]
    if not shown:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        intervals(axes, [{"label": row["metric"], "colour": CHALLENGER, **row["relative"]} for row in shown])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"challenger minus {against}, share of its value")

    first = shown[0]
    alt = (
        f"Differences between challenger and {against} by metric with intervals; {first['metric']} "
        f"{first['relative']['mean']:+.2%}, from {first['relative']['low']:+.2%} to {first['relative']['high']:+.2%}."
    )
    return Plot(f"Challenger minus {against}", alt, draw(WIDE, 0.3 * len(shown) + 0.75, paint))


def slices(rows: list[dict[str, Any]]) -> Plot | None:
    """Difference of judged reward on each slice, worst first, and what it may lose there."""
    shown = [row for row in rows if row["difference"]]
    if not shown:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        intervals(
            axes,
            [
                {
                    "label": row["name"],
                    "colour": TONES.get(row["status"], SOFT),
                    "threshold": None if row["margin"] is None else -row["margin"],
                    **row["difference"],
                }
                for row in shown
            ],
        )
        axes.set_xlabel("judged reward a request, challenger minus champion; red tick: most that may be lost")

    worst = shown[0]
    alt = (
        f"Differences of judged reward on {len(shown)} slices with intervals, worst first: {worst['name']} "
        f"{worst['difference']['mean']:+.4f}."
    )
    return Plot("Challenger minus champion on each slice", alt, draw(WIDE, 0.24 * len(shown) + 0.75, paint))


def off_policy(estimates: dict[str, dict[str, Any]]) -> Plot | None:
    """Values of the policies on the left, the estimators' differences on the right."""
    colours = {"challenger": CHALLENGER, "champion": CHAMPION}
    rows = [
        {
            "label": name.removeprefix("difference.").replace("_", " "),
            "mean": estimate.get("value"),
            "low": estimate.get("low"),
            "high": estimate.get("high"),
            "colour": colours.get(name, OTHER),
            "difference": name.startswith("difference"),
        }
        for name, estimate in estimates.items()
    ]
    values = [row for row in rows if not row["difference"]]
    gaps = [
        row | {"colour": CHALLENGER if row["label"] == "difference" else OTHER} for row in rows if row["difference"]
    ]
    for row in gaps:
        if row["label"] == "difference":
            row["label"] = f"{estimates['difference'].get('estimator', '')} (decides)".replace("_", " ")
    if not values or not gaps:
        return None

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
        intervals(left, values, zero=None)
        left.set_xlabel("reward a request")
        intervals(right, gaps)
        right.set_xlabel("difference a request")

    alt = f"Off-policy estimates with intervals: {len(values)} policies, {len(gaps)} estimators of the difference."
    return Plot("Off-policy estimates", alt, draw(WIDE, 0.28 * max(len(values), len(gaps)) + 0.8, paint))
