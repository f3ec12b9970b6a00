"""train_ranker on several machines: a TrainJob of Kubeflow Trainer (v2), whose nodes run our main.py by torchrun.

The step's pod does not train: it puts its inputs on the volume that all share, asks for the job, waits for its end, and
takes the ranker and the outcome from where the first process wrote them. A job that fails is deleted, and the step's
next try asks for another, which goes on from the checkpoints: as on one machine, nothing is restarted in place.

The runtime (`torch-distributed`, which Kubeflow Trainer brings) says how nodes find each other; it tells torchrun by
PET_* variables. What its pods lack of the standard `restricted`, the volume and the account are patched in.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalrank.errors import TryAgain, UsageError

GROUP, API_VERSION, PLURAL, KIND = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
RUNTIME, NODE = "torch-distributed", "node"
"""The runtime, and what it calls its replicated job and that one's container."""

MANAGER = "goalrank.io/train-ranker"
"""Owner of our patches of the runtime."""

NODES = "goalrank-trainer"
"""app.kubernetes.io/name of a job's pods."""

WORKSPACE, SCRATCH, SHARED_MEMORY = "/workspace", "/tmp", "/dev/shm"
INPUTS = ("training_set", "groups", "reward_model")
POLL_SECONDS, ANSWER_SECONDS = 15.0, 20
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

COUNT, IMAGE, CLAIM, GPUS, GPU_RESOURCE, CPU, MEMORY = (
    "GOALRANK_TRAIN_NODES",
    "GOALRANK_TRAIN_IMAGE",
    "GOALRANK_TRAIN_CLAIM",
    "GOALRANK_TRAIN_GPUS",
    "GOALRANK_TRAIN_GPU_RESOURCE",
    "GOALRANK_TRAIN_CPU",
    "GOALRANK_TRAIN_MEMORY",
)
"""In the step's environment (pipelines/cluster.py), where training is to take several machines."""


@dataclass(frozen=True)
class Machines:
    """What a job asks for: so many nodes, each of so many processes (a GPU each where there are GPUs)."""

    nodes: int
    processes: int
    image: str
    claim: str
    cpu: str
    memory: str
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"

    @classmethod
    def of(cls, environment: Mapping[str, str], processes: int) -> Machines | None:
        """As the environment says; None where one machine trains.

        Raises:
            UsageError: it is half said.
        """
        nodes = environment.get(COUNT, "1")
        if nodes == "1":
            return None
        missing = [name for name in (IMAGE, CLAIM, CPU, MEMORY) if not environment.get(name)]
        if missing or not nodes.isdecimal() or int(nodes) < 1:
            raise UsageError(
                f"{COUNT} {nodes!r} found, expected a number of machines, and {', '.join(missing) or IMAGE}"
            )
        return cls(
            nodes=int(nodes),
            processes=processes,
            image=environment[IMAGE],
            claim=environment[CLAIM],
            cpu=environment[CPU],
            memory=environment[MEMORY],
            gpus=int(environment.get(GPUS, "0")),
            gpu_resource=environment.get(GPU_RESOURCE, cls.gpu_resource),
        )


