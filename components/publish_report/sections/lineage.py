"""What exactly the night made, of what: enough to make it again, and to find it in MLflow."""

from __future__ import annotations

from typing import Any

from components.publish_report.document import figures


def lineage(document: dict[str, Any]) -> dict[str, Any]:
    """(what, its value) in the order in which one follows from the other; what is not known is left out."""
    outcomes = document["outcomes"]
    extracted, registered = figures(outcomes, "extract_features"), figures(outcomes, "register_model")
    evaluated, trained = figures(outcomes, "evaluate_ranker"), figures(outcomes, "train_ranker")
    tags = registered.get("lineage") or {}
    rows = [
        ("night", document.get("date")),
        ("run ended as", document.get("state")),
        ("logs read", _window(extracted.get("days"))),
        ("extraction", extracted.get("mode")),
        ("snapshot", document.get("snapshot_id")),
        ("trained on days", tags.get("data_window")),
        ("judged on day", evaluated and document.get("date")),
        ("commit", tags.get("commit")),
        ("preset", tags.get("preset")),
        ("objective", tags.get("objective")),
        ("seed", tags.get("seed")),
        ("training began with weights, SHA-256", trained.get("warm_start_sha256")),
        ("ranker version", document.get("model_version")),
        ("ranker weights, SHA-256", registered.get("ranker_sha256")),
        ("reward model version", registered.get("reward_version")),
        ("reward model weights, SHA-256", registered.get("reward_sha256")),
        ("champion judged against", _version(evaluated.get("champion"))),
        ("anchor judged against", _version(evaluated.get("anchor"))),
        ("judged at", evaluated.get("judged_at")),
        ("MLflow run", document.get("mlflow_run_id")),
    ]
    return {"rows": [(what, value) for what, value in rows if value not in (None, "", {}, [])]}


def _version(found: Any) -> str | None:
    return f"version {found['version']}, weights {found['weights_sha256'][:12]}…" if isinstance(found, dict) else None


def _window(days: Any) -> str | None:
    if not isinstance(days, list) or not days:
        return None
    return str(days[0]) if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
