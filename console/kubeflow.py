"""From settings to what the cluster's commands work with: an address, the compiled night, its parameters.

On a cluster nothing is derived from a workspace on this machine: logs, snapshots, features, journal and run folders lie
on the volume that all steps share and MLflow is where the manifests put it, unless a setting says otherwise.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.checkout import commit
from console.cluster_settings import require_cluster
from console.gpu_nodes import gpu_nodes
from console.settings import Settings
from goalrank import naming
from goalrank.errors import UsageError
from pipelines.cluster import MLFLOW, ROOT
from pipelines.schedule import Schedule

if TYPE_CHECKING:
    from pipelines.backfill import Order
    from pipelines.kubeflow import Address
    from pipelines.recurring import Desired

LONGEST_TOKEN = 65536

_BY_DIGEST = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(?:@sha256:[0-9a-f]{64})?")


def address(settings: Settings) -> Address:
    """Where Kubeflow Pipelines is, with the token of the environment or of the file.

    Raises:
        UsageError: no address, two tokens, a token file that cannot be read or holds none.
    """
    from pipelines.kubeflow import Address

    token: Callable[[], str] = settings.kfp_token.get_secret_value().strip
    if settings.kfp_token_file is not None:
        if token():
            raise UsageError("GOALRANK_KFP_TOKEN and GOALRANK_KFP_TOKEN_FILE are both set; set one")
        token = TokenFile(settings.kfp_token_file)
    if not token().isascii() or any(character.isspace() for character in token()):
        raise UsageError("GOALRANK_KFP_TOKEN found with a blank or a character that no token has; set it anew")
    return Address(settings.kfp_endpoint, settings.kfp_namespace, token)


class TokenFile:
    """The token in a file, read again each time it is called; the last one while the file is being replaced."""

    def __init__(self, file: Path) -> None:
        """Raises UsageError where it cannot be read or holds none."""
        self._file, self._last = file, _token(file)

    def __call__(self) -> str:
        with suppress(UsageError):
            self._last = _token(self._file)
        return self._last


def _token(file: Path) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            token = opened.read(LONGEST_TOKEN).strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"GOALRANK_KFP_TOKEN_FILE {file} cannot be read ({type(error).__name__})") from error
    if not token:
        raise UsageError(f"GOALRANK_KFP_TOKEN_FILE {file} is empty, expected a token")
    return token


def parameters(settings: Settings) -> dict[str, Any]:
    """What every night on the cluster is given, but for its date and its run's folder.

    Args:
        settings: as the environment says, nothing derived (Settings(), not Settings.load()).

    Raises:
        UsageError: one of them cannot work on a cluster (cluster_settings.py).
    """
    require_cluster(settings)
    found = {
        "logs_uri": settings.logs_uri or f"{ROOT}/logs",
        "snapshots_uri": settings.snapshots_uri or f"{ROOT}/snapshots",
        "feast_uri": settings.feast_uri or f"{ROOT}/feast",
        "tracking_uri": settings.tracking_uri or MLFLOW,
        "journal_uri": settings.journal_uri or f"{ROOT}/journal",
    }
    return found | {
        "workspace_uri": ROOT,
        "preset": settings.preset,
        "seed": settings.seed,
        "window_days": settings.window_days,
        "allow_bootstrap": settings.allow_bootstrap,
        "off_policy": settings.off_policy,
        "latency_budget_ms": settings.latency_budget_ms,
        "size_budget_mb": settings.size_budget_mb,
        "group_plan": settings.group_plan,
        "objective": settings.objective,
        "warm_start": settings.warm_start,
        "train_processes": settings.train_processes,
        "commit": commit(),
        "spark_master": settings.spark_master,
        "spark_memory": settings.spark_memory,
    }


@contextmanager
def desired(settings: Settings) -> Iterator[Desired]:
    """The recurring run as the settings want it; the cron expression is checked before anything else."""
    schedule = Schedule.parse(settings.cron, settings.time_zone)
    given = parameters(settings)
    from pipelines.cluster import ROOT
    from pipelines.recurring import Desired

    # The same every night: Kubeflow's macros ([[ScheduledTime]] and the like) are not filled in for v2 pipelines.
    scheduled = {"date": naming.AUTO, "run_uri": f"{ROOT}/nights/scheduled/{naming.AUTO}"}
    with _package(settings) as package:
        yield Desired(schedule, package, given | scheduled, settings.service_account)


@contextmanager
def order(settings: Settings, full_rebuild: bool = False) -> Iterator[Order]:
    """The night as the settings want it, for any date; its mark is the digest of package and parameters.

    full_rebuild: features from all days, as for one night by hand.
    """
    with desired(settings) as wanted:
        from pipelines.backfill import Order

        given = parameters(settings) | ({"full_rebuild": True} if full_rebuild else {})
        mark = f"{wanted.digest_of_night}{'-rebuilt' * full_rebuild}"
        yield Order(wanted.package, wanted.version, given, f"{ROOT}/nights", mark, settings.service_account)


@contextmanager
def _package(settings: Settings) -> Iterator[Path]:
    """The compiled night with the settings' images."""
    images = {name: getattr(settings, name) for name in ("data_image", "train_image", "serving_image")}
    for name, image in images.items():
        if not (_IMAGE if settings.image_tags else _BY_DIGEST).fullmatch(image):
            raise UsageError(
                f"GOALRANK_{name.upper()} {image!r} found, expected an image by digest, NAME@sha256:...; for a trial "
                "on tags: GOALRANK_IMAGE_TAGS=1"
            )
    on_gpus = gpu_nodes(settings)
    from pipelines.cluster import Cluster, compile_cluster

    cluster = Cluster(
        **images,
        gpus=settings.gpus,
        **on_gpus,
        group_parts=settings.group_parts,
        train_nodes=settings.train_nodes,
        volume_claim=settings.volume_claim,
        spark_master=settings.spark_master,
        spark_memory=settings.spark_memory,
        spark_executor_memory=settings.spark_executor_memory,
        spark_executors=settings.spark_executors,
        spark_cores=settings.spark_cores,
        canary_service=settings.canary_service,
        prometheus=settings.prometheus,
    )
    with tempfile.TemporaryDirectory(prefix="goalrank-") as folder:
        package = Path(folder) / "nightly.yaml"
        compile_cluster(package, cluster)
        yield package
