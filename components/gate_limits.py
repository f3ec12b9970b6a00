"""Every limit of the data gates with its reason, in one place; docs/data-contract.md shows the same table.

A limit beyond `critical` stops the night, one beyond `warning` is reported. What says that rows are wrong (a null, a
negative watch time, a missing column) has no limit: one such row is refused. These limits are about the whole of a
day, where only degree tells a fault from life; a day that is real although it lies beyond one is taken with
`goalrank day accept` (day_decisions.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """Two thresholds of one figure; None where the figure never warns or never stops."""

    warning: float | None
    critical: float | None
    of: str
    """What is measured, with its unit."""
    reason: str

    def beyond_critical(self, value: float) -> bool:
        """Whether the figure stops the night."""
        return self.critical is not None and value > self.critical


VOLUME = Limit(
    2.0,
    10.0,
    "rows of a day against the usual, as a factor either way",
    "half or twice the rows happen on launches and holidays; a tenth or ten times is a delivery cut short or doubled",
)
SILENT_HOURS = Limit(
    12.0,
    24.0,
    "hours from the newest event of a partition to the end of its day",
    "a quiet night lasts some hours, half a day does not; 24 hours without an event: the partition is of another day",
)
LATE_ROWS = Limit(
    0.25,
    0.75,
    "share of a day's rows that belong to earlier days",
    "a quarter is a delivery held up; with 3 days of lateness allowed (schema.LATENESS_DAYS), three quarters is the "
    "most that one held-up delivery can make of even days",
)
PSI = Limit(
    0.25,
    1.0,
    "population stability index of a column since the last good snapshot",
    "above 0.25 a population has shifted significantly (Siddiqi 2006), half a standard deviation for two normals of "
    "one variance; 1.0 is a whole one overnight: a changed unit or a broken join, no change of taste",
)
UNKNOWN_ITEMS = Limit(
    0.05,
    0.5,
    "share of a day's distinct items, shown or candidates, that were never announced",
    "new items may be announced late; more than half unknown means that the ids of two tables do not meet",
)
UNKNOWN_USERS = Limit(
    0.5,
    None,
    "share of a day's distinct users that were never announced",
    "visitors without an account are no fault, so this is only told",
)
FEWER_PROPENSITIES = Limit(
    2.0,
    None,
    "usual share of rankers' lists with the propensities of all their items by the newest day's, as a factor",
    "half of them gone halves what the off-policy comparison rests on; with all gone it does not apply, and the judge "
    "alone speaks for a promotion, whatever GOALRANK_OFF_POLICY requires: a producer that stopped writing them must "
    "not pass for logs that never had any",
)
GROUPS_WITHOUT_SIGNAL = Limit(
    0.5,
    None,
    "share of groups whose lists differ by less than the reward model's noise",
    "they get no weight in training (goalrank.objective.signal_weights): the ranker learns from the others alone",
)
GROUPS_WITHOUT_SPREAD = Limit(
    0.05,
    0.5,
    "share of groups whose lists all earn the same",
    "a request of nearly equal items may do that; half of all groups means a reward model that has collapsed",
)
REWARD_RANGE = Limit(
    1.0,
    10.0,
    "largest reward of a helper list against the largest that any logged list earned, as a factor",
    "an expectation lies within what was ever earned; ten times that is a reward model out of its range",
)
SKEW = Limit(
    None,
    0.0,
    "features of a sample of requests that are not the same online and offline",
    "both stores hold the same rows as of the same midnight, so every value must be equal, not nearly equal",
)

LIMITS = {
    "volume": VOLUME,
    "silent_hours": SILENT_HOURS,
    "late_rows": LATE_ROWS,
    "psi": PSI,
    "unknown_items": UNKNOWN_ITEMS,
    "unknown_users": UNKNOWN_USERS,
    "fewer_propensities": FEWER_PROPENSITIES,
    "groups_without_signal": GROUPS_WITHOUT_SIGNAL,
    "groups_without_spread": GROUPS_WITHOUT_SPREAD,
    "reward_range": REWARD_RANGE,
    "skew": SKEW,
}


def documented() -> str:
    """The limits as the Markdown table of docs/data-contract.md."""
    rows = ["| limit | warning above | stops above | of what | why |", "|---|---|---|---|---|"]
    for name, limit in LIMITS.items():
        numbers = " | ".join("never" if value is None else f"{value:g}" for value in (limit.warning, limit.critical))
        rows.append(f"| {name} | {numbers} | {limit.of} | {limit.reason} |")
    return "\n".join(rows)