def manifest(name: str, machines: Machines, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The TrainJob that runs components.train_ranker.main with these arguments.

    Args:
        name: of the job, a DNS label.
        arguments: of main.run; every path must lie on the shared volume.
    """
    size: dict[str, str] = {"cpu": machines.cpu, "memory": machines.memory}
    if machines.gpus:
        size[machines.gpu_resource] = str(machines.gpus)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in arguments.items()]
    pod = {
        "serviceAccountName": "default",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": NODE,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "workspace", "mountPath": WORKSPACE},
                    {"name": "scratch", "mountPath": SCRATCH},
                    {"name": "memory", "mountPath": SHARED_MEMORY},
                ],
            }
        ],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": machines.claim}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "20Gi"}},
            # NCCL's processes of one node speak through it; a container's own holds 64 MB.
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
        ],
    }
    labels = {"app.kubernetes.io/name": NODES}
    node = {"name": NODE, "template": {"spec": {"template": {"metadata": {"labels": labels}, "spec": pod}}}}
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "goalrank"}},
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": RUNTIME},
            "trainer": {
                "image": machines.image,
                "command": ["torchrun", "-m", "components.train_ranker.main"],
                "args": flags,
                "numNodes": machines.nodes,
                "numProcPerNode": machines.processes,
                "env": [{"name": "HOME", "value": SCRATCH}, {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"}],
                "resourcesPerNode": {"requests": size, "limits": size},
            },
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}}}
            ],
        },
    }


class TrainJobs:
    """TrainJobs of one namespace, through the `kubernetes` client that kfp brings."""

    def __init__(self, host: str, namespace: str, token: str = "", ca_file: str | None = None) -> None:
        from kubernetes import client

        configuration = client.Configuration()
        configuration.host, configuration.ssl_ca_cert, configuration.retries = host, ca_file, False
        if token:
            configuration.api_key = {"authorization": f"Bearer {token}"}
        self._api = client.CustomObjectsApi(client.ApiClient(configuration))
        self._where = {"group": GROUP, "version": API_VERSION, "namespace": namespace, "plural": PLURAL}

    @classmethod
    def from_account(cls, account: Path = ACCOUNT) -> TrainJobs:
        """Of the pod's own namespace, with its own account.

        Raises:
            UsageError: this is no pod of a cluster.
        """
        try:
            token, namespace = ((account / name).read_text(encoding="utf-8").strip() for name in ("token", "namespace"))
            host = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        except (OSError, KeyError) as error:
            raise UsageError(
                f"{COUNT} is set, but {type(error).__name__}: expected a step's pod on a cluster"
            ) from error
        return cls(f"https://{host}", namespace, token, str(account / "ca.crt"))

    def run(
        self, job: dict[str, Any], said: Callable[[str], None] = lambda _: None, poll_seconds: float = POLL_SECONDS
    ) -> bool:
        """Ask for a job, or find it there already, and wait until it is over; whether it ended well. It is gone then.

        Raises:
            UsageError: the API server refuses the job.
            TryAgain: it is away, or somebody deleted the job.
        """
        name = job["metadata"]["name"]
        self._call(self._api.create_namespaced_custom_object, (409,), body=job)  # 409: an earlier try asked for it
        told = ""
        while True:
            found = self._call(self._api.get_namespaced_custom_object, (404,), name=name)
            if found is None:
                raise TryAgain(f"TrainJob {name} is gone, somebody deleted it; run it again")
            conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
            over = [kind for kind in ("Complete", "Failed") if conditions.get(kind, {}).get("status") == "True"]
            now = ", ".join(f"{kind} {each['status']}" for kind, each in sorted(conditions.items())) or "no condition"
            if now != told:
                said(f"TrainJob {name}: {now}")
                told = now
            if over:
                self._call(self._api.delete_namespaced_custom_object, (404,), name=name)
                return over == ["Complete"]
            time.sleep(poll_seconds)

    def _call(
        self, function: Callable[..., Any], tolerated: tuple[int, ...] = (), **more: Any
    ) -> dict[str, Any] | None:
        """One call; None where the answer is one of the tolerated statuses."""
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer: dict[str, Any] = function(**self._where, **more, _request_timeout=ANSWER_SECONDS)
            return answer
        except ApiException as error:
            status, said = error.status or 0, " ".join(f"{error.reason} {error.body or ''}".split())[:300]
            if status in tolerated:
                return None
            if 400 <= status < 500 and status != 429:
                raise UsageError(
                    f"the API server says {status} to a TrainJob ({said}); expected Kubeflow Trainer v2 with runtime "
                    f"{RUNTIME}, and an account that may create, get and delete it (k8s/components/trainer)"
                ) from error
        except (OSError, HTTPError) as error:
            status, said = 0, type(error).__name__
        raise TryAgain(f"the API server does not answer about a TrainJob ({status or said}); run it again")


def train(
    jobs: TrainJobs,
    machines: Machines,
    arguments: dict[str, Any],
    said: Callable[[str], None] = lambda _: None,
    poll_seconds: float = POLL_SECONDS,
) -> bool:
    """Train on several machines; whether the job ended well. The outcome lies where main.run writes it.

    Args:
        arguments: of main.run, its paths those of this pod; `run_uri` on the shared volume.

    Raises:
        UsageError, TryAgain: as TrainJobs.run.
    """
    folder = Path(arguments["run_uri"]) / "train_job"
    given = dict(arguments)
    for name in INPUTS:
        given[name] = str(_shared(Path(arguments[name]), folder / name))
    made = folder / "ranker"
    shutil.rmtree(made, ignore_errors=True)
    given["ranker"] = str(made)
    ended_well = jobs.run(manifest(name_of(arguments["run_uri"]), machines, given), said, poll_seconds)
    if ended_well:
        shutil.copytree(made, arguments["ranker"], dirs_exist_ok=True)
        shutil.rmtree(folder)
    return ended_well


def name_of(run_uri: str) -> str:
    """The job's name, the same at every try of a run: what two tries asked for must be one job."""
    words = re.sub(r"[^a-z0-9]+", "-", "-".join(Path(run_uri).parts[-2:]).lower()).strip("-")
    return f"train-ranker-{words[-40:].strip('-')}"


def _shared(source: Path, target: Path) -> Path:
    """A copy on the shared volume, whole or not at all."""
    if not target.exists():
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
        os.replace(aside, target)
    return target
