"""What a night came to, read from the outcomes its steps wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from goalrank.errors import EXIT_BUG, EXIT_DONE, EXIT_TRY_AGAIN

REFUSED_KINDS = ("data_refused", "model_refused", "serving_refused")
PROMOTED, KEPT, REFUSED, FAILED = "promoted", "kept", "refused", "failed"

ROUNDED_SECONDS = 0.001
"""By which an outcome may seem to have ended earlier than it did."""


def read_outcomes(run: Path) -> dict[str, dict[str, Any]]:
    """Outcome of every step that ended, by step, in the order in which they began.

    On a cluster a night that is submitted again goes on in its folder, and its first step always runs: what other steps
    said before that is of an earlier try and does not count.
    """
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in (run / "outcomes").glob("*.json")]
    begun = max((document["started_at"] for document in documents if document["step"] == "check_logs"), default=0.0)
    return {
        document["step"]: document
        for document in sorted(documents, key=lambda d: d["started_at"])
        if document["started_at"] >= begun
    }


def unfinished_step(run: Path) -> str | None:
    """The step that said it began and never said how it ended: killed, or still running.

    Several pods append to the lines at once, and on a network volume one of theirs may be lost. An outcome is a file of
    its own: a step that wrote one after it began has ended.
    """
    under_way: dict[str, float] = {}  # when it began, by step: a resumed one begins twice and ends once
    progress = run / "progress.jsonl"
    for line in progress.read_text(encoding="utf-8", errors="replace").splitlines() if progress.exists() else []:
        try:
            event = json.loads(line)
            step, what, at = event["step"], event["event"], event["time"]
        except (ValueError, TypeError, KeyError):  # half a line: its writer was killed, or another wrote over it
            continue
        if what == "start":
            if step == "check_logs":
                under_way.clear()  # the night begins anew: as for read_outcomes
            under_way[step] = at
        elif what == "end":
            under_way.pop(step, None)
    ended = {name: outcome["started_at"] + outcome["seconds"] for name, outcome in read_outcomes(run).items()}
    # An outcome's times are rounded, and a step that was ended is not begun again in the same moment.
    begun = [step for step, at in under_way.items() if at > ended.get(step, 0.0) + ROUNDED_SECONDS]
    # The report is begun whatever was killed before it, and is under way itself where it asks.
    others = [step for step in begun if step != "publish_report"]
    return (others or begun)[-1] if begun else None


def summarise(run: Path) -> dict[str, Any]:
    """Verdict, exit code, reason and figures of a night, the keys `goalrank nightly --json` prints.

    A promotion counts only if promote_model says so itself; a night that neither promoted, nor kept, nor refused for a
    stated reason has failed: nothing is taken for granted.
    """
    outcomes = read_outcomes(run)
    steps = {name: outcome for name, outcome in outcomes.items() if name != "publish_report"}
    verdict, code, reason = _verdict(run, steps)
    evaluation = steps.get("evaluate_ranker", {}).get("figures", {})
    return {
        "exit_code": code,
        "verdict": verdict,
        "reason": reason,
        "model_version": steps.get("register_model", {}).get("figures", {}).get("ranker_version"),
        "snapshot_id": steps.get("extract_features", {}).get("figures", {}).get("snapshot_id"),
        "mlflow_run_id": steps.get("register_model", {}).get("figures", {}).get("run_id"),
        "stages": [{"name": name, "seconds": outcome["seconds"]} for name, outcome in outcomes.items()],
        "metrics": {
            "challenger": (evaluation.get("metrics") or {}).get("challenger"),
            "champion": (evaluation.get("metrics") or {}).get("champion"),
        },
    }


def as_ended(result: dict[str, Any], state: str) -> dict[str, Any]:
    """The result, unless the orchestrator says that the night failed where every step that spoke was well: then one did
    not even begin (its pod found no node, its image no registry), and what is read may be of an earlier try."""
    if state != "FAILED" or result["exit_code"] != EXIT_DONE:
        return result
    reason = f"the orchestrator says {state}, though all steps that said how they ended were well: one did not begin"
    return result | {"verdict": FAILED, "exit_code": EXIT_TRY_AGAIN, "reason": f"{reason}; look at the run's pods"}


def _verdict(run: Path, steps: dict[str, dict[str, Any]]) -> tuple[str, int, str]:
    for name, outcome in steps.items():
        if outcome["exit_code"] != EXIT_DONE:
            verdict = REFUSED if outcome["kind"] in REFUSED_KINDS else FAILED
            return verdict, outcome["exit_code"], f"{name}: {outcome['reason']}"
    unfinished = unfinished_step(run)
    if unfinished not in (None, "publish_report"):
        return FAILED, EXIT_TRY_AGAIN, f"{unfinished} was interrupted; `goalrank resume` goes on from there"
    promotion = steps.get("promote_model")
    if promotion:
        moved = promotion["figures"].get("promoted", True)  # False: this version was champion already
        return PROMOTED if moved else KEPT, EXIT_DONE, promotion["reason"]
    gate = steps.get("gate_promotion")
    if gate and gate["figures"].get("promote") is False:
        return KEPT, EXIT_DONE, gate["reason"]
    last = list(steps)[-1] if steps else "nothing"
    return FAILED, EXIT_BUG, f"the night stopped after {last} without saying why; look at {run / 'pipeline.log'}"
