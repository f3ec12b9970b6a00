"""What the rule (console/housekeeping/__init__.py) collects in MLflow: versions, their runs and their files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from components import registry
from components.promote_model import journal
from components.promote_model.lineage import PROMOTION
from console.housekeeping.taken import Taken, size
from console.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.entities import PagedList

MODELS = (registry.RANKER, registry.REWARD)
PAGE = 200


@dataclass
class Versions:
    """What goes and what stays; `finish` takes the files of what was deleted off the disk."""

    taken: list[Taken] = field(default_factory=list)
    kept: dict[str, dict[str, str]] = field(default_factory=dict)
    """model -> version -> why"""
    tracking_uri: str = ""

    def finish(self) -> list[str]:
        """Let MLflow remove for good what it holds as deleted; what is left to do, if it can not.

        Only in a workspace's own database: on a shared server there may be what others deleted and still want back.
        """
        if not self.tracking_uri:
            return []
        command = ["gc", "--backend-store-uri", self.tracking_uri, "--tracking-uri", self.tracking_uri]
        if not self.tracking_uri.startswith("sqlite:///"):
            return [f"MLflow holds them as deleted; `mlflow {command[0]}` on its server frees the files"]
        registry.offline_switches()
        done = subprocess.run([sys.executable, "-m", "mlflow", *command], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            return [
                f"MLflow holds them as deleted, but `mlflow gc` ended with {done.returncode} ({said}); run it again"
            ]
        return []


def plan(locks: ExitStack, settings: Settings, recent: set[str], keep_nights: int, keep_days: int) -> Versions:
    """Work out which versions and runs go. Takes the journal's lock: nobody promotes or rolls back meanwhile.

    Raises:
        ModelRefused: the journal is damaged.
        TryAgain: a promotion is under way, or MLflow is away.
    """
    events = journal.read(settings.journal_uri)
    if not registry.exists(settings.tracking_uri):
        return Versions()
    locks.enter_context(journal.lock(settings.journal_uri, "clean"))
    client = registry.connect(settings.tracking_uri)
    found = Versions()
    with registry.reaching(settings.tracking_uri):
        versions = {name: _all(client.search_model_versions, f"name = '{name}'") for name in MODELS}
        dates = sorted({one.tags.get("date", "") for listed in versions.values() for one in listed} | recent)
        since = min([*recent, *dates[-keep_nights:]], default="")
        needed = reigned(events, keep_days, newest=dates[-1] if dates else "")
        runs: set[str] = set()
        for name, listed in versions.items():
            aliases = {str(number): alias for alias, number in _aliases(client, name).items()}
            found.kept[name] = {}
            for one in listed:
                number = str(one.version)
                why = _why_kept(one, aliases.get(number), needed.get((name, number)), since)
                if why:
                    found.kept[name][number] = why
                    runs.add(one.run_id or "")
                else:
                    found.taken.append(_version(client, one))
        found.taken += _runs_and_files(client, runs, since)
    found.tracking_uri = settings.tracking_uri
    return found


def reigned(events: list[dict[str, Any]], keep_days: int, newest: str) -> dict[tuple[str, str], str]:
    """(model, version) -> why it is needed, for every version that was champion within the horizon, or may be.

    A reign counts by the clock and by the nights' dates, whichever reaches further: a backfill lives a month in an
    hour, a workspace may rest for a year.

    Args:
        events: journal.read's.
        keep_days: the horizon in days.
        newest: the newest night's date, YYYY-MM-DD.
    """
    done = {event["id"] for event in events if event["event"] == "done"}
    ended = {event["id"] for event in events if event["event"] != "intent"}
    clock = (datetime.now(UTC) - timedelta(days=keep_days)).isoformat(timespec="seconds")
    night = (datetime.fromisoformat(newest) - timedelta(days=keep_days)).date().isoformat() if newest else ""
    needed: dict[tuple[str, str], str] = {}
    for event in (event for event in events if event["event"] == "intent"):
        open_move = event["id"] not in ended
        if not open_move and event["id"] not in done:
            continue
        by_date = event["kind"] == PROMOTION and str(event.get("date") or "") >= night
        if open_move or event["at"] >= clock or by_date:
            why = "an unfinished move of the journal" if open_move else f"champion within {keep_days} days"
            # `from` reigned until this very move, so it is within the horizon as well.
            for move in event["moves"]:
                for place in ("from", "to", "previous"):
                    if move[place] is not None:
                        needed.setdefault((move["name"], str(move[place])), why)
    return needed


def _why_kept(version: ModelVersion, alias: str | None, needed: str | None, since: str) -> str:
    if alias:
        return f"alias {alias}"
    if needed:
        return needed
    date = version.tags.get("date", "")
    # Without a date it was not registered by a night: whose it is, nobody here knows.
    return "a recent night" if date >= since else "" if date else "no night registered it"


def _version(client: MlflowClient, version: ModelVersion) -> Taken:
    number = str(version.version)
    remove = partial(client.delete_model_version, version.name, number)
    return Taken("version", f"{version.name} {number} of {version.tags['date']}", 0, remove)


def _runs_and_files(client: MlflowClient, keep: set[str], since: str) -> list[Taken]:
    """Runs of nights that are neither recent nor a kept version's, and before them the model files they logged.

    What an earlier collection left half done is among them: a run whose versions are gone, files whose run is.
    """
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    if experiment is None:
        return []
    runs: list[Run] = _all(client.search_runs, [experiment.experiment_id], "tags.night != ''")
    old = [run for run in runs if run.info.run_id not in keep and run.data.tags.get("date", since) < since]
    staying = {run.info.run_id for run in runs} - {run.info.run_id for run in old}
    taken = [
        Taken(
            "model files",
            f"{model.name} {model.model_id}",
            _size(model.artifact_location),
            partial(client.delete_logged_model, model.model_id),
        )
        for model in _all(client.search_logged_models, [experiment.experiment_id])
        if model.source_run_id and model.source_run_id not in staying
    ]
    for run in old:
        name, gone = f"{run.info.run_id} of {run.data.tags['date']}", partial(client.delete_run, run.info.run_id)
        taken.append(Taken("run", name, _size(run.info.artifact_uri), gone))
    return taken


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    try:
        return dict(client.get_registered_model(name).aliases)
    except Exception as error:
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _all(search: Callable[..., PagedList[Any]], *arguments: Any) -> list[Any]:
    """Every page of a search."""
    found: list[Any] = []
    token = None
    while True:
        page = search(*arguments, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _size(uri: str | None) -> int:
    """Bytes of a local artifact folder; 0 for one elsewhere."""
    parsed = urlparse(uri or "")
    return size(Path(unquote(parsed.path))) if uri and parsed.scheme in ("", "file") else 0
