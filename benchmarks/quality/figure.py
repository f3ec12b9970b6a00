"""A study's document as figures: methods by their main metric, in the simulated world regret and the curve, and beside
them the learning curves."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend first
from matplotlib.axes import Axes  # noqa: E402

from benchmarks.quality.claims import HEADLINE  # noqa: E402
from benchmarks.quality.learning_curves import PART as LEARNING  # noqa: E402
from benchmarks.quality.methods import ORDER  # noqa: E402
from benchmarks.quality.settings import OURS  # noqa: E402
from benchmarks.quality.stages import KINDS, MOVIELENS, SIMULATOR  # noqa: E402
from benchmarks.quality.truth_rows import CURVE, NOT_EARNED, OF_GUIDE, OF_POLICY, REGRET, UNKNOWABLE  # noqa: E402
from benchmarks.report import Row  # noqa: E402

PARTS = {UNKNOWABLE: "lightgrey", OF_GUIDE: "tab:orange", OF_POLICY: "tab:blue", NOT_EARNED: "tab:green"}
"""Of a regret, with their colours; the last where it is not the two before it."""
ROUNDED = 5e-4
"""By so much the parts, of four decimals each, may miss the regret."""


CURVES = {"loss": "tab:blue", "held_out_loss": "tab:red"}
REWARD_CURVES = {"on_policy_reward": "tab:green", "helper_reward": "tab:grey"}
"""The learning curves that are drawn, with their colours, the latter instead of the former where a training has them;
the document has more."""
PANELS = 5
"""Learning curves in a row, a panel a method."""


def draw(world: str, rows: list[dict[str, Any]], figure: Path) -> None:
    """Write the PNG of a document's rows, and beside it as NAME_curves.png their learning curves."""
    _draw_curves([row for row in rows if row["part"] == LEARNING], figure.with_stem(f"{figure.stem}_curves"))
    parts = {row["part"] for row in rows}
    kinds = [kind for kind in KINDS[world] if kind in parts]
    panels = len(kinds) if world == MOVIELENS else 3
    fig, (axes,) = plt.subplots(1, panels, figsize=(5 * panels, 4.5), layout="constrained", squeeze=False)
    if world == MOVIELENS:
        for axis, kind in zip(axes, kinds, strict=True):
            _points(axis, [row for row in rows if row["part"] == kind], HEADLINE)
            axis.set_title(f"MovieLens-1M, {kind} candidates")
    else:
        kind = KINDS[SIMULATOR][0]
        _points(axes[0], [row for row in rows if row["part"] in (kind, "truth")], "reward")
        axes[0].set_title("simulated world: true reward a request")
        _regret(axes[1], [row for row in rows if row["part"] == REGRET])
        _curve(axes[2], [row for row in rows if row["part"] == CURVE and row.get("step", "") != ""])
    fig.savefig(figure, dpi=110)
    plt.close(fig)


def _points(axis: Axes, rows: list[Row], metric: str) -> None:
    """Methods from worst to best, whiskers the spread over seeds.

    On an axis that began at 0 nobody could tell trained methods apart. It holds them and who earns at most as much less
    or more as they differ by; the others are named below it.
    """
    known = sorted((row for row in rows if row.get(metric, "") != ""), key=lambda row: row[metric])
    trained = [row[metric] for row in known if row.get("family", ORDER) != ORDER] or [row[metric] for row in known]
    if not trained:
        return
    margin = trained[-1] - trained[0] or math.inf  # one alone stands beside whatever there is
    within = [row for row in known if trained[0] - margin <= row[metric] <= trained[-1] + margin]
    beyond = [f"{row['method']} {row[metric]:.3f}" for row in known if row not in within]
    for row in within:
        spread = row.get(f"{metric} sd") or 0.0  # a document has null where one seed has no spread
        colour = "tab:red" if row["method"] == OURS else "tab:blue"
        axis.errorbar(row[metric], row["method"], xerr=spread, fmt="o", color=colour, markersize=5, capsize=2)
    axis.set_xlabel("\n".join([metric, *(["beyond the axis:"] if beyond else []), *beyond]), fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.tick_params(axis="y", labelsize=8)


def _regret(axis: Axes, rows: list[Row]) -> None:
    """The parts of each method's regret, each counted from where the one before it ends.

    Raises:
        ValueError: a method's parts are not its regret, as in a document whose parts have other names.
    """
    rows = sorted(rows, key=lambda row: -row["regret"])
    names = [row["method"] for row in rows]
    left = [0.0] * len(rows)
    for part, colour in PARTS.items():
        widths = [0.0 if part == NOT_EARNED and OF_GUIDE in row else row.get(part, 0.0) for row in rows]
        axis.barh(names, widths, left=left, color=colour, label=part, alpha=0.8)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    for row, end in zip(rows, left, strict=True):
        if abs(end - row["regret"]) > ROUNDED:
            raise ValueError(
                f"parts of {row['method']}'s regret that come to {end:.4f} found under {', '.join(row)}, expected "
                f"{row['regret']:.4f} under {', '.join(PARTS)}; make the document anew"
            )
    axis.plot([row["regret"] for row in rows], names, "k|", markersize=10, label="regret")
    axis.set_title("regret to the best list found")
    axis.legend(fontsize=7)
    axis.tick_params(axis="y", labelsize=8)


def _curve(axis: Axes, rows: list[Row]) -> None:
    for name, label in (("reward", "true reward"), ("r_hat", "the guide's opinion")):
        axis.plot([row["step"] for row in rows], [row[name] for row in rows], marker="o", label=label)
    axis.set(xlabel="training step", ylabel="reward a request", title="GoalRank trained on and on (validation)")
    axis.legend(fontsize=8)


def _draw_curves(rows: list[dict[str, Any]], figure: Path) -> None:
    """A panel for every training: its loss on the requests learnt from and on those held out; of GoalRank, which holds
    none out for itself, what its guide thinks of its own lists and of the helpers'."""
    trainings: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        curves = trainings.setdefault((row["kind"], row["method"], row["setting"]), {})
        curves.setdefault(row["curve"], []).append((row["step"], row["value"]))
    if not trainings:
        return
    down = math.ceil(len(trainings) / PANELS)
    fig, axes = plt.subplots(down, PANELS, figsize=(3.2 * PANELS, 2.4 * down), layout="constrained", squeeze=False)
    for axis in axes.flat[len(trainings) :]:
        axis.axis("off")
    several = len({kind for kind, _, _ in trainings}) > 1
    for axis, ((kind, method, setting), curves) in zip(axes.flat, trainings.items(), strict=False):
        wanted = REWARD_CURVES if REWARD_CURVES.keys() & curves.keys() else CURVES
        for name, points in curves.items():
            drawn = name.rpartition(": ")[2]  # "part: name" where more than one part of a method learnt
            if drawn in wanted:
                axis.plot(*zip(*points, strict=True), marker=".", color=wanted[drawn], label=name, linewidth=1)
        axis.set_title("\n".join([f"{method}, {kind}" if several else method, *wrap(setting, 60)]), fontsize=6)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
    fig.supxlabel("training step", fontsize=8)
    fig.savefig(figure, dpi=100)
    plt.close(fig)
