"""Draws benchmarks/results/off_policy.png from off_policy.json: `python -m benchmarks.off_policy_figure`.

Left: error of the estimators by size of the log, on the flawed ranker's lists. Right: how often the 95% interval of the
deciding estimator covers the truth, by effective sample size.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend first

from benchmarks.off_policy import DECIDING
from goalrank.off_policy import MINIMUM_ESS
from goalrank.off_policy.intervals import METHODS

RESULTS = Path(__file__).with_name("results")
SHOWN = (DECIDING, "item_position_dr, model none", "cascade_dr", "rips", "list_ips", "model alone")
TARGET = "ranker"


def draw(document: Path, figure: Path) -> None:
    """The figure described above."""
    rows = json.loads(document.read_text(encoding="utf-8"))["rows"]
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in SHOWN:
        found = [row for row in rows if row.get("estimator") == name and row.get("target") == TARGET]
        left.plot([row["requests"] for row in found], [row["rmse"] for row in found], marker="o", label=name)
    left.set(xscale="log", yscale="log", xlabel="requests", ylabel="root mean squared error, reward a request")
    left.set_title("a ranker's greedy lists")
    left.legend(fontsize=8)
    bins = [row for row in rows if row["part"] == "ESS"]
    for method in METHODS:
        right.plot([row["target"] for row in bins], [row[f"covers_{method}"] for row in bins], marker="o", label=method)
    right.axhline(0.95, color="grey", linewidth=0.8)
    right.set(xlabel=f"effective sample size (the gate asks for {MINIMUM_ESS:g})", ylabel="coverage", ylim=(0.6, 1.0))
    right.set_title(f"95% interval of {DECIDING}")
    right.tick_params(axis="x", labelsize=8)
    right.legend(fontsize=8)
    fig.savefig(figure, dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    draw(RESULTS / "off_policy.json", RESULTS / "off_policy.png")
