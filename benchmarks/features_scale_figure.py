"""The picture of benchmarks/features_scale.py: seconds and memory against impressions."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib.figure import Figure  # noqa: E402 - after the back end

from benchmarks.report import Row  # noqa: E402

COLOURS = ("#0969da", "#999999", "#1a7f37", "#8250df")


def draw(rows: list[Row], file: Path) -> None:
    """Write the figure of a table of benchmarks/features_scale.py."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    jobs = dict.fromkeys(row["job"] for row in rows)
    for job, colour in zip(jobs, COLOURS, strict=False):
        found = sorted((row for row in rows if row["job"] == job), key=lambda row: row["impressions"])
        across = [row["impressions"] for row in found]
        for axes, column in ((left, "job_s"), (right, "peak_mb")):
            axes.plot(across, [row[column] for row in found], marker="o", markersize=4, color=colour, label=job)
    left.set(xscale="log", yscale="log", xlabel="impressions in the window", ylabel="seconds, start not counted")
    right.set(xscale="log", ylim=(0, None), xlabel="impressions in the window", ylabel="resident at most, MB")
    left.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110, metadata={"Software": None})
