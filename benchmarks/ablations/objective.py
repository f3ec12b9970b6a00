"""Which loss: the paper's likelihood of whole lists, the same renormalised in the group, and their rivals.

Groups, guide and steps are those of every study; only the objective differs. A loss may be best at a temperature of its
own, so several stand beside one another; what a temperature is to the others, beta is to DPO and RCPO. The last arms
change one option of the default: groups not weighted by signal, every copy of a duplicate counted, a supervised term on
the logged feedback.
"""

from __future__ import annotations

from functools import partial

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.figure import draw_arms
from benchmarks.ablations.study import Study, by_arm
from benchmarks.report import Claim, Row, claim
from goalrank.objective import Loss, ObjectiveConfig

TEMPERATURES: dict[Loss, tuple[float, ...]] = {
    "full_list": (0.1, 0.25, 0.5, 1.0),
    "group_renormalised": (0.25, 1.0, 2.0, 4.0),
    "reverse_kl": (0.25, 1.0, 2.0),
}
OPTIONS = {
    "without weights by signal": ObjectiveConfig(signal="none"),
    "every copy counts": ObjectiveConfig(duplicates="each"),
    "supervised term 1": ObjectiveConfig(supervised_weight=1.0),
    "supervised term 10": ObjectiveConfig(supervised_weight=10.0),
}
PREFERENCES: tuple[Loss, ...] = ("dpo", "rcpo")
BETAS = (0.01, 0.03, 0.1, 0.3, 1.0)
ANCHORED = 0.1
"""beta of the arms whose pi_0 is the ranker before its first step."""


def _name(objective: ObjectiveConfig) -> str:
    if objective.loss in PREFERENCES:
        anchored = ", anchored" if objective.uses_initial_ranker else ""
        return f"{objective.loss}, beta {objective.preference_beta:g}{anchored}"
    return f"{objective.loss}, temperature {objective.temperature:g}"


BASE = _name(ObjectiveConfig())


def study(thin: bool) -> Study:
    """Each loss at its temperatures or betas, then the default with one option changed; thin: the default and one."""
    losses = [
        *(ObjectiveConfig(loss=loss, temperature=at) for loss, some in TEMPERATURES.items() for at in some),
        *(ObjectiveConfig(loss=loss, preference_beta=beta) for loss in PREFERENCES for beta in BETAS),
        *(ObjectiveConfig(loss=loss, preference_beta=ANCHORED, preference_reference="initial") for loss in PREFERENCES),
    ]
    named = {_name(objective): objective for objective in losses} | OPTIONS
    if thin:
        named = {name: named[name] for name in (BASE, _name(losses[-1]))}
    arms = [Arm(name, objective=objective) for name, objective in named.items()]
    question = f"losses under the guide, each at some temperatures or betas; last, {BASE} with one option changed"
    return Study("objective", question, arms, _claims, partial(draw_arms, base=BASE, height=5.0), base=BASE)


def _claims(rows: list[Row]) -> list[Claim]:
    known = by_arm(rows)
    if BASE not in known:
        return []
    made = []
    for text, others in (
        ("the least of all others", [name for name in known if name != BASE]),
        ("the least of the preference losses", [name for name in known if name.startswith(PREFERENCES)]),
    ):
        if others:
            gap = known[BASE]["regret"] - min(known[name]["regret"] for name in others)
            made.append(claim(f"regret of the default less {text}", gap, "at most", 0.0))
    return made
