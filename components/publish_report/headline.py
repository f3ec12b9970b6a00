"""The top of a report: what was decided in one sentence, what to do now, the few numbers one looks for first."""

from __future__ import annotations

from typing import Any

from components.publish_report.document import figures
from components.publish_report.page import number, percent, short, signed, span, words
from components.publish_report.result import FAILED, KEPT, PROMOTED, REFUSED
from goalrank.errors import (
    EXIT_BUG,
    EXIT_DATA_REFUSED,
    EXIT_DONE,
    EXIT_MODEL_REFUSED,
    EXIT_SERVING_REFUSED,
    EXIT_TRY_AGAIN,
)

_SERVES_ON = "Nothing was promoted, the champion serves on."

NEXT = {
    EXIT_BUG: "Nothing was promoted. Read pipeline.log beside this page; then run the night again.",
    EXIT_DATA_REFUSED: f"{_SERVES_ON} Mend the day's data and run the night again, or leave the day out (goalrank day "
    "skip), or take it as it is (goalrank day accept).",
    EXIT_MODEL_REFUSED: f"{_SERVES_ON} Look at the checks and the training curves below.",
    EXIT_SERVING_REFUSED: f"{_SERVES_ON} The registered version does not answer as it did offline: look at the serving "
    "checks below.",
    EXIT_TRY_AGAIN: f"{_SERVES_ON} Mend what is named here, then go on with goalrank resume.",
}
"""What to do after a night that did not end well, by its exit code."""


def headline(document: dict[str, Any]) -> str:
    """One short sentence beside the verdict; the reason follows in full."""
    verdict, version = document.get("verdict"), document.get("model_version")
    evaluation = figures(document["outcomes"], "evaluate_ranker")
    champion = evaluation.get("champion")
    if verdict == PROMOTED:
        return f"Version {version} is the champion now." if version else "The challenger is the champion now."
    if verdict == KEPT:
        which = f", version {champion['version']}," if isinstance(champion, dict) else ""
        stays = f"The champion{which} stays"
        blocked = [
            f"{words(check['name'])} {words(check['status'])}"
            for check in _checks(evaluation)
            if check["status"] in ("failed", "inconclusive")
        ]
        return f"{stays}: {', '.join(blocked)}." if blocked else f"{stays}."
    ended_at = _ended_at(document)
    if verdict == REFUSED:
        return f"Stopped by {ended_at}." if ended_at else "Stopped by a gate."
    if verdict == FAILED:
        return f"Ended at {ended_at}." if ended_at else "It did not come to an end."
    return ""


def what_next(document: dict[str, Any]) -> str:
    """What whoever reads this at night should do; '' after a night that ended well."""
    code = document.get("exit_code")
    if code == EXIT_DONE or not isinstance(code, int):
        return ""
    told = NEXT.get(code, NEXT[EXIT_BUG])
    return f"{told} Exit code {code}; docs/runbook.md has a page for it."


def tiles(document: dict[str, Any]) -> list[dict[str, str]]:
    """Name, value and a note of the numbers one looks for first; what is not known has no tile."""
    metrics, gap = document.get("metrics") or {}, document.get("difference")
    ours, theirs = metrics.get("challenger") or {}, metrics.get("champion") or {}
    found = []
    if ours.get("judged_reward") is not None:
        note = (
            "no champion yet" if theirs.get("judged_reward") is None else f"champion {number(theirs['judged_reward'])}"
        )
        found.append(_tile("judged reward", number(ours["judged_reward"]), note))
    if gap and gap.get("mean") is not None:
        inside = f"{signed(gap.get('low'))} to {signed(gap.get('high'))}, {percent(gap.get('confidence'))}"
        found.append(_tile(f"over the {words(gap.get('against') or 'champion')}", signed(gap["mean"]), inside))
    estimate = document.get("off_policy")
    if estimate:
        size = estimate.get("effective_sample_size")
        note = words(estimate.get("status"))
        value = signed(estimate["value"]) if estimate.get("value") is not None else "–"
        note += f", {number(size)} effective samples" if size is not None else ""
        found.append(_tile("off-policy difference", value, note))
    checks = list((document.get("checks") or {}).values())
    if checks:
        asked = [status for status in checks if status != "not_applicable"]
        left_out = len(checks) - len(asked)
        note = f"{left_out} not applicable" if left_out else "all asked"
        found.append(_tile("checks passed", f"{asked.count('passed')} of {len(asked)}", note))
    if document.get("seconds"):
        peak = document.get("peak_memory_mb")
        note = f"peak memory {number(peak)} MB" if peak is not None else f"{len(document['outcomes'])} steps"
        found.append(_tile("time in steps", span(document["seconds"]), note))
    return found


def _tile(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _checks(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    found = evaluation.get("checks")
    return (
        [one for one in found if isinstance(one, dict) and {"name", "status"} <= one.keys()]
        if isinstance(found, list)
        else []
    )


def _ended_at(document: dict[str, Any]) -> str:
    """The step that did not end well, as far as the outcomes or the reason tell."""
    bad = [name for name, outcome in document["outcomes"].items() if outcome["kind"] not in ("done", "")]
    if bad:
        return short(bad[0], 60)
    first, _, rest = str(document.get("reason", "")).partition(" was interrupted")
    return short(first, 60) if rest else ""
