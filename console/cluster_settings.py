"""Settings held against what a night on a cluster can work with; `schedule apply`, `submit` and `backfill` pass here.

What is refused here would be refused by the API server or by a step, three times, hours after it was submitted. Where a
step has a check of its own, it is that one which is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.extract_features import locations
from components.promote_model import journal
from components.promote_model.canary import require_prometheus
from components.spark import require_master
from console.kubernetes_names import is_label, is_service, is_subdomain
from goalrank import naming
from goalrank.errors import UsageError
from pipelines.cluster import MLFLOW, ROOT

if TYPE_CHECKING:
    from console.settings import Settings

FOLDERS: dict[str, Callable[[str], Path]] = {
    "logs_uri": locations.folder,
    "snapshots_uri": locations.folder,
    "feast_uri": Path,
    "journal_uri": journal.folder_of,
}
"""Settings that are folders, each with what turns it into one in the steps."""

ADDRESSES = (*FOLDERS, "tracking_uri", "prometheus", "spark_master")
"""Settings that become a run's parameters or variables of its pods, where everybody reads them."""


def require_cluster(settings: Settings) -> None:
    """See that a night of these settings can work on a cluster, as far as can be told before anything is sent.

    Args:
        settings: as the environment says, nothing derived (Settings(), not Settings.load()).

    Raises:
        UsageError: a setting cannot work there; says which, what was expected and how to mend it.
    """
    settings.require_training()
    if settings.train_on_served:
        raise UsageError(
            "GOALRANK_TRAIN_ON_SERVED is set, expected it unset for nights on a cluster: only `goalrank nightly` "
            "collects what the service has logged; deliver feedback through your own logs, GOALRANK_LOGS_URI"
        )
    for name in ADDRESSES:  # first of all, since the other messages show what was found
        naming.require_no_password(_variable(name), getattr(settings, name).removeprefix("file://"))
    for name, folder in FOLDERS.items():
        if value := getattr(settings, name):
            _require_on_the_volume(_variable(name), value, folder)
    if settings.tracking_uri:
        _require_mlflow(settings.tracking_uri)
    require_master(settings.spark_master)
    _require_names(settings)
    if settings.prometheus:
        require_prometheus(settings.prometheus)
    elif settings.canary_service:
        raise UsageError(
            "GOALRANK_CANARY_SERVICE is set and GOALRANK_PROMETHEUS is not: a canary is judged by its figures"
        )
    if settings.train_processes > settings.gpus > 0:
        raise UsageError(
            f"GOALRANK_TRAIN_PROCESSES {settings.train_processes} and GOALRANK_GPUS {settings.gpus} found, expected no "
            "more processes than GPUs of a machine: start one process a GPU, or train on processors with "
            "GOALRANK_GPUS=0; several machines are GOALRANK_TRAIN_NODES"
        )


def _variable(name: str) -> str:
    return f"GOALRANK_{name.upper()}"


def _require_on_the_volume(variable: str, value: str, folder: Callable[[str], Path]) -> None:
    """A folder that every step finds, and finds again."""
    naming.require_address(variable, value)
    try:
        place = folder(value)
    except UsageError as error:
        raise UsageError(f"{variable}: {error} (here under {ROOT})") from error
    is_whole = value.startswith(("/", "file:///"))
    if not (is_whole and place.is_relative_to(ROOT)):
        raise UsageError(
            f"{variable} {value!r} found, expected the path of a folder under {ROOT}: what a step writes anywhere else "
            "is lost with its pod; give one on the volume that all steps share, or leave it empty"
        )


def _require_mlflow(uri: str) -> None:
    naming.require_address("GOALRANK_TRACKING_URI", uri)
    try:
        parts = urlsplit(uri)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        is_server = False
    if not is_server:
        raise UsageError(
            f"GOALRANK_TRACKING_URI {uri!r} found, expected an MLflow server, such as {MLFLOW}: steps run on several "
            "machines, without a database's driver and without the store's keys"
        )


def _require_names(settings: Settings) -> None:
    """Names that Kubernetes takes; which of them are there, only the cluster knows."""
    for name, example in (("volume_claim", "goalrank-workspace"), ("service_account", "goalrank-night")):
        found = getattr(settings, name)
        left_open = name == "service_account" and not found
        if not left_open and not is_subdomain(found):
            raise UsageError(
                f"{_variable(name)} {found!r} found, expected a name that Kubernetes takes, of lower-case letters, "
                f"digits, '-' and '.', such as {example}"
            )
    if settings.canary_service and not is_service(settings.canary_service):
        raise UsageError(
            f"GOALRANK_CANARY_SERVICE {settings.canary_service!r} found, expected the name of an InferenceService, of "
            "lower-case letters, digits and '-', at most 63, a letter first, such as goalrank-ranker"
        )
    if settings.kfp_namespace and not is_label(settings.kfp_namespace):
        raise UsageError(
            f"GOALRANK_KFP_NAMESPACE {settings.kfp_namespace!r} found, expected a namespace's name, of lower-case "
            "letters, digits and '-', at most 63, such as goalrank-prod"
        )
