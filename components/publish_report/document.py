"""report.json: what a night came to, its main figures, and everything its steps said."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from components.publish_report.result import FAILED, as_ended, read_outcomes, summarise
from goalrank.errors import EXIT_BUG

MAIN = (
    "date",
    "verdict",
    "exit_code",
    "reason",
    "state",
    "model_version",
    "snapshot_id",
    "metrics",
    "difference",
    "metric_differences",
    "retriever_differences",
    "off_policy",
    "checks",
    "reward_models",
    "seconds",
    "peak_memory_mb",
)
"""Keys of report.json that are a night's main figures; MLflow's run of the night has the same as tags, dotted."""

DIFFERENCE = ("metric", "mean", "low", "high", "confidence", "against")
METRIC_DIFFERENCE = ("mean", "low", "high", "confidence")
ESTIMATE = ("estimator", "value", "low", "high", "effective_sample_size")
JOINED = "join_groups"
"""The step that tells of the groups and holds their data gate where generate_groups made them in parts."""

REWARD_MODEL = ("auc", "calibration_error", "rank_correlation")


def collect(folder: Path, date: str, state: str) -> dict[str, Any]:
    """The night's document, read from what its steps wrote. Never raises: what cannot be read is said in it.

    Args:
        folder: of the run, with outcomes/ in it.
        date: the night's arrival day.
        state: how the orchestrator says the run ended.
    """
    outcomes = readable_outcomes(folder)
    for outcome in outcomes.values():  # relative, so that the run's folder can be moved or copied whole
        docs = outcome["figures"].get("data_docs")
        if isinstance(docs, str) and docs:
            outcome["figures"]["data_docs"] = os.path.relpath(docs, folder)
    evaluation = figures(outcomes, "evaluate_ranker")
    ended = as_ended(summary(folder), state)
    return plain(
        ended
        | {"date": date, "state": state}
        | {
            "difference": _some(evaluation.get("difference"), DIFFERENCE),
            "metric_differences": _by_metric(evaluation.get("metric_differences")),
            "retriever_differences": _by_metric(evaluation.get("retriever_differences")),
            "off_policy": _off_policy(evaluation.get("off_policy")),
            "checks": _statuses(evaluation.get("checks")) | _statuses(figures(outcomes, "smoke_serve").get("checks")),
            "reward_models": {
                role: _some(figures(outcomes, "train_reward").get(role), REWARD_MODEL) for role in ("guide", "judge")
            },
            "seconds": _seconds(outcomes),
            "peak_memory_mb": _peak(outcomes),
            "outcomes": outcomes,
        }
    )


def summary(folder: Path) -> dict[str, Any]:
    """What the night came to (result.py); that nobody can read it is a result too."""
    try:
        return summarise(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = ("model_version", "snapshot_id", "mlflow_run_id")
        return {
            "exit_code": EXIT_BUG,
            "verdict": FAILED,
            "reason": f"its outcomes cannot be read: {error!r}",
            "stages": [],
            "metrics": {"challenger": None, "champion": None},
            **dict.fromkeys(missing),
        }


def readable_outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    """As read_outcomes, but where one of them is damaged the others all the same."""
    try:
        outcomes = read_outcomes(folder)
        found = list(outcomes.values())
    except (OSError, ValueError, KeyError, TypeError):
        found = [outcome for file in sorted((folder / "outcomes").glob("*.json")) if (outcome := _read(file))]
    return {str(outcome["step"]): _whole(outcome) for outcome in found if "step" in outcome}


def figures(outcomes: dict[str, dict[str, Any]], step: str) -> dict[str, Any]:
    """The figures of a step, none where it did not end or did not run."""
    return outcomes.get(step, {}).get("figures", {})


def groups_step(outcomes: dict[str, dict[str, Any]]) -> str:
    """The step whose figures are those of the groups: generate_groups, or where they were made in parts join_groups."""
    return JOINED if JOINED in outcomes else "generate_groups"


def main_figures(document: dict[str, Any]) -> dict[str, str]:
    """The main figures by dotted path into report.json, as texts; what is not known is left out."""
    return {
        path: _text(value)
        for key in MAIN
        for path, value in _leaves(key, document.get(key))
        if value is not None and value != ""
    }


def plain(value: Any) -> Any:
    """The same as JSON knows it: no NaN, no infinity, keys are texts."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _leaves(f"{path}.{key}", item)]
    return [] if isinstance(value, list) else [(path, value)]


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _whole(outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome with every field that pages read, of the type they read."""
    kept = dict(outcome)
    for name in ("figures", "tool_seconds"):
        kept[name] = outcome[name] if isinstance(outcome.get(name), dict) else {}
    for name in ("seconds", "started_at"):
        kept[name] = outcome[name] if _is_number(outcome.get(name)) else 0.0
    kept["tool_seconds"] = {name: value for name, value in kept["tool_seconds"].items() if _is_number(value)}
    kept["kind"], kept["reason"] = str(outcome.get("kind", "")), str(outcome.get("reason") or "")
    kept["peak_memory_mb"] = outcome["peak_memory_mb"] if _is_number(outcome.get("peak_memory_mb")) else None
    return kept


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _some(found: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    return {name: found.get(name) for name in names} if isinstance(found, dict) else None


def _by_metric(found: Any) -> dict[str, dict[str, Any] | None]:
    """Of every metric the interval of its difference."""
    known = found if isinstance(found, dict) else {}
    return {str(metric): _some(difference, METRIC_DIFFERENCE) for metric, difference in known.items()}


def _off_policy(found: Any) -> dict[str, Any] | None:
    if not isinstance(found, dict):
        return None
    estimates = found.get("estimates")
    difference = estimates.get("difference") if isinstance(estimates, dict) else None
    return {"status": found.get("status"), "setting": found.get("setting")} | (_some(difference, ESTIMATE) or {})


def _statuses(checks: Any) -> dict[str, str]:
    known = checks if isinstance(checks, list) else []
    return {str(one["name"]): str(one.get("status")) for one in known if isinstance(one, dict) and one.get("name")}


def _told(outcomes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """All but the report's own, which has not ended when it is first written: written again, it says the same."""
    return [outcome for name, outcome in outcomes.items() if name != "publish_report"]


def _seconds(outcomes: dict[str, dict[str, Any]]) -> float | None:
    """In steps, all together; of a resumed night those of every try."""
    told = _told(outcomes)
    return round(sum(outcome["seconds"] for outcome in told), 1) if told else None


def _peak(outcomes: dict[str, dict[str, Any]]) -> float | None:
    """The largest step's; None where a step was not measured, since it may have been that one."""
    peaks = [outcome["peak_memory_mb"] for outcome in _told(outcomes)]
    return None if None in peaks else max(peaks, default=None)
