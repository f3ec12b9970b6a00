"""The metric over the last versions: what each night's challenger and champion earned, and the difference."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from components.publish_report.plots.style import CHALLENGER, CHAMPION, GOOD, LINE, SOFT, WIDE, Plot, draw

LABELS = 10
"""Most versions named on the axis; the others lie between them."""


def over_versions(rows: list[dict[str, Any]]) -> Plot | None:
    """Judged reward by version and, below it, challenger minus champion with its interval (components' versions.py)."""
    shown = [row for row in rows if row["challenger"] is not None]
    if len(shown) < 2:
        return None
    promoted = [place for place, row in enumerate(shown) if row["verdict"] == "promoted"]

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, 1])
        places = list(range(len(shown)))
        kept = [place for place in places if place not in promoted]
        challengers = [row["challenger"] for row in shown]
        champions = [(place, row["champion"]) for place, row in enumerate(shown) if row["champion"] is not None]
        if champions:
            where, levels = zip(*champions, strict=True)
            above.plot(where, levels, color=CHAMPION, marker="_", markersize=9, markeredgewidth=2, linewidth=1.2)
            above.plot([], [], color=CHAMPION, label="champion of that night")
        above.plot(places, challengers, color=CHALLENGER, linewidth=0.8, alpha=0.5)
        for chosen, fill, label in ((promoted, CHALLENGER, "challenger, promoted"), (kept, "none", "challenger, not")):
            above.plot(
                chosen,
                [challengers[place] for place in chosen],
                linestyle="none",
                marker="o",
                markersize=5,
                markerfacecolor=fill,
                markeredgecolor=CHALLENGER,
                label=label,
            )
        above.set_ylabel("judged reward")
        above.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)
        for place, row in enumerate(shown):
            gap = row["difference"]
            if gap and row["champion"] is not None:  # a first night's is over the retriever's order, on another scale
                colour = GOOD if row["verdict"] == "promoted" else SOFT
                below.plot([place, place], [gap["low"], gap["high"]], color=colour, linewidth=2.2, alpha=0.55)
                below.plot([place], [gap["mean"]], marker="o", markersize=4, color=colour, linestyle="none")
        below.axhline(0, color=LINE, linewidth=1)
        below.set_ylabel("over champion")
        below.set_xlabel("version")
        stride = -(-len(shown) // LABELS)
        ticks = places[::-1][::stride][::-1]
        below.set_xticks(ticks, [str(shown[place]["version"]) for place in ticks])
        below.set_xlim(-0.6, max(len(shown) - 0.4, 1.6))

    alt = (
        f"Judged reward of the last {len(shown)} versions, {len(promoted)} of them promoted; the newest, version "
        f"{shown[-1]['version']}, {shown[-1]['challenger']:.4g}."
    )
    return Plot("Judged reward by version", alt, draw(WIDE, 3.3, paint))
