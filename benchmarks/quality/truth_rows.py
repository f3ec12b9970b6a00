"""What only a world with a known truth can tell, as rows: the best lists, every method's regret in its parts, and what
becomes of GoalRank when it is trained on and on.

    regret                                    the r* of the best list found less that of the method's
    = features cannot know, at most           ... less that of the best list found for the reward model of random lists
    + features can tell, not earned           what is left; at least, as the part above is at most
      = r_hat is not that, at least           less that of the best list found for the guide
      + not found of r_hat's best             what is left; negative where the policy is truer than its guide

A best list is the best that was found, so the regret is itself a lower bound, and "at most" is said of the best list
found. What features can tell is no exact number: the reward model of random lists, which stands in for it, is itself
fitted to a finite number of lists, so a better one might earn more. The last two parts are of the one guide whose best
lists were searched, GoalRank's; they are empty for a method without a guide, or with one of another share of the steps.
"""

from __future__ import annotations

import numpy as np

from benchmarks.quality.comparison import COMPARED, SEARCH, STAND_IN_SEARCH, Comparison, against
from benchmarks.quality.problem import TEST
from benchmarks.quality.simulated import Simulated
from benchmarks.quality.stages import SIMULATOR, figures_of, problem_of
from benchmarks.quality.statistics import spread
from benchmarks.quality.study import Results
from benchmarks.report import Row

REGRET, CURVE = "regret", "curve"
UNKNOWABLE, NOT_EARNED = "features cannot know, at most", "features can tell, not earned"
OF_GUIDE, OF_POLICY = "r_hat is not that, at least", "not found of r_hat's best"


def rows_of(found: Results, kind: str, compared: Comparison) -> list[Row]:
    """The best lists by who knows how much, then the methods' regret, then the curve of true reward against steps."""
    problem = problem_of(found.place, kind)
    assert isinstance(problem, Simulated)
    best, singly = float(problem.best(TEST).mean()), float(problem.single_item_order(TEST).mean())
    knowable = float(figures_of(found.place, found.stand_in[kind])["reward"].mean())
    expected = found.results[found.stand_in[kind]]["expected"]
    rows: list[Row] = [
        {"part": "truth", "method": "best list found under r*", "reward": round(best, 4)},
        {"part": "truth", "method": "order by true single-item value", "reward": round(singly, 4)},
        {"part": "truth", "method": STAND_IN_SEARCH, "reward": round(knowable, 4), "r_hat": round(expected, 4)},
    ]
    if SEARCH in compared.values:
        rows.append(_search(found, kind, compared))
    rows += [_regret(method, compared, best, knowable) for method in found.runs[kind] if method in compared.values]
    if kind in found.overtrained:
        trained = found.results[found.overtrained[kind]]
        for step, opinion, true in trained["curve"]:
            rows.append({"part": CURVE, "step": step, "r_hat": round(opinion, 4), "reward": round(true, 4)})
        if "diverged" in trained:
            rows.append({"part": CURVE, "setting": f"ended there: {trained['diverged']}"})
    return rows


def _search(found: Results, kind: str, compared: Comparison) -> Row:
    """Of the guides' best lists."""
    return {
        "part": "truth",
        "method": SEARCH,
        "seeds": len(found.searches[kind]),
        **{metric: round(compared.mean(SEARCH, metric), 4) for metric in COMPARED[SIMULATOR]},
        "reward sd": round(spread(compared.values[SEARCH]["reward"]), 4),
        "r_hat": round(float(np.mean([found.results[task]["expected"] for task in found.searches[kind]])), 4),
        **against(compared, SEARCH),
    }


def _regret(method: str, compared: Comparison, best: float, knowable: float) -> Row:
    reward = compared.mean(method, "reward")
    row: Row = {
        "part": REGRET,
        "method": method,
        "regret": round(best - reward, 4),
        UNKNOWABLE: round(best - knowable, 4),
        NOT_EARNED: round(knowable - reward, 4),
    }
    if method in compared.searched:
        guided, _ = compared.means("reward", SEARCH, method)  # where its guide was refused, so was the method
        row |= {OF_GUIDE: round(knowable - guided, 4), OF_POLICY: round(guided - reward, 4)}
    return row
