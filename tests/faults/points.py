"""The thirty points the system must survive: bad inputs and faults, by number. `make faults` prints one line for each.

Each point has one file, test_NN_<name>.py. A point in OPEN has none yet, and the line says why.
"""

from __future__ import annotations

from collections.abc import Sequence

POINTS = {
    1: "an empty day",
    2: "a failing suite stops the night",
    3: "a missing, renamed or re-typed column",
    4: "killed while writing a snapshot",
    5: "the same date twice, the second time with fewer rows",
    6: "a feature created after the event",
    7: "a late-arriving log row",
    8: "rows that break the contract, unseen ids",
    9: "the same pipeline, or the same date, scheduled twice",
    10: "a failing step",
    11: "killed at any point of training",
    12: "a five-field cron",
    13: "disk full, tracking server away, online store away",
    14: "NaN or infinite loss, metric or weight",
    15: "a verdict missing, malformed, or about something else",
    16: "first night, no champion",
    17: "the champion is scored anew on tonight's data",
    18: "two promoters at once, a crash between journal and alias, rollback",
    19: "bad propensities, none, or too little overlap",
    20: "served lists equal offline lists",
    21: "requests that are wrong, features that are missing",
    22: "a malicious model file, a flipped byte",
    23: "names and URIs with traps in them",
    24: "hot swap of the champion under load",
    25: "item titles with HTML or script",
    26: "containers without privileges",
    27: "the night never ran",
    28: "many nights of not worse in a row",
    29: "roll-back to a version whose features changed",
    30: "a workspace of an older release, and what is collected",
}

OPEN: dict[int, str] = {}
"""Points without a test yet, and why."""

SURVIVED, IN_PART = "survived", "survived in part"


def standing(point: int, outcomes: Sequence[str], untried: Sequence[str] = ()) -> str:
    """How a point stands after a run.

    Args:
        point: its number.
        outcomes: of its tests, as pytest calls them.
        untried: what this machine did not let the tests try, with the reason: no point is survived whole without it.
    """
    if not outcomes:
        return f"open: {OPEN[point]}" if point in OPEN else "not run"
    if "failed" in outcomes:
        return "FAILED"
    if "passed" not in outcomes:
        return f"skipped: {'; '.join(untried)}" if untried else "skipped"
    return f"{IN_PART}, NOT TRIED: {'; '.join(untried)}" if untried else SURVIVED
