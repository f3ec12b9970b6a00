"""The reward model's ceiling: the true reward degraded step by step until nothing of it is left, and the guide's place.

Two ways down: noise that is independent for every list, which no policy can learn, and popularity, a bias that a policy
can learn and will. They meet at no order being right, but not on the way.
"""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.ablations.arms import TRUTH, Arm, Error, Signal
from benchmarks.ablations.figure import REGRET, curve, panels, save
from benchmarks.ablations.normalisation import correlation
from benchmarks.ablations.study import Study, by_arm
from benchmarks.report import Claim, Row, claim

SIZES = (0.25, 0.5, 1.0, 2.0, 4.0, math.inf)
WAYS: tuple[Error, ...] = ("noise", "popularity")
GUIDE = "the trained guide"
LEAST_CORRELATION = -0.9


def study(thin: bool) -> Study:
    """Two ways down from the truth, and the guide."""
    sizes = (2.0, math.inf) if thin else SIZES
    arms = [Arm(TRUTH.name, signal=TRUTH), Arm(GUIDE)]
    arms += [Arm(Signal(True, way, size).name, signal=Signal(True, way, size)) for way in WAYS for size in sizes]
    question = "r* degraded: errors of so many times r*'s own spread within a request; inf: nothing of r* is left"
    return Study("ceiling", question, arms, _claims, _draw, base=TRUTH.name)


def _claims(rows: list[Row]) -> list[Claim]:
    name = "rank correlation of regret with the share of pairs in the true order"
    made = [claim(name, correlation(rows), "at most", LEAST_CORRELATION)]
    known = by_arm(rows)
    if TRUTH.name in known:
        least = min(row["regret"] for row in known.values())
        made.append(
            claim("regret under r* itself less the least of all", known[TRUTH.name]["regret"] - least, "at most", 0)
        )
    return made


def _draw(rows: list[Row], file: Path) -> None:
    figure, (axes,) = panels(1)
    trained = by_arm(rows)
    for way in WAYS:
        of_way = [row for name, row in trained.items() if name == TRUTH.name or way in name]
        curve(axes, of_way, "agreement", way)
    if GUIDE in trained:
        axes.plot(trained[GUIDE]["agreement"], trained[GUIDE]["regret"], "k*", markersize=10, label=GUIDE)
    axes.set(xlabel="share of pairs of lists in the true order", ylabel=REGRET)
    axes.legend(frameon=False)
    save(figure, file)
