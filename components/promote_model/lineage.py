"""Who was champion when, by the journal: what `previous` is, and which versions were rolled back from.

The line of succession is a stack. A promotion puts its version on top. A roll-back to a version in the line takes away
all above it: they were rolled back from, and no night may promote them again by itself. A roll-back to a version that
was taken away earlier (undoing a roll-back) puts it on top again. `previous` is always the one below the top: the
champion before the present one, as if what was rolled back from had never been.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from components import registry

PROMOTION = "promotion"
ROLLBACK = "rollback"


@dataclass
class Lineage:
    """What the finished moves of a journal come to; versions are the ranker's."""

    line: list[str] = field(default_factory=list)
    """Champions in succession, the present one last."""
    rewards: dict[str, str] = field(default_factory=dict)
    """The reward model's version that was champion beside each ranker."""
    rolled_back: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Versions rolled back from and not restored since, with the roll-back's intent."""
    newest: dict[str, Any] | None = None
    """The intent of the last move that was done."""

    @property
    def ever(self) -> list[str]:
        """Every version that was champion once, by number."""
        return sorted(self.rewards.keys() | self.rolled_back.keys() | set(self.line), key=int)

    def before(self, version: str | None) -> str | None:
        """The champion before that one; None where there was none, or it is not in the line."""
        at = self.line.index(version) if version in self.line else 0
        return self.line[at - 1] if at else None

    def ranker_beside(self, reward: str | None) -> str | None:
        """The newest ranker that was champion together with that version of the reward model."""
        return next((ranker for ranker in reversed(self.line) if self.rewards.get(ranker) == reward), None)

    def after(self, version: str | None) -> list[str]:
        """The line once `version` is rolled back to."""
        if version is None:
            return []
        if version in self.line:
            return self.line[: len(self.line) - self.line[::-1].index(version)]
        return [*self.line, version]

    def take(self, intent: dict[str, Any]) -> None:
        """Follow one finished intent."""
        moves = {move["name"]: move for move in intent["moves"]}
        ranker, reward = moves.get(registry.RANKER), moves.get(registry.REWARD)
        if ranker is None:
            return
        for place in ("from", "to"):
            if ranker[place] is not None and reward is not None and reward[place] is not None:
                self.rewards.setdefault(ranker[place], reward[place])
        if not self.line and ranker["from"] is not None:
            self.line.append(ranker["from"])  # champion since before this journal began
        if intent["kind"] == ROLLBACK:
            remains = self.after(ranker["to"])
            self.rolled_back |= dict.fromkeys(self.line[len(remains) :], intent)
            self.line = remains
        elif self.line[-1:] != [ranker["to"]]:
            self.line.append(ranker["to"])
        self.rolled_back.pop(ranker["to"] or "", None)
        self.newest = intent


def follow(events: list[dict[str, Any]]) -> Lineage:
    """The line of succession that journal.read's events come to; abandoned and open intents count for nothing."""
    done = {event["id"] for event in events if event["event"] == "done"}
    lineage = Lineage()
    for event in events:
        if event["event"] == "intent" and event["id"] in done:
            lineage.take(event)
    return lineage
