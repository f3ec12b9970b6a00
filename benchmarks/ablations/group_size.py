"""How many lists a group should have, at equal temperature and at equal sharpness.

Half of a group's lists are the helpers' (the larger half of an odd number), half the ranker's own. All helpers here
are sampled ones, so that a large group holds more of the same and not other policies. Equal temperature is flatter in
larger groups (goalrank/objective/temperature.py), so two things change in that series; in the matched one the
temperature is stated for BASE lists and found for the others. Both learn from the guide; a third, shorter series learns
from r* itself, where climbing the signal is no mistake.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.ablations.arms import TRUTH, Arm, Signal
from benchmarks.ablations.figure import REGRET, curve, panels, save
from benchmarks.ablations.study import Study, by_arm, regret
from benchmarks.report import Claim, Row, claim
from goalrank.objective import ObjectiveConfig

SIZES = (3, 5, 8, 12, 20, 50, 100)
BASE = 16
MIX = "retriever_sampled,shown_perturbed,random"
TRUE_SIZES = (3, 8, 20, 100)
EQUAL, MATCHED, TRUE = "equal temperature", "matched sharpness", "equal temperature, r*"
PAPERS_BEST, PAPERS_FEW = (8, 12, 20), (3, 5)
"""Sizes that the paper finds best, and too few (docs/method.md)."""


def study(thin: bool) -> Study:
    """All series; thin: their ends and one between."""
    arms = []
    for series, sizes, signal, objective in (
        (EQUAL, SIZES, Signal(), ObjectiveConfig()),
        (MATCHED, SIZES, Signal(), ObjectiveConfig(matched_group_size=BASE)),
        (TRUE, TRUE_SIZES, TRUTH, ObjectiveConfig()),
    ):
        for size in (3, 8, 100) if thin else sizes:
            plan = f"helpers={MIX} lists={size - size // 2} own={size // 2}"
            arms.append(Arm(f"{size} lists, {series}", plan, signal=signal, objective=objective, at=size))
    question = (
        f"lists in a group; sampled helpers and own lists half and half; matched to {BASE} lists; the base is each "
        "series' own group of 8"
    )
    return Study("group_size", question, arms, _claims, _draw, base=f"8 lists, {EQUAL}", base_of=_base_of)


def _base_of(arm: str) -> str:
    """Eight lists of the arm's own series: what its signal or temperature does is not its size's doing."""
    return f"8 lists, {arm.split(' lists, ', 1)[1]}"


def _claims(rows: list[Row]) -> list[Claim]:
    made = []
    known = by_arm(rows)
    for series in (EQUAL, MATCHED, TRUE):
        found = {int(row["at"]): row["regret"] for name, row in known.items() if name.endswith(series)}
        best = [found[size] for size in PAPERS_BEST if size in found]
        few = [found[size] for size in PAPERS_FEW if size in found]
        if best and few:
            name = f"{series}: least regret of 8 to 20 lists less the least of all sizes"
            made.append(claim(name, min(best) - min(found.values()), "at most", 0.0))
            name = f"{series}: least regret of 8 to 20 lists less the least of 3 to 5"
            made.append(claim(name, min(best) - min(few), "at most", 0.0))
    spread = {
        series: regret(rows, f"100 lists, {series}") - regret(rows, f"8 lists, {series}")
        for series in (EQUAL, MATCHED)
        if f"100 lists, {series}" in known and f"8 lists, {series}" in known
    }
    if len(spread) == 2:
        name = "what 100 lists lose against 8, matched less at equal temperature (dilution is the temperature's)"
        made.append(claim(name, spread[MATCHED] - spread[EQUAL], "at most", 0.0))
    return made


def _draw(rows: list[Row], file: Path) -> None:
    figure, (left, right) = panels(2)
    for series in (EQUAL, MATCHED, TRUE):
        of_series = [row for row in rows if row.get("arm", "").endswith(series) and "regret" in row]
        if not of_series:
            continue
        curve(left, of_series, "at", series)
        sharp = sorted((row["at"], row["top weight"]) for row in of_series if row["top weight"] is not None)
        right.plot([at for at, _ in sharp], [weight for _, weight in sharp], marker="o", markersize=4, label=series)
    left.set(xscale="log", xlabel="lists in a group", ylabel=REGRET)
    right.set(xscale="log", xlabel="lists in a group", ylabel="top weight of the reference over the helpers' lists")
    for axes in (left, right):
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.minorticks_off()
    left.legend(frameon=False)
    save(figure, file)
