"""Did two trainings of one ranker sample the same lists? Their curves tell; so does what their weights may differ by.

A list's reward is of a frozen model: the same list has the same reward but for rounding, and another list another one.
One other list whose reward is nearly the same may go unseen; the runs part there, so more follow, and they are seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from goalrank.checkpoint import read_model_card
from goalrank.processes import TOLERANCE, TOLERANCE_AFTER_A_TIE

OF_LISTS = ("on_policy_reward", "duplicates")
"""Curves (goalrank/train.py) that are figures of the lists alone, not of the weights that are being trained."""

SAME = 1e-6
"""Largest difference of a point. At preset tiny two halves of a step's 384 lists differ from the whole by 2e-8; two
neighbours swapped in one of a point's 768 lists, by more than 1e-6 in 99 of 100."""


def sampled_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """By the curves of two runs: {name: [[step, value], ...]}; the same steps in both."""
    return all(
        len(one[name]) == len(other[name])
        and all(a[0] == b[0] and abs(a[1] - b[1]) <= SAME for a, b in zip(one[name], other[name], strict=True))
        for name in OF_LISTS
    )


def tolerance_of(one: Path, other: Path) -> float:
    """What no weight of two trained rankers may differ by: the wide one only where a tie was decided otherwise."""
    curves = [read_model_card(ranker)["metrics"]["curves"] for ranker in (one, other)]
    return TOLERANCE if sampled_the_same(*curves) else TOLERANCE_AFTER_A_TIE
