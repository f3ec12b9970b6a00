"""gate_promotion: True only when both verdicts are present, valid, about this very version, and positive."""

from __future__ import annotations

from typing import Any

from components import registry
from components.step import Step, run_alone
from goalrank.errors import ModelRefused
from goalrank.verdict import EvaluationVerdict, load_verdict, require_about, require_recent


def gate(registration: str, evaluation: str, serving: str, run_uri: str) -> bool:
    """Whether promotion may run: True for promote and pass, False only for a sound verdict that keeps the champion.

    Args:
        registration: artifact of register_model.
        evaluation: verdict of evaluate_ranker.
        serving: verdict of smoke_serve.
        run_uri: folder of this run.

    Raises:
        ModelRefused: a verdict is missing, malformed, about something else, stale, or a refusal. "Champion kept" ends
            a night well, so it must never stand for a verdict that nobody gave.
    """
    with Step("gate_promotion", run_uri) as step:
        step.figures["promote"] = False
        verdict = sound_verdict(registry.read_registration(registration), evaluation, serving)
        step.figures["promote"] = verdict.decision == "promote"
        step.reason = verdict.reason
        return verdict.decision == "promote"


def sound_verdict(registration: dict[str, Any], evaluation: str, serving: str) -> EvaluationVerdict:
    """The evaluation verdict (promote or keep), once it and the serving verdict are found in order.

    Raises:
        ModelRefused: one of them is missing, malformed, about something else, stale, or a refusal.
    """
    model = registry.registered_identity(registration, "ranker")
    decided = load_verdict(evaluation, "evaluation")
    served = load_verdict(serving, "serving")
    for verdict in (decided, served):
        require_about(verdict, model, registration["snapshot_id"], registration["date"])
        require_recent(verdict)
        if verdict.decision == "refuse":
            raise ModelRefused(f"the {verdict.kind} verdict refuses: {verdict.reason}")
    return decided


if __name__ == "__main__":
    run_alone(gate)
