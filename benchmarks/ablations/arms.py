"""An arm: one setting of the method."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from goalrank.objective import ObjectiveConfig

Error = Literal["none", "constant", "scale", "noise", "popularity", "cube", "saturating", "steps"]


@dataclass(frozen=True)
class Signal:
    """Who scores the lists (signals.py says what the errors are)."""

    truth: bool = False  # r* itself; else the trained guide, which has errors of its own
    error: Error = "none"
    size: float = 0.0

    @property
    def name(self) -> str:
        """For tables."""
        if not self.truth:
            return "guide"
        return "r*" if self.error == "none" else f"r*, {self.error}{f' {self.size:g}' if self.size else ''}"


TRUTH = Signal(truth=True)


@dataclass(frozen=True)
class Arm:
    """One setting. Arms that differ in their name alone are one run."""

    name: str
    plan: str = ""  # goalrank/group_plan.py, over the preset
    without_helpers: bool = False  # groups of own lists alone
    signal: Signal = Signal()
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    at: float = float("nan")  # where it stands in a series: a group size, say

    def to_dict(self) -> dict[str, Any]:
        """What a run of it depends on."""
        return {
            "plan": self.plan,
            "without_helpers": self.without_helpers,
            "signal": {name: str(value) for name, value in asdict(self.signal).items()},
            "objective": self.objective.to_dict(),
        }
