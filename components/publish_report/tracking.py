"""A night's main figures as tags of its MLflow run, and the last versions as the registry knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components import registry
from components.publish_report import versions
from components.publish_report.document import main_figures

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LONGEST_TAG = 2000
"""Characters kept of a text; MLflow takes 8000, a database's index may take less."""

TAGS_A_CALL = 100
"""MLflow's limit for one log_batch."""

DECIDED = {"keep": "kept", "refuse": "refused", "promote": "judged worth promoting"}
"""What a run's tag `decision` says where a night of an older release left no tag `verdict`."""


def write_tags(client: MlflowClient, document: dict[str, Any]) -> int:
    """Set the main figures as tags of the night's run, the keys those of report.json; returns how many.

    A night that came to no run has nowhere to put them: 0.
    """
    from mlflow.entities import RunTag

    run_id = document.get("mlflow_run_id")
    if not run_id:
        return 0
    tags = [RunTag(key, text[:LONGEST_TAG]) for key, text in main_figures(document).items()]
    for first in range(0, len(tags), TAGS_A_CALL):
        client.log_batch(str(run_id), tags=tags[first : first + TAGS_A_CALL])
    return len(tags)


def last_versions(client: MlflowClient, date: str) -> list[dict[str, Any]]:
    """Rows (versions.py) of the last registered rankers up to a date, oldest first."""
    name = registry.RANKER
    asked = 2 * versions.SHOWN  # some were never judged, or belong to later nights
    found = client.search_model_versions(f"name = '{name}'", max_results=asked, order_by=["version_number DESC"])
    version_of = {str(one.run_id): str(one.version) for one in reversed(found) if one.run_id}
    if not version_of:
        return []
    named = ", ".join(f"'{run_id}'" for run_id in version_of)
    experiments = [
        one.experiment_id for one in client.search_experiments(filter_string=f"name = '{registry.EXPERIMENT}'")
    ]
    runs = client.search_runs(experiments, f"attributes.run_id IN ({named})", max_results=asked)
    rows = [row for run in runs if (row := _row(run, version_of[run.info.run_id])) and row["date"] <= date]
    return versions.in_order(rows)


def _row(run: Run, version: str) -> dict[str, Any] | None:
    tags, metrics = run.data.tags, run.data.metrics
    challenger = metrics.get(f"evaluation.challenger.{versions.METRIC}")
    if challenger is None:
        return None
    verdict = tags.get("verdict") or DECIDED.get(tags.get("decision", ""), "registered")
    gap = {name: metrics.get(f"evaluation.difference.{name}") for name in ("mean", "low", "high")}
    return {
        "version": version,
        "date": str(tags.get("date", "")),
        "verdict": verdict,
        "challenger": challenger,
        "champion": metrics.get(f"evaluation.champion.{versions.METRIC}"),
        "difference": versions.interval(gap),
    }
