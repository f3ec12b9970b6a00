"""train_ranker on several machines: a TrainJob of Kubeflow Trainer (v2), whose nodes run our main.py by torchrun.

The step's pod does not train: it puts its inputs on the volume that all share, asks for the job, waits for its end, and
takes the ranker and the outcome from where the first process wrote them. A job that fails is deleted, and the step's
next try asks for another, which goes on from the checkpoints: as on one machine, nothing is restarted in place. Only
an API server that does not answer leaves a job behind: the next try finds it, and takes it if it is the very same.

The runtime (`torch-distributed`, which Kubeflow Trainer brings) says how nodes find each other; it tells torchrun by
PET_* variables. What its pods lack of the standard `restricted`, the volume and the account are patched in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from components import restricted
from goalrank.errors import TryAgain, UsageError

GROUP, API_VERSION, PLURAL, KIND = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
RUNTIME, NODE = "torch-distributed", "node"
"""The runtime, and what it calls its replicated job and that one's container."""

MANAGER = "goalrank.io/train-ranker"
"""Owner of our patches of the runtime."""

NODES = "goalrank-trainer"
"""app.kubernetes.io/name of a job's pods."""

PODS_ACCOUNT = "goalrank-trainer"
"""Account of a job's pods, without a token: they ask the API server for nothing."""

FOLDER = "train_job"
"""In the run's folder: the job's inputs and its ranker, while it is under way."""

WORKSPACE, SCRATCH, SHARED_MEMORY = "/workspace", "/tmp", "/dev/shm"
INPUTS = ("training_set", "groups", "reward_model")
POLL_SECONDS, ANSWER_SECONDS = 15.0, 20
TRIES, PAUSE_SECONDS = 5, 1.0
"""Of one call to the API server, and between the first two; each pause is twice the one before."""

START_SECONDS = 1800.0
"""How long a job may have neither a condition nor all its nodes running: no quota, no runtime, no such machines. A new
machine and the image on it are to fit into it."""

GONE_SECONDS = 300.0
"""How long a deleted job may take to go with its pods."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

COUNT, IMAGE, CLAIM, CPU, MEMORY, SECONDS, GPUS, GPU_RESOURCE, GPU_TAINT, GPU_NODE_LABEL = (
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
)
"""In the step's environment (pipelines/cluster.py), where training is to take several machines."""


@dataclass(frozen=True)
class Machines:
    """What a job asks for: so many nodes, each of so many processes (a GPU each where there are GPUs).

    It may last `seconds`. Where there are GPUs, its pods tolerate the taint `gpu_taint` and ask for machines labelled
    `gpu_node_label`; both may be "".
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
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}}}
            ],
        },
    }


class TrainJobs:
    """TrainJobs of one namespace, through the `kubernetes` client that kfp brings."""

    def __init__(
        self,
        host: str,
        namespace: str,
        token: Callable[[], str],
        ca_file: str | None = None,
        poll_seconds: float = POLL_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """`token` is asked at every call: the cluster renews it in the pod's account long before training ends."""
        from kubernetes import client

        configuration = client.Configuration()
        configuration.host, configuration.ssl_ca_cert, configuration.retries = host, ca_file, False
        self._configuration, self._token = configuration, token
        self._api = client.CustomObjectsApi(client.ApiClient(configuration))
        self._where = {"group": GROUP, "version": API_VERSION, "namespace": namespace, "plural": PLURAL}
        self._poll_seconds, self._start_seconds = poll_seconds, start_seconds

    @classmethod
    def from_account(cls, account: Path = ACCOUNT) -> TrainJobs:
        """Of the pod's own namespace, with its own account.

        Raises:
            UsageError: this is no pod of a cluster.
        """
        try:
            _, namespace = ((account / name).read_text(encoding="utf-8").strip() for name in ("token", "namespace"))
            host = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        except (OSError, KeyError) as error:
            raise UsageError(
                f"{COUNT} is set, but {type(error).__name__}: expected a step's pod on a cluster"
            ) from error
        token = account / "token"
        return cls(
            f"https://{host}", namespace, lambda: token.read_text(encoding="utf-8").strip(), str(account / "ca.crt")
        )

    def ask(self, job: dict[str, Any], before: Callable[[], None] = lambda: None) -> None:
        """Ask for a job, unless the very same is there already; another one of its name is deleted first.

        Args:
            before: done right before a new job is asked for, when none is there.

        Raises:
            UsageError: the API server refuses the job.
            TryAgain: it is away, or the other job does not go.
        """
        name, until = job["metadata"]["name"], time.monotonic() + GONE_SECONDS
        while (found := self._call(self._api.get_namespaced_custom_object, (404,), name=name)) is not None:
            if "deletionTimestamp" not in found["metadata"]:
                if _is_same(found, job):
                    return
                self.delete(name)
            elif time.monotonic() > until:
                raise TryAgain(f"TrainJob {name} was deleted {GONE_SECONDS:.0f} s ago and is still there; run it again")
            time.sleep(self._poll_seconds)
        before()
        # 409: this very call was answered, but the answer was lost.
        self._call(self._api.create_namespaced_custom_object, (409,), body=job)

    def ended_well(self, name: str, said: Callable[[str], None] = lambda _: None) -> bool:
        """Wait until a job is over; whether it ended well. One that does not start is deleted.

        Raises:
            TryAgain: the API server is away, somebody deleted the job, or it does not start.
        """
        told, started = "", time.monotonic()
        while True:
            found = self._call(self._api.get_namespaced_custom_object, (404,), name=name)
            if found is None:
                raise TryAgain(f"TrainJob {name} is gone, somebody deleted it; run it again")
            status = found.get("status", {})
            conditions = {each["type"]: each for each in status.get("conditions", [])}
            over = [kind for kind in ("Complete", "Failed") if conditions.get(kind, {}).get("status") == "True"]
            now = ", ".join(f"{kind} {each['status']}" for kind, each in sorted(conditions.items())) or "no condition"
            if now != told:
                said(f"TrainJob {name}: {now}")
                told = now
            if over:
                return over == ["Complete"]
            held = any(each["status"] == "True" for each in conditions.values())  # suspended: somebody's queue has it
            if held or any(each.get("ready") or each.get("succeeded") for each in status.get("jobsStatus", [])):
                started = time.monotonic()
            elif time.monotonic() - started > self._start_seconds:
                self.delete(name)
                raise TryAgain(
                    f"TrainJob {name} had no condition and not all its nodes running for {self._start_seconds:.0f} s, "
                    f"and was deleted; look for quota, machines with room, and runtime {RUNTIME}, then run it again"
                )
            time.sleep(self._poll_seconds)

    def delete(self, name: str) -> None:
        """Delete a job with its pods; its name is free once they are gone."""
        self._call(self._api.delete_namespaced_custom_object, (404,), name=name, propagation_policy="Foreground")

    def _call(
        self, function: Callable[..., Any], tolerated: tuple[int, ...] = (), **more: Any
    ) -> dict[str, Any] | None:
        """One call, tried again while the server errs; None where the answer is one of the tolerated statuses."""
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import HTTPError

        for attempt in range(TRIES):
            try:
                self._configuration.api_key = {"authorization": f"Bearer {self._token()}"}
                answer: dict[str, Any] = function(**self._where, **more, _request_timeout=ANSWER_SECONDS)
                return answer
            except ApiException as error:
                status, said = error.status or 0, " ".join(f"{error.reason} {error.body or ''}".split())[:300]
                if status in tolerated:
                    return None
                if 400 <= status < 500 and status != 429:
                    raise UsageError(
                        f"the API server says {status} to a TrainJob ({said}); expected Kubeflow Trainer v2 with "
                        f"runtime {RUNTIME}, and an account that may create, get and delete it "
                        "(k8s/components/trainer)"
                    ) from error
            except (OSError, HTTPError) as error:
                status, said = 0, type(error).__name__
            if attempt + 1 < TRIES:
                time.sleep(PAUSE_SECONDS * 2**attempt)
        raise TryAgain(f"the API server does not answer about a TrainJob ({status or said}); run it again")


