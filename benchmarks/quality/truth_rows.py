"""What only a world with a known truth can tell, as rows: the best lists, every method's regret in its parts, and what
becomes of GoalRank when it is trained on and on."""

from __future__ import annotations

import numpy as np

from benchmarks.quality.comparison import COMPARED, SEARCH, STAND_IN_SEARCH, Comparison, against
from benchmarks.quality.problem import TEST
from benchmarks.quality.simulated import Simulated
from benchmarks.quality.stages import SIMULATOR, figures_of, problem_of
from benchmarks.quality.statistics import spread
from benchmarks.quality.study import Results
from benchmarks.report import Row


def rows_of(found: Results, kind: str, compared: Comparison) -> list[Row]:
    """The regret of each method to the best list found, in its three parts (docs/method.md, the simulated world)."""
    problem = problem_of(found.place, kind)
    assert isinstance(problem, Simulated)
    best, singly = float(problem.best(TEST).mean()), float(problem.single_item_order(TEST).mean())
    stand_in = figures_of(found.place, found.stand_in[kind])
    knowable, guided = float(stand_in["reward"].mean()), compared.mean(SEARCH, "reward")
    rows: list[Row] = [
        {"part": "truth", "method": "best list found under r*", "reward": round(best, 4)},
        {"part": "truth", "method": "order by true single-item value", "reward": round(singly, 4)},
        {"part": "truth", "method": STAND_IN_SEARCH, "reward": round(knowable, 4)},
        {
            "part": "truth",
            "method": SEARCH,
            "seeds": len(found.searches[kind]),
            **{metric: round(compared.mean(SEARCH, metric), 4) for metric in COMPARED[SIMULATOR]},
            "reward sd": round(spread(compared.values[SEARCH]["reward"]), 4),
            "r_hat": round(float(np.mean([found.results[task]["expected"] for task in found.searches[kind]])), 4),
            **against(compared, SEARCH),
        },
    ]
    for method in found.runs[kind]:
        if method in compared.values:
            reward = compared.mean(method, "reward")
            rows.append(
                {
                    "part": "regret",
                    "method": method,
                    "regret": round(best - reward, 4),
                    "features cannot know": round(best - knowable, 4),
                    "r_hat is not that": round(knowable - guided, 4),
                    "not found of r_hat's best": round(guided - reward, 4),
                }
            )
    if kind in found.overtrained:
        for step, expected, true in found.results[found.overtrained[kind]]["curve"]:
            rows.append({"part": "curve", "step": step, "r_hat": round(expected, 4), "reward": round(true, 4)})
    return rows
