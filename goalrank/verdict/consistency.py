"""What a yes must carry: each check recomputed from its own numbers, against this release's thresholds.

A status is a word, and words are easily wrong; a promotion rests on the numbers beside them. Called wherever a verdict
is built or read (document.py), so what contradicts itself cannot exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from goalrank.verdict import thresholds as at

if TYPE_CHECKING:
    from goalrank.verdict.document import Check, EvaluationVerdict, ServingVerdict, Slice

ALWAYS_ASKED = ("finite", "users", "floor", "latency", "size", "off_policy")
AGAINST_CHAMPION = ("superiority", "slices", "anchor")
FIRST_NIGHT = ("bootstrap_allowed",)
"""Checks that a promotion must carry: one that was never asked is no yes."""

SERVED = ("answered", "version", "valid_lists", "equal_lists", "equal_features")
"""Checks that a serving verdict must carry to pass; each counts what was wrong."""

MAY_NOT_APPLY = ("off_policy", "slices", "anchor")
"""Checks that may not apply: logs without propensities, slices too small, no version of a week ago."""


def thresholds() -> dict[str, float]:
    """What a verdict repeats of thresholds.py; the number of resamples is each verdict's own."""
    return {
        "floor": at.FLOOR,
        "superiority": at.SUPERIORITY,
        "confidence": at.CONFIDENCE,
        "promotion_confidence": at.PROMOTION_CONFIDENCE,
        "minimum_users": float(at.MINIMUM_USERS),
        "slice_margin": at.SLICE_MARGIN,
        "minimum_slice_users": float(at.MINIMUM_SLICE_USERS),
        "anchor_margin": at.ANCHOR_MARGIN,
        "anchor_days": float(at.ANCHOR_DAYS),
    }


def other_thresholds(found: dict[str, float]) -> str:
    """How the thresholds of a document differ from this release's, or an empty text."""
    expected = thresholds()
    ruled = {name: value for name, value in found.items() if name != "resamples"}
    if ruled == expected and found.get("resamples", 0) >= 1:
        return ""
    names = sorted(
        set(ruled) ^ set(expected) | {name for name in set(ruled) & set(expected) if ruled[name] != expected[name]}
    )
    told = [f"{name} {ruled.get(name)} found, {expected.get(name)} expected" for name in names] or ["resamples missing"]
    return f"thresholds are not this release's: {'; '.join(told)}"


def against_promotion(verdict: EvaluationVerdict) -> Iterator[str]:
    """Why this verdict may not say promote, if its own numbers are right."""
    checks = {check.name: check for check in verdict.checks}
    if failed := [check.name for check in verdict.checks if not check.passed]:
        yield f"these checks failed: {', '.join(failed)}"
    wanted = (*ALWAYS_ASKED, *(FIRST_NIGHT if verdict.champion is None else AGAINST_CHAMPION))
    if missing := [name for name in wanted if name not in checks]:
        yield f"these checks were not made: {', '.join(missing)}"
        return
    needed = [name for name in wanted if name not in MAY_NOT_APPLY]
    if open_ := [name for name in needed if checks[name].status != "passed"]:
        yield f"these checks must apply: {', '.join(open_)}"
    yield from _counted(checks, verdict)
    yield from _difference(verdict)
    yield from _off_policy(verdict, checks["off_policy"])
    if verdict.champion is not None:
        if (verdict.model.name, verdict.model.version) == (verdict.champion.name, verdict.champion.version):
            yield "the version is the champion already"
        yield from _slices(verdict.slices)
        yield from _anchor(verdict, checks["anchor"])


def against_pass(verdict: ServingVerdict) -> Iterator[str]:
    """Why this verdict may not say pass, if its own numbers are right."""
    checks = {check.name: check for check in verdict.checks}
    if failed := [check.name for check in verdict.checks if not check.passed]:
        yield f"these checks failed: {', '.join(failed)}"
    if verdict.requests == 0:
        yield "not a single request was asked"
    if missing := [name for name in SERVED if name not in checks or checks[name].status != "passed"]:
        yield f"these checks were not made: {', '.join(missing)}"
    if wrong := [check.name for check in verdict.checks if check.value != 0]:
        yield f"these checks count what was wrong, and not 0: {', '.join(wrong)}"


def _counted(checks: dict[str, Check], verdict: EvaluationVerdict) -> Iterator[str]:
    """Checks of one number against one threshold."""
    holds = {
        "finite": lambda value, threshold: value == threshold == 0,
        "users": lambda value, threshold: value == verdict.users >= threshold == at.MINIMUM_USERS,
        "floor": lambda value, threshold: value > threshold == at.FLOOR,
        "superiority": lambda value, threshold: value > threshold == at.SUPERIORITY,
        "latency": lambda value, threshold: 0 <= value <= threshold,
        "size": lambda value, threshold: 0 <= value <= threshold,
    }
    for name, rule in holds.items():
        check = checks.get(name)
        if check is None:
            continue
        if check.value is None or check.threshold is None or not rule(check.value, check.threshold):
            yield f"check {name} is called {check.status}, its numbers are {check.value} and {check.threshold}"


def _difference(verdict: EvaluationVerdict) -> Iterator[str]:
    difference, first = verdict.difference, verdict.champion is None
    bound, confidence = (at.FLOOR, at.CONFIDENCE) if first else (at.SUPERIORITY, at.PROMOTION_CONFIDENCE)
    if difference is None:
        yield "the difference it rests on is missing"
    elif difference.low <= bound:
        yield f"the difference may be {difference.low:g}"
    elif difference.confidence != confidence:
        yield f"its interval is of confidence {difference.confidence}, expected {confidence}"
    elif verdict.checks and difference.low != next(
        check.value for check in verdict.checks if check.name == ("floor" if first else "superiority")
    ):
        yield "its interval is not the one that was checked"


def _off_policy(verdict: EvaluationVerdict, check: Check) -> Iterator[str]:
    section = verdict.off_policy
    if section is None:
        yield "the off-policy section is missing"
    elif section.counts_as != check.status:
        yield f"check off_policy is called {check.status}, its section is {section.status} under {section.setting}"


def _slices(slices: list[Slice]) -> Iterator[str]:
    for part in slices:
        small = part.users < at.MINIMUM_SLICE_USERS
        if small != (part.status == "not_applicable"):
            yield f"slice {part.name} of {part.users} users is called {part.status}"
        elif not small and (part.difference is None or part.margin is None or part.difference.low <= -part.margin):
            yield f"slice {part.name} is called {part.status}, its interval is not within its margin"
        elif not small and not _close(part.margin, at.SLICE_MARGIN * abs(part.champion or 0.0)):
            yield f"slice {part.name} has the margin {part.margin}, expected {at.SLICE_MARGIN:.0%} of {part.champion}"


def _anchor(verdict: EvaluationVerdict, check: Check) -> Iterator[str]:
    difference = verdict.anchor_difference
    if verdict.anchor is None:
        if check.status != "not_applicable":
            yield f"check anchor is called {check.status}, but there is no anchor"
    elif difference is None or check.value != difference.low or check.threshold is None or check.threshold > 0:
        yield "check anchor is not about the anchor's interval"
    elif check.status != "passed" or difference.low <= check.threshold:
        yield f"check anchor is called {check.status}, the anchor may lose {-difference.low:g} of {-check.threshold:g}"


def _close(found: float | None, expected: float) -> bool:
    return found is not None and math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-12)