def train(
    jobs: TrainJobs,
    machines: Machines,
    arguments: dict[str, Any],
    outcome: Path,
    said: Callable[[str], None] = lambda _: None,
) -> bool:
    """Train on several machines; whether the job ended well.

    Args:
        arguments: of main.run, its paths those of this pod; `run_uri` on the shared volume.
        outcome: where main.run writes how it ended; an earlier job's is removed.

    Raises:
        UsageError: the API server refuses the job.
        TryAgain: it is away, the job is gone or does not start. Or SIGTERM came: the job is deleted, whose processes
            then write a checkpoint of their last step.
    """
    inputs = {name: Path(arguments[name]) for name in INPUTS}
    folder = Path(arguments["run_uri"]) / FOLDER
    # Named by what is in them: a night submitted again must not train on what an earlier one left here.
    staged = folder / _digest(inputs)
    given = dict(arguments)
    for name, source in inputs.items():
        given[name] = str(_shared(source, staged / name))
    made = staged / "ranker"
    given["ranker"] = str(made)
    job = manifest(name_of(arguments["run_uri"]), machines, given)
    name = job["metadata"]["name"]

    def clear() -> None:
        """What jobs before this one left; with a job under way, all of it may be that one's."""
        outcome.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        for other in folder.iterdir():
            if other != staged:
                shutil.rmtree(other, ignore_errors=True)

    with _sigterm_raised():
        try:
            jobs.ask(job, clear)
            ended_well = jobs.ended_well(name, said)
        except _Terminated as error:
            jobs.delete(name)
            raise TryAgain(
                f"SIGTERM came, TrainJob {name} was deleted; the next try goes on from its checkpoint"
            ) from (error)
    if ended_well:
        shutil.copytree(made, arguments["ranker"], dirs_exist_ok=True)
    jobs.delete(name)  # not before: a step killed in between finds its job, over, and takes the ranker
    if ended_well:
        shutil.rmtree(folder)
    return ended_well


def name_of(run_uri: str) -> str:
    """The job's name, the same at every try of a run: what two tries asked for must be one job.

    A hash of all of it: JobSet takes 47 characters, so that its pods' names fit a label.
    """
    return f"train-ranker-{hashlib.sha256(run_uri.encode()).hexdigest()[:20]}"


class _Terminated(Exception):
    """SIGTERM came."""


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """While it lasts, the first SIGTERM is raised as an exception and any after it is ignored."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def raised(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, raised)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_same(found: dict[str, Any], job: dict[str, Any]) -> bool:
    """Does a job that is there do the same work on as many machines?"""
    there, wanted = found["spec"]["trainer"], job["spec"]["trainer"]
    return all(there.get(key) == wanted[key] for key in ("image", "command", "args", "numNodes", "numProcPerNode"))


def _digest(folders: Mapping[str, Path]) -> str:
    """Of every file's name and content in these folders."""
    whole = hashlib.sha256()
    for name, folder in folders.items():
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{name}/{path.relative_to(folder)} {content}\n".encode())
    return whole.hexdigest()[:16]


def _shared(source: Path, target: Path) -> Path:
    """A copy on the shared volume, whole or not at all."""
    if not target.exists():
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
        os.replace(aside, target)
    return target
