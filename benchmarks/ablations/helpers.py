"""Which helpers matter: each left out in turn, and groups of one generator's lists alone.

The base holds one list of each of the nine heuristics and OWN of the ranker. Left out, a helper's list is missing and
not made up for. One generator alone fills the whole group (SIZE lists) and there are no own lists, but for the ranker
itself, which is a generator too: the authors' public code has it alone.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.figure import dots, panels, save
from benchmarks.ablations.study import Study, by_arm
from benchmarks.report import Claim, Row, claim
from goalrank.policies import REGISTRY

HEURISTICS = tuple(policy.name for policy in REGISTRY.values() if not policy.neural)
NEURAL = ("next_item", "reward_alone")
ALONE = ("retriever_sampled", "shown_perturbed", "random", "next_item_sampled", "reward_alone_sampled")
OWN, SIZE = 7, 16
BASE = "all nine heuristics"


def study(thin: bool) -> Study:
    """The base, nine arms without a helper, three with neural ones beside, six of one generator."""
    left_out, alone = (HEURISTICS[:1], ALONE[:1]) if thin else (HEURISTICS, ALONE)
    arms = [Arm(BASE, _plan(HEURISTICS)), Arm("and both neural ones", _plan((*HEURISTICS, *NEURAL)))]
    arms += [Arm(f"and {name}", _plan((*HEURISTICS, name))) for name in (() if thin else NEURAL)]
    arms += [Arm(f"without {name}", _plan([other for other in HEURISTICS if other != name])) for name in left_out]
    arms += [Arm(f"{name} alone", f"helpers={name}:{SIZE} own=0") for name in alone]
    arms.append(Arm("own lists alone", f"lists=1 own={SIZE}", without_helpers=True))
    question = f"helpers in the mix; one list each and {OWN} own, or {SIZE} of one generator"
    return Study("helpers", question, arms, _claims, _draw, base=BASE)


def _plan(names: tuple[str, ...] | list[str]) -> str:
    return f"helpers={','.join(f'{name}:1' for name in names)} own={OWN}"


def _claims(rows: list[Row]) -> list[Claim]:
    known = {name: row["regret"] for name, row in by_arm(rows).items()}
    alone = [value for name, value in known.items() if name.endswith(" alone")]
    without = [value for name, value in known.items() if name.startswith("without ")]
    made = []
    if BASE in known and alone:
        name = "regret of all heuristics and own lists less that of the best generator alone"
        made.append(claim(name, known[BASE] - min(alone), "at most", 0.0))
    if BASE in known and without:
        name = "regret of all heuristics less the least with one left out (no helper does harm)"
        made.append(claim(name, known[BASE] - min(without), "at most", 0.0))
    return made


def _draw(rows: list[Row], file: Path) -> None:
    figure, (axes,) = panels(1, height=5.0)
    dots(axes, [row for row in rows if "arm" in row], BASE)
    save(figure, file)
