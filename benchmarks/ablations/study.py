"""A study: arms that differ in one thing, what is claimed of them, and how they are drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.settings import Size
from benchmarks.quality.stages import Place
from benchmarks.report import Claim, Row


@dataclass(frozen=True)
class Study:
    """What a module of this package offers."""

    name: str
    question: str
    arms: Sequence[Arm]
    claims: Callable[[list[Row]], list[Claim]]
    draw: Callable[[list[Row], Path], None]
    base: str = ""  # the arm that the others are compared with
    beside: Callable[[Place, Size, Sequence[Arm]], list[Row]] | None = None  # rows that need no trained ranker
    base_of: Callable[[str], str] | None = None  # of an arm by its name, where there are several
    only: str = ""  # the pattern that these arms were chosen by, where they are not all

    def compared_with(self, arm: str) -> str:
        """The arm that an arm is compared with, by their names; its own name of a base."""
        return self.base_of(arm) if self.base_of else self.base

    def narrowed(self, wanted: re.Pattern[str]) -> Study:
        """The study with those of its arms alone whose name has the pattern in it, and what these are compared with.

        Nothing is claimed of it: "no other arm is better" is about all of them.
        """
        found = [arm.name for arm in self.arms if wanted.search(arm.name)]
        kept = {*found, *(self.compared_with(name) for name in found)}
        arms = [arm for arm in self.arms if arm.name in kept]
        return replace(self, arms=arms, claims=lambda _: [], only=wanted.pattern)


def by_arm(rows: list[Row]) -> dict[str, Row]:
    """The rows of trained arms."""
    return {row["arm"]: row for row in rows if "regret" in row}


def regret(rows: list[Row], arm: str) -> float:
    """Mean regret of an arm."""
    return float(by_arm(rows)[arm]["regret"])
