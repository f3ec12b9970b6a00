"""What training looked like: curves, the reward models' calibration, the helpers' lists."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from components.publish_report.plots.style import CHALLENGER, CHAMPION, LINE, NARROW, OTHER, WIDE, Plot, draw, thinned

TOGETHER: dict[str, dict[str, dict[str, str]]] = {
    "train_reward": {
        "Next item: loss": {"next_item_loss": "training", "next_item_held_out_loss": "held out"},
        "Next item: rank, held out": {"next_item_held_out_rank": "held out"},
        "Reward model, guide: loss": {"guide_loss": "training", "guide_held_out_loss": "held out"},
        "Reward model, judge: loss": {"judge_loss": "training", "judge_held_out_loss": "held out"},
    },
    "train_ranker": {
        "Ranker: loss": {"loss": "training"},
        "Ranker: reward of lists": {"on_policy_reward": "its own", "helper_reward": "helpers'"},
        "Ranker: spread within a group": {"group_std": "reward, standard deviation"},
        "Ranker: entropy": {"entropy": "of its lists, nats"},
    },
}
"""Step -> title -> curves drawn together and what each is called. A curve that is not named here gets its own plot."""


def curves(step: str, found: dict[str, Any]) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    """(title, [(label, points)]) of every plot that the curves of one step make."""
    drawn: list[tuple[str, list[tuple[str, list[Any]]]]] = []
    named: set[str] = set()
    for title, members in TOGETHER.get(step, {}).items():
        lines = [(label, found[name]) for name, label in members.items() if _is_curve(found.get(name))]
        named |= members.keys()
        drawn += [(title, lines)] if lines else []
    rest = {name: points for name, points in found.items() if name not in named and _is_curve(points)}
    return drawn + [(f"{step}: {name.replace('_', ' ')}", [("", points)]) for name, points in rest.items()]


def curve(title: str, lines: list[tuple[str, list[Any]]]) -> Plot:
    """One small plot of one or two curves over optimiser steps."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for (label, points), colour in zip(lines, (CHALLENGER, CHAMPION, OTHER), strict=False):
            shown = thinned(points)
            axes.plot([p[0] for p in shown], [p[1] for p in shown], color=colour, label=label or None)
        axes.set_xlabel("optimiser step")
        axes.grid(axis="x", visible=False)
        if len(lines) > 1:
            axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)

    told = "; ".join(f"{label} from {p[0][1]:.4g} to {p[-1][1]:.4g}".strip() for label, p in lines)
    return Plot(title, f"{title} over optimiser steps: {told}.", draw(NARROW, 2.1, paint), wide=False)


def calibration(models: dict[str, list[dict[str, float]]]) -> Plot | None:
    """Observed against predicted click rates of guide and judge on lists they were not trained on."""
    shown = {name: bins for name, bins in models.items() if bins}
    if not shown:
        return None
    gaps = {name: max(abs(b["predicted"] - b["observed"]) for b in bins) for name, bins in shown.items()}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        top = (
            max([*(b[key] for bins in shown.values() for b in bins for key in ("predicted", "observed")), 0.01]) * 1.05
        )
        axes.plot([0, top], [0, top], color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        for (name, bins), colour in zip(shown.items(), (CHALLENGER, CHAMPION), strict=False):
            axes.plot(
                [b["predicted"] for b in bins],
                [b["observed"] for b in bins],
                marker="o",
                markersize=4,
                color=colour,
                label=name,
            )
        axes.set_xlabel("predicted click rate")
        axes.set_ylabel("observed click rate")
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)

    told = "; ".join(f"{name}: largest gap {gap:.3f}" for name, gap in gaps.items())
    alt = f"Observed against predicted click rate in bins of held-out lists. {told}."
    return Plot("Reward models: calibration on held-out lists", alt, draw(NARROW, 2.7, paint), wide=False)


def by_position(models: dict[str, list[float]]) -> Plot | None:
    """AUC of the reward models' click predictions at each position of the list."""
    shown = {name: values for name, values in models.items() if values}
    if not shown:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, values), colour in zip(shown.items(), (CHALLENGER, CHAMPION), strict=False):
            known = [(place, value) for place, value in enumerate(values, start=1) if value is not None]
            axes.plot(*zip(*known, strict=True), marker="o", markersize=4, color=colour, label=name)
        axes.set_xlabel("position")
        axes.set_ylabel("AUC of clicks")
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)

    told = "; ".join(
        f"{name}: {min(v for v in values if v is not None):.3f} at its worst" for name, values in shown.items()
    )
    return Plot("Reward models: AUC by position", f"{told}.", draw(NARROW, 2.7, paint), wide=False)


def helpers(rewards: dict[str, float], best: dict[str, float]) -> Plot | None:
    """What each helper's lists earn by the guide, and how often each has the group's best list."""
    names = sorted(rewards, key=lambda name: rewards[name], reverse=True)
    if not names:
        return None

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        labels = [name.replace("_", " ") for name in names]
        left.barh(labels, [rewards[name] for name in names], color=CHALLENGER, height=0.62)
        left.set_xlabel("mean reward of its lists, by the guide")
        right.barh(labels, [100 * best.get(name, 0.0) for name in names], color=CHAMPION, height=0.62)
        right.set_xlabel("has the best list of its group, % of groups")
        left.invert_yaxis()
        for axes in (left, right):
            axes.grid(axis="y", visible=False)

    alt = f"Mean reward of the lists of {len(names)} helpers, {names[0]} first with {rewards[names[0]]:.3f}."
    return Plot("Helper lists", alt, draw(WIDE, 0.26 * len(names) + 0.7, paint))


def _is_curve(points: Any) -> bool:
    return isinstance(points, list) and len(points) > 1
