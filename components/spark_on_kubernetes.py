"""Spark on Kubernetes, in client mode: the step's own pod is the driver and asks the API server for executors.

No SparkApplication: it would put the driver in another pod, whose refusals, outcome and exit code the step would have
to fetch back, and it needs an operator. Here the job is the very one that runs on local[2] or a standalone master. The
price: the night's account may make pods, and so read every Secret of its namespace, but only where somebody orders it
(k8s/components/spark).

Executors run the image of the data steps, which has no entry point of Spark's own: components/spark_executor.py is it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import restricted
from goalrank.errors import UsageError

PREFIX = "k8s://"

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts token, certificate and namespace of a pod's account."""

IMAGE, EXECUTORS, CORES, CLAIM, ADDRESS, POD = (
    "GOALRANK_SPARK_IMAGE",
    "GOALRANK_SPARK_EXECUTORS",
    "GOALRANK_SPARK_CORES",
    "GOALRANK_SPARK_CLAIM",
    "GOALRANK_POD_IP",
    "GOALRANK_POD_NAME",
)
"""In the environment of a data step (pipelines/cluster.py): executors' image, how many, cores of each, the claim of the
volume that all share, address and name of the step's pod."""

DRIVER_PORT, BLOCKS_PORT = 7078, 7079
"""Fixed, so that network policies can name them."""

EXECUTOR = "goalrank-spark-executor"
"""app.kubernetes.io/name of executors, and the account they run as: one without rights, which may pull their image."""

WORKSPACE, SCRATCH = "/workspace", "/tmp"

LOCAL_DIR = "spark-local-dir-1"
"""Volume at SCRATCH. Spark takes one so named for its own; beside any other it mounts a second at the same path, which
the API server refuses."""


def configuration(folder: Path, environment: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> dict[str, str]:
    """Spark's settings beside those of any master; the executors' pod template is written into `folder`.

    Raises:
        UsageError: this is no pod of a cluster, or something of it is not told.
    """
    names = (IMAGE, EXECUTORS, CORES, CLAIM, ADDRESS, POD)
    missing = [name for name in names if not environment.get(name)]
    try:
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        missing, namespace = [*missing, str(account / "namespace")], ""
    if missing:
        raise UsageError(
            f"Spark master {PREFIX}... found, but not {', '.join(missing)}: executors are asked for from a step's pod "
            "on a cluster; on one machine leave GOALRANK_SPARK_MASTER local[2]"
        )
    template = folder / "executor.json"
    template.write_text(json.dumps(pod_template(), indent=1), encoding="utf-8")
    volume = "spark.kubernetes.executor.volumes.persistentVolumeClaim.workspace"
    return {
        "spark.kubernetes.namespace": namespace,
        "spark.kubernetes.authenticate.oauthTokenFile": str(account / "token"),
        "spark.kubernetes.authenticate.caCertFile": str(account / "ca.crt"),
        "spark.kubernetes.container.image": environment[IMAGE],
        "spark.kubernetes.container.image.pullPolicy": "IfNotPresent",
        # Executors belong to the step's pod: they go with it, however it ends.
        "spark.kubernetes.driver.pod.name": environment[POD],
        "spark.kubernetes.executor.podTemplateFile": str(template),
        "spark.kubernetes.executor.podTemplateContainerName": "executor",
        "spark.kubernetes.executor.label.app.kubernetes.io/name": EXECUTOR,
        f"{volume}.options.claimName": environment[CLAIM],
        f"{volume}.mount.path": WORKSPACE,
        # In client mode it made none, and needs no right to delete any.
        "spark.kubernetes.driver.service.deleteOnTermination": "false",
        "spark.local.dir": SCRATCH,
        "spark.executor.instances": environment[EXECUTORS],
        "spark.executor.cores": environment[CORES],
        "spark.kubernetes.executor.request.cores": environment[CORES],
        "spark.kubernetes.executor.limit.cores": environment[CORES],
        # Both: on Kubernetes Spark tells executors the address it is bound to, which must not be 0.0.0.0.
        "spark.driver.host": environment[ADDRESS],
        "spark.driver.bindAddress": environment[ADDRESS],
        "spark.driver.port": str(DRIVER_PORT),
        "spark.driver.blockManager.port": str(BLOCKS_PORT),
        "spark.blockManager.port": str(BLOCKS_PORT),
    }


def pod_template() -> dict[str, Any]:
    """What Spark does not set of an executor's pod: the standard `restricted`, and how our image becomes one."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {
            "serviceAccountName": EXECUTOR,
            "automountServiceAccountToken": False,
            "securityContext": restricted.POD,
            "containers": [
                {
                    "name": "executor",
                    "command": ["python", "-m", "components.spark_executor"],
                    "securityContext": restricted.CONTAINER,
                    "volumeMounts": [{"name": LOCAL_DIR, "mountPath": SCRATCH}],
                }
            ],
            "volumes": [{"name": LOCAL_DIR, "emptyDir": {"sizeLimit": "50Gi"}}],
        },
    }
