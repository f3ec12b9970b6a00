"""The TrainJob of train_ranker: what its environment asks for, and the object that Kubeflow Trainer (v2) is given.

The runtime (`torch-distributed`, which Kubeflow Trainer brings) says how nodes find each other; it tells torchrun by
PET_* variables. What its pods lack of the standard `restricted`, the volume and the account are patched in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components import restricted
from goalrank.errors import UsageError

GROUP, API_VERSION, PLURAL, KIND = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
RUNTIME, NODE = "torch-distributed", "node"
"""The runtime, and what it calls its replicated job and that one's container."""

MANAGER = "goalrank.io/train-ranker"
"""Owner of our patches of the runtime."""

PATCHES = "runtimePatches"
"""The field with what a job's pods have beside what the runtime says."""

NODES = "goalrank-trainer"
"""app.kubernetes.io/name of a job's pods."""

PODS_ACCOUNT = "goalrank-trainer"
"""Account of a job's pods, without a token: they ask the API server for nothing."""

WORKSPACE, SCRATCH, SHARED_MEMORY = "/workspace", "/tmp", "/dev/shm"

COUNT, IMAGE, CLAIM, CPU, MEMORY, SECONDS, GPUS, GPU_RESOURCE, GPU_TAINT, GPU_NODE_LABEL, POD = (
    "GOALRANK_TRAIN_NODES",
    "GOALRANK_TRAIN_IMAGE",
    "GOALRANK_TRAIN_CLAIM",
    "GOALRANK_TRAIN_CPU",
    "GOALRANK_TRAIN_MEMORY",
    "GOALRANK_TRAIN_SECONDS",
    "GOALRANK_TRAIN_GPUS",
    "GOALRANK_TRAIN_GPU_RESOURCE",
    "GOALRANK_TRAIN_GPU_TAINT",
    "GOALRANK_TRAIN_GPU_NODE_LABEL",
    "GOALRANK_POD_NAME",
)
"""In the step's environment (pipelines/cluster.py), where training is to take several machines; the last is the name of
the step's own pod."""


@dataclass(frozen=True)
class Machines:
    """What a job asks for: so many nodes, each of so many processes (a GPU each where there are GPUs).

    It may last `seconds`. Where there are GPUs, its pods tolerate the taint `gpu_taint` and ask for machines labelled
    `gpu_node_label`; both may be "". `pod` is the one that waits for it, "" where nobody knows its name.
    """

    nodes: int
    processes: int
    image: str
    claim: str
    cpu: str
    memory: str
    seconds: int
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    gpu_taint: str = ""
    gpu_node_label: str = ""
    pod: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str], processes: int) -> Machines | None:
        """As the environment says; None where one machine trains.

        Raises:
            UsageError: it is half said.
        """
        nodes = environment.get(COUNT, "1")
        if nodes == "1":
            return None
        missing = [name for name in (IMAGE, CLAIM, CPU, MEMORY, SECONDS) if not environment.get(name)]
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
            seconds=int(environment[SECONDS]),
            gpus=int(environment.get(GPUS, "0")),
            gpu_resource=environment.get(GPU_RESOURCE, cls.gpu_resource),
            gpu_taint=environment.get(GPU_TAINT, ""),
            gpu_node_label=environment.get(GPU_NODE_LABEL, ""),
            pod=environment.get(POD, ""),
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
    pod: dict[str, Any] = {
        "serviceAccountName": PODS_ACCOUNT,
        "securityContext": restricted.POD,
        "containers": [
            {
                "name": NODE,
                "securityContext": restricted.CONTAINER,
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
    if machines.gpus and machines.gpu_taint:
        pod["tolerations"] = [{"key": machines.gpu_taint, "operator": "Exists", "effect": "NoSchedule"}]
    if machines.gpus and machines.gpu_node_label:
        label, _, value = machines.gpu_node_label.partition("=")
        pod["nodeSelector"] = {label: value}
    labels = {"app.kubernetes.io/name": NODES}
    node = {"name": NODE, "template": {"spec": {"template": {"metadata": {"labels": labels}, "spec": pod}}}}
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "goalrank"}},
        "spec": {
            "activeDeadlineSeconds": machines.seconds,
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
            PATCHES: [{"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}}}],
        },
    }


def name_of(run_uri: str) -> str:
    """The job's name, the same at every try of a run: what two tries asked for must be one job.

    A hash of all of it: JobSet takes 47 characters, so that its pods' names fit a label.
    """
    return f"train-ranker-{hashlib.sha256(run_uri.encode()).hexdigest()[:20]}"


def is_same(found: dict[str, Any], job: dict[str, Any]) -> bool:
    """Does a job that is there do the same work on as many machines, and run at all?"""
    there, wanted = found["spec"]["trainer"], job["spec"]["trainer"]
    return PATCHES in found["spec"] and all(
        there.get(key) == wanted[key] for key in ("image", "command", "args", "numNodes", "numProcPerNode")
    )
