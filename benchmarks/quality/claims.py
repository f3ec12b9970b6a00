"""What the study must show (the numbers are the issue's), each as a claim that holds or not.

A claim about rivals that are not in the study is left out; one that has no figure is NaN and does not hold.
"""

from __future__ import annotations

from benchmarks.quality.comparison import COMPARED, SEARCH, Comparison
from benchmarks.quality.methods import GENERATOR_EVALUATOR, LIST_WISE, WITH_REWARD
from benchmarks.quality.settings import OURS
from benchmarks.quality.stages import MOVIELENS
from benchmarks.report import Claim, claim
from goalrank.schema import LIST_LENGTH

P_LIMIT = 0.01
LEAST_GAIN = 2.77
"""Percent of MAP@6 above the best generator-evaluator: what the paper's table has above its best baseline."""
LOST_SHARE = 0.5
"""Of what the best rival loses by optimisation: of the true reward of its guide's best list, what its policy does not
find, or avoids. Only a rival that learns with the searched guide has such a figure."""
HEADLINE = f"map@{LIST_LENGTH}"


def claims_of(world: str, comparisons: dict[str, Comparison]) -> list[Claim]:
    """All claims of a world; of MovieLens for both kinds of candidates, "matched" the headline."""
    made: list[Claim] = []
    for kind, compared in comparisons.items():
        if OURS in compared.values:
            made += _movielens(kind, compared) if world == MOVIELENS else _simulator(compared)
    return made


def _movielens(kind: str, compared: Comparison) -> list[Claim]:
    made: list[Claim] = []
    evaluated, listwise = compared.rivals(GENERATOR_EVALUATOR), compared.rivals(LIST_WISE)
    metrics = COMPARED[MOVIELENS]
    if evaluated:
        for metric in metrics:
            name = f"{kind}: above every generator-evaluator, {metric}"
            made.append(_significance(compared, metric, evaluated, name))
        best = max(evaluated, key=lambda rival: compared.mean(rival, HEADLINE))
        gain = 100 * compared.gain(HEADLINE, best)
        made.append(
            claim(f"{kind}: {HEADLINE} above the best generator-evaluator ({best}), %", gain, "at least", LEAST_GAIN)
        )
    if listwise:
        for metric in metrics:
            best = max(listwise, key=lambda rival: compared.mean(rival, metric))
            gain = 100 * compared.gain(metric, best)
            made.append(claim(f"{kind}: {metric} not below the best list-wise scorer ({best}), %", gain, "at least", 0))
        for metric in metrics:
            name = f"{kind}, stretch: above every list-wise scorer, {metric}"
            made.append(_significance(compared, metric, listwise, name))
    return made


def _simulator(compared: Comparison) -> list[Claim]:
    made: list[Claim] = []
    rivals = [rival for rival in compared.rivals() if rival != SEARCH]
    if rivals:
        made.append(_significance(compared, "reward", rivals, "true reward above every rival"))
        with_reward = [rival for rival in rivals if rival.endswith(WITH_REWARD)]
        if with_reward:
            made.append(_significance(compared, "reward", with_reward, "true reward above every rival given r_hat"))
    guided = [rival for rival in rivals if rival in compared.searched]
    if guided:
        best = max(guided, key=lambda rival: compared.mean(rival, "reward"))
        searched, ours, theirs = compared.means("reward", SEARCH, OURS, best)
        # A rival that stays above its guide's best list loses nothing by optimisation; then neither may ours.
        lost = searched - ours - LOST_SHARE * max(searched - theirs, 0.0)
        name = f"lost by optimisation, less {LOST_SHARE:g} of what the best rival with that guide ({best}) loses"
        made.append(claim(name, lost, "at most", 0))
    if SEARCH in compared.values:
        made.append(_significance(compared, "reward", [SEARCH], "true reward above the long search of r_hat"))
    return made


def _significance(compared: Comparison, metric: str, rivals: list[str], name: str) -> Claim:
    """The largest of Holm's p-values over these rivals; it is 1 where ours is not above one of them."""
    largest = max(compared.p_above[metric][rival] for rival in rivals)
    return claim(f"{name}: largest Holm p", largest, "at most", P_LIMIT)
