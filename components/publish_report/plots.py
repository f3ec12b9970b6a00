"""The report's plots as inline SVG: step durations, training curves, reward calibration."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from markupsafe import Markup

matplotlib.use("svg")
matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text: small, selectable, read aloud
        "svg.hashsalt": "goalrank",  # same night, same bytes
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": "#777",
        "axes.labelcolor": "#777",
        "axes.edgecolor": "#999",
        "xtick.color": "#777",
        "ytick.color": "#777",
    }
)
from matplotlib.figure import Figure  # noqa: E402 - after the settings


def of_night(outcomes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every plot the outcomes have figures for: {"title", "alt", "svg"}."""
    plots = [_durations(outcomes)] if outcomes else []
    for step, title in (("train_reward", "Reward model"), ("train_ranker", "Ranker")):
        curves = outcomes.get(step, {}).get("figures", {}).get("curves") or {}
        plots += [
            _curve(f"{title}: {name.replace('_', ' ')}", values) for name, values in curves.items() if len(values) > 1
        ]
    calibration = outcomes.get("train_reward", {}).get("figures", {}).get("reliability")
    return plots + ([_reliability(calibration)] if calibration else [])


def svg(figure: Figure) -> Markup:
    """A figure as inline SVG, the same bytes for the same figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def _durations(outcomes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    names = list(outcomes)
    tools = [sum(outcome["tool_seconds"].values()) for outcome in outcomes.values()]
    work = [max(o["seconds"] - t, 0.0) for o, t in zip(outcomes.values(), tools, strict=True)]
    figure = Figure(figsize=(7, 0.3 * len(names) + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, work, color="#3b7dd8", label="work")
    axes.barh(names, tools, left=work, color="#f0a030", label="starting tools")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend(frameon=False)
    slowest = max(outcomes.values(), key=lambda o: o["seconds"])
    return {
        "title": "Where the time went",
        "alt": f"Bar chart of seconds per step; the longest is {slowest['step']} with {slowest['seconds']:.0f} s.",
        "svg": svg(figure),
    }


def _curve(title: str, values: list[list[float]]) -> dict[str, Any]:
    steps, heights = [v[0] for v in values], [v[1] for v in values]
    figure = Figure(figsize=(3.4, 2.1), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, heights, color="#3b7dd8")
    axes.set_xlabel("optimiser step")
    return {
        "title": title,
        "alt": f"{title} over steps, from {heights[0]:.4g} to {heights[-1]:.4g}.",
        "svg": svg(figure),
    }


def _reliability(bins: list[dict[str, float]]) -> dict[str, Any]:
    figure = Figure(figsize=(3.4, 3.0), layout="constrained")
    axes = figure.subplots()
    predicted, observed = [b["predicted"] for b in bins], [b["observed"] for b in bins]
    top = max([*predicted, *observed, 0.01]) * 1.05
    axes.plot([0, top], [0, top], color="#999", linewidth=1, linestyle="--")
    axes.plot(predicted, observed, marker="o", color="#3b7dd8")
    axes.set_xlabel("predicted click rate")
    axes.set_ylabel("observed click rate")
    worst = max((abs(p - o) for p, o in zip(predicted, observed, strict=True)), default=0.0)
    return {
        "title": "Reward model: calibration on held-out lists",
        "alt": f"Observed against predicted click rate in bins; the largest gap is {worst:.3f}.",
        "svg": svg(figure),
    }
