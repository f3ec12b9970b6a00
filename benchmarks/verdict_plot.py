"""The verdict's power as a picture: `python -m benchmarks.verdict_plot`, from results/verdict_power.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib.figure import Figure  # noqa: E402 - after the back end

RESULTS = Path(__file__).with_name("results")
COLOURS = {
    "+1%": "#1a7f37",
    "+1%, mirrored": "#7fc08a",
    "equal, mirrored": "#cf222e",
    "equal, swapped": "#f0a030",
    "equal": "#999999",
}


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Left: share promoted over requests a night. Right: where thirty nights end."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for arm, colour in COLOURS.items():
        found = [row for row in rows if row["arm"] == arm]
        requests = [row["requests"] for row in found]
        left.plot(requests, [row["promoted"] for row in found], marker="o", color=colour, label=arm)
        left.fill_between(
            requests,
            [row["low"] for row in found],
            [row["high"] for row in found],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
    for bound in (0.025, 0.8):
        left.axhline(bound, color="#999", linewidth=1, linestyle="--")
    left.set(xscale="log", yscale="symlog", xlabel="requests a night", ylabel="share promoted", ylim=(0, 1.05))
    left.set_yscale("symlog", linthresh=0.05)
    left.set_yticks([0, 0.025, 0.1, 0.5, 0.8, 1.0], ["0", "2.5%", "10%", "50%", "80%", "100%"])
    left.legend(frameon=False)
    chains = [row for row in rows if "mean end" in row][::-1]
    names = [row["arm"].split(", ", 1)[1] for row in chains]
    right.barh(names, [100 * row["mean end"] for row in chains], color="#3b7dd8", label="mean")
    right.plot([100 * row["lowest end"] for row in chains], names, "|", color="#cf222e", markersize=14, label="lowest")
    right.axvline(-1, color="#999", linewidth=1, linestyle="--")
    right.set_xlabel("reward after 30 nights, % above the first champion's")
    right.legend(frameon=False)
    return figure


if __name__ == "__main__":
    document = json.loads((RESULTS / "verdict_power.json").read_text(encoding="utf-8"))
    draw(document["rows"]).savefig(RESULTS / "verdict_power.png", dpi=110, metadata={"Software": None})
