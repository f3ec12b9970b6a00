"""Which helpers matter: each left out in turn, and groups of one generator's lists, beside own lists and without.

The base holds one list of each of the nine heuristics and OWN of the ranker. Left out, a helper's list is missing and
not made up for. One generator fills the helpers' part of the group beside as many own lists, or, alone, the whole of it
(SIZE lists); the ranker itself is a generator too, which the authors' public code has alone. What the mixture is worth
is asked among groups with as many own lists: these are worth something by themselves (on_policy.py). What the helpers
bring is measured beside, before any training: how their rewards spread against the guide's noise, how many lists are
duplicates, how far the lists of a group differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.ablations import runs
from benchmarks.ablations.arms import Arm
from benchmarks.ablations.figure import draw_arms
from benchmarks.ablations.settings import Size
from benchmarks.ablations.study import Study, by_arm
from benchmarks.ablations.training import measured_groups
from benchmarks.quality.stages import Place
from benchmarks.report import Claim, Row, claim
from goalrank.group_plan import planned
from goalrank.groups import group_statistics
from goalrank.policies import REGISTRY

HEURISTICS = tuple(policy.name for policy in REGISTRY.values() if not policy.neural)
NEURAL = ("next_item", "reward_alone")
ALONE = ("retriever_sampled", "shown_perturbed", "random", "next_item_sampled", "reward_alone_sampled")
OWN, SIZE = 7, 16
BASE = "all nine heuristics"
NO_OWN = "all nine heuristics, no own lists"
PRESET = "as a preset has them"
AND_OWN, BY_ITSELF = " and own lists", " alone"
STATISTICS = ("reward_std", "reward_noise", "without_signal", "duplicates", "distinct_items", "distinct_positions")
"""Of goalrank.groups.group_statistics."""
STATISTICS_PART = "the helpers' lists before any training, by the guide of seed 0"


def study(thin: bool) -> Study:
    """The base, nine arms without a helper, three with neural ones beside, five of one generator beside own lists, and
    without own lists: the heuristics, and six of one generator. And a preset's groups, for what they lack of these."""
    left_out, alone = (HEURISTICS[:1], ALONE[:1]) if thin else (HEURISTICS, ALONE)
    arms = [Arm(BASE, plan_of(HEURISTICS)), Arm("and both neural ones", plan_of((*HEURISTICS, *NEURAL)))]
    arms += [Arm(f"and {name}", plan_of((*HEURISTICS, name))) for name in (() if thin else NEURAL)]
    arms += [Arm(f"without {name}", plan_of([other for other in HEURISTICS if other != name])) for name in left_out]
    arms += [Arm(f"{name}{AND_OWN}", f"helpers={name}:{SIZE - OWN} own={OWN}") for name in alone]
    arms.append(Arm(NO_OWN, f"helpers={','.join(HEURISTICS)} lists={SIZE} own=0"))
    arms += [Arm(f"{name}{BY_ITSELF}", f"helpers={name}:{SIZE} own=0") for name in alone]
    arms.append(Arm(f"own lists{BY_ITSELF}", f"lists=1 own={SIZE}", without_helpers=True))
    arms.append(Arm(PRESET))
    question = (
        f"helpers in the mix; one list each and {OWN} own, or {SIZE - OWN} of one generator, or {SIZE} and none own"
    )
    draw = partial(draw_arms, base=BASE, height=5.0)
    return Study("helpers", question, arms, _claims, draw, base=BASE, beside=_statistics)


def _statistics(place: Place, size: Size, arms: Sequence[Arm]) -> list[Row]:
    """The groups of each arm as they are before its ranker adds own lists, under the first seed's guide."""
    problem, guide = runs.problem_of(place), runs.guide_of(place, 0)
    rows: list[Row] = []
    for arm in arms:
        chosen = planned(place.scale.preset, arm.plan)
        if not arm.without_helpers:
            lists, mix = chosen.helper_lists, chosen.helpers
            found = group_statistics(measured_groups(problem, guide, size.measured_groups, lists, mix))
            figures = {name: float(f"{found[name]:.4g}") for name in STATISTICS}
            rows.append({"part": STATISTICS_PART, "helpers": arm.name} | figures)
    return rows


def plan_of(names: tuple[str, ...] | list[str], own: int = OWN) -> str:
    """One list of each of these helpers and so many own."""
    return f"helpers={','.join(f'{name}:1' for name in names)} own={own}"


def _claims(rows: list[Row]) -> list[Claim]:
    known = {name: row["regret"] for name, row in by_arm(rows).items()}
    beside = [value for name, value in known.items() if name.endswith(AND_OWN)]
    alone = [value for name, value in known.items() if name.endswith(BY_ITSELF)]
    without = [value for name, value in known.items() if name.startswith("without ")]
    made = []
    if BASE in known and beside:
        name = "regret of all heuristics and own lists less that of the best generator and own lists"
        made.append(claim(name, known[BASE] - min(beside), "at most", 0.0))
    if NO_OWN in known and alone:
        name = "regret of all heuristics without own lists less that of the best generator alone"
        made.append(claim(name, known[NO_OWN] - min(alone), "at most", 0.0))
    if BASE in known and without:
        name = "regret of all heuristics less the least with one left out (no helper does harm)"
        made.append(claim(name, known[BASE] - min(without), "at most", 0.0))
    return made
