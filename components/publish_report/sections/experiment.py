"""The A/B test that a night's report shows: the newest that was made with this night's features.

`goalrank ab-test` leaves its result in RUN/experiment.json and has the report written again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from components.publish_report.plots.style import (
    BAD,
    CHALLENGER,
    CHAMPION,
    GOOD,
    LINE,
    OTHER,
    WIDE,
    Plot,
    draw,
    made,
    numbered,
)

FILE = "experiment.json"
COLOURS = (CHALLENGER, CHAMPION, GOOD, OTHER, BAD)


def read(folder: Path) -> dict[str, Any] | None:
    """The result that lies beside a night; None where there is none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def of_night(document: dict[str, Any]) -> dict[str, Any] | None:
    """What the page shows: {"reason", "rows", "plots", ...}; None where there is no result that can be shown.

    A report is always published, so a broken result is passed over.
    """
    result = document.get("experiment")
    try:
        return _shown(result) if result else None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    last, control = result["looks"][-1], result["control"]
    rows = [
        {
            "arm": arm,
            "users": last["users"][arm],
            "lists": last["requests"][arm],
            "reward": last["means"][arm][result["primary"]],
            "true_reward": last["true_reward"][arm],
            "lift": _percent(last, arm, result) if arm != control else None,
            "decision": result["decisions"].get(arm, "control"),
        }
        for arm in last["users"]
    ]
    shown = {name: result[name] for name in ("reason", "control", "alpha", "primary", "sample_ratio")}
    return shown | {
        "rows": rows,
        "first": result["looks"][0]["date"],
        "last": last["date"],
        "plots": numbered(made([lambda: _plot(result)]), "e"),
    }


def _percent(look: dict[str, Any], arm: str, result: dict[str, Any]) -> dict[str, float] | None:
    """Mean, low and high of the primary lift in percent of the control's mean; None where there is no interval."""
    lift, base = look["lifts"][arm][result["primary"]], look["means"][result["control"]][result["primary"]]
    if not base or lift["low"] is None or lift["high"] is None:
        return None
    return {name: 100 * lift[name] / abs(base) for name in ("mean", "low", "high")}


def _plot(result: dict[str, Any]) -> Plot:
    arms = list(result["looks"][-1]["lifts"])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=LINE, linewidth=1)
        for number, arm in enumerate(arms):
            found = [(day, _percent(look, arm, result)) for day, look in enumerate(result["looks"], start=1)]
            points = [(day, percent) for day, percent in found if percent is not None]
            colour, days = COLOURS[number % len(COLOURS)], [day for day, _ in points]
            low, high = [percent["low"] for _, percent in points], [percent["high"] for _, percent in points]
            axes.fill_between(days, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                days, [percent["mean"] for _, percent in points], color=colour, marker="o", markersize=3, label=arm
            )
        axes.set_xlabel("day")
        axes.set_ylabel("lift, %")
        if arms:
            axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)

    primary, control = result["primary"], result["control"]
    alt = f"Lift of {primary} over {control} day by day, with intervals: {result['reason']}."
    return Plot(f"{primary} over {control}, day by day", alt, draw(WIDE, 2.6, paint))
