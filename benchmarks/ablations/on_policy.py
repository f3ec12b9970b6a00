"""Lists of the ranker's own in the groups: anew at every step, refreshed now and then, of the initial ranker, none.

Without own lists the group is either smaller or made up of more sampled helper lists. The ranker before its first step
samples nearly at random: its encoder is trained, its decoder is not.
"""

from __future__ import annotations

from functools import partial

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.figure import draw_arms
from benchmarks.ablations.study import Study, by_arm
from benchmarks.report import Claim, Row, claim

BASE, FIXED, NONE = "anew at every step", "of the initial ranker", "none, 8 more helper lists"


def study(thin: bool) -> Study:
    """Six arms, the preset's own 8 and 8 lists the first; thin: without those in between."""
    arms = [Arm(BASE), Arm(FIXED, "lists=8 own=8 refresh=never")]
    if not thin:
        arms += [Arm(f"refreshed every {steps} steps", f"lists=8 own=8 refresh={steps}") for steps in (10, 50)]
        arms.append(Arm("none, 8 lists", "lists=8 own=0"))
    arms.append(Arm(NONE, "lists=16 own=0"))
    return Study(
        "on_policy", "own lists beside 8 helper lists", arms, _claims, partial(draw_arms, base=BASE), base=BASE
    )


def _claims(rows: list[Row]) -> list[Claim]:
    known = {name: row["regret"] for name, row in by_arm(rows).items()}
    made = []
    for other, text in ((NONE, "without own lists"), (FIXED, "with those of the initial ranker")):
        if BASE in known and other in known:
            name = f"regret with own lists anew at every step less that {text}"
            made.append(claim(name, known[BASE] - known[other], "at most", 0.0))
    return made
