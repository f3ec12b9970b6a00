"""What the presets choose between: the settings that were best or worst in the other studies, under one and the same
guide. With --good-guide under one that has logs enough: what slows the climb pays under a poor guide, and the presets
are for whoever has logs.
"""

from __future__ import annotations

from functools import partial

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.figure import draw_arms
from benchmarks.ablations.helpers import HEURISTICS, plan_of
from benchmarks.ablations.study import Study, by_arm
from benchmarks.report import Claim, Row, claim
from goalrank.objective import ObjectiveConfig

BASE = "as a preset has it"


def study(thin: bool) -> Study:
    """The preset's own groups and objective, then one thing changed, or two."""
    arms = [
        Arm(BASE),
        Arm("temperature 0.5", objective=ObjectiveConfig(temperature=0.5)),
        Arm("temperature 0.1", objective=ObjectiveConfig(temperature=0.1)),
        Arm("supervised term 1", objective=ObjectiveConfig(supervised_weight=1.0)),
        Arm("own lists refreshed every 10 steps", "refresh=10"),
        Arm("own lists refreshed every 50 steps", "refresh=50"),
        Arm("the preset's first 4 helpers, 4 own", "lists=4 own=4"),
        Arm("all nine heuristics, 7 own", plan_of(HEURISTICS, own=7)),
        Arm("all nine heuristics, 8 own", plan_of(HEURISTICS, own=8)),
    ]
    question = "settings that other studies found good or bad, each against the preset's"
    return Study("choices", question, arms[:2] if thin else arms, _claims, partial(draw_arms, base=BASE), base=BASE)


def _claims(rows: list[Row]) -> list[Claim]:
    known = {name: row["regret"] for name, row in by_arm(rows).items()}
    others = [value for name, value in known.items() if name != BASE]
    if BASE not in known or not others:
        return []
    return [
        claim("regret of the preset's settings less the least of the others", known[BASE] - min(others), "at most", 0)
    ]
