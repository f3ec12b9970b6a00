"""The night on a cluster: the very definition of pipelines/nightly.py, each step given what its pod needs.

Nothing is wired here. The night's own function runs while kfp collects its tasks; then each task gets its image,
resources, node, volume, secrets, time-out, retries and user. On one machine kfp.local runs the undecorated night.

Decisions:

- Retries. kfp starts a failed pod again whatever its exit code, so a refusal (3, 4, 5) is tried again like a lost node
  or a store that is away (75). Every step may be repeated: what is written is written aside and renamed, training
  goes on from its checkpoint, promotion from its journal. So a refusal comes three times in the same words and is told
  up to RETRY_SECONDS later; in exchange a preempted pod or a restarted Redis costs no night.
- Caching. Only the training steps may be taken from the cache, keyed by the snapshot's id, the images' digests
  and the run's folder: where a night is submitted again, it checks and extracts anew and trains only if the snapshot
  changed. Every other step looks at something outside (logs, stores, registry), so it always runs.
- The exit handler publishes the report and tells the webhook, on success and on failure. A time-out counts from a pod's
  start: one that no node takes may wait without end, which only an alert on the missing report can tell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import spark_on_kubernetes as spark
from components.images import DATA_IMAGE, SERVING_IMAGE, TRAIN_IMAGE
from components.spark_memory import DEFAULT_MEMORY, pod_memory
from components.the_night import RUN_VARIABLE
from components.train_ranker import train_job_manifest as train_job

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask
    from kfp.dsl.graph_component import GraphComponent

NAME = "goalrank-nightly"
ROOT = "/workspace"
"""Where the shared volume lies in every pod: snapshots, run folders, the journal and its lock."""

MLFLOW = "http://mlflow:5000"
"""Where the manifests put MLflow; steps fetch models through it and need no key of the object store."""

USER = 1000
"""User and group of every step; the volume must be writable for them."""

RETRIES, RETRY_WAIT, RETRY_FACTOR = 2, "120s", 2.0
RETRY_SECONDS = 360
"""Of waiting, when both retries are needed: 120 and 240."""

TRAINING = frozenset({"train_reward", "generate_groups", "train_ranker"})
"""Steps that get the accelerator."""

CACHED = TRAINING | {"join_groups"}
"""The only ones that may be taken from the cache."""


@dataclass(frozen=True)
class Size:
    """What one step asks for: processors, memory, and the longest one try of it may take."""

    cpu: str
    memory: str
    hours: float


SIZES = {
    "check_logs": Size("2", "8Gi", 2),
    "extract_features": Size("2", "8Gi", 4),
    "check_features": Size("2", "8Gi", 2),
    "materialize_features": Size("2", "8Gi", 3),
    "train_reward": Size("4", "16Gi", 8),
    "generate_groups": Size("4", "16Gi", 4),
    "join_groups": Size("2", "16Gi", 2),
    "train_ranker": Size("4", "16Gi", 12),
    "register_model": Size("1", "4Gi", 1),
    "evaluate_ranker": Size("4", "16Gi", 3),
    "smoke_serve": Size("1", "4Gi", 1),
    "gate_promotion": Size("1", "2Gi", 0.5),
    "promote_model": Size("1", "2Gi", 8),
    "publish_report": Size("1", "2Gi", 0.5),
}
"""For the preset `base` on millions of impressions; a step that is not named here does not compile. Where Spark's
driver has more than its default, the steps with one have so much more."""

FIRST_AND_LAST = frozenset({"check_logs", "publish_report"})
"""Steps that must know which run they are of: the first tells the others, the exit handler can be told nothing."""

SPARK_STEPS = frozenset({"check_logs", "extract_features", "materialize_features", "smoke_serve"})
"""Steps that start Spark; on Kubernetes each is its own driver and asks for executors."""

WAITING = Size("1", "4Gi", 12)
"""Of a step whose work is done by other pods."""

FEAST_STEPS = frozenset({"materialize_features", "smoke_serve"})
"""Steps that open the feature store; no other pod of a run is given its passwords, or let through to its databases."""

FEAST_LABEL = ("app.kubernetes.io/component", "feature-store")
"""Of the pods of these steps, by which the network policies know them (k8s/base/network)."""

FEAST_SECRET, FEAST_KEYS = "goalrank-feast", ("GOALRANK_FEAST_REGISTRY", "GOALRANK_REDIS")
"""Kubernetes secret and its keys, named as the variables that these steps find them in."""

NOTIFY_SECRET = ("goalrank-notify", "GOALRANK_NOTIFY_URL")
"""The webhook: optional, and given to publish_report alone."""

PROMOTER_SECRET, PROMOTER_ACCOUNT = "goalrank-promoter-token", "/var/run/goalrank-promoter"
"""The account that may get and patch the InferenceService, and where promote_model alone finds it."""

VARIABLES = {
    "HOME": "/tmp",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "FEAST_USAGE": "False",
}


@dataclass(frozen=True)
class Cluster:
    """What differs from cluster to cluster; an empty taint or label means that there is none."""

    data_image: str = DATA_IMAGE
    train_image: str = TRAIN_IMAGE
    serving_image: str = SERVING_IMAGE
    gpus: int = 1
    group_parts: int = 1
    train_nodes: int = 1
    gpu_resource: str = "nvidia.com/gpu"
    gpu_taint: str = "nvidia.com/gpu"
    gpu_node_label: str = "nvidia.com/gpu.present=true"
    volume_claim: str = "goalrank-workspace"
    spark_master: str = "local[2]"
    spark_memory: str = DEFAULT_MEMORY
    spark_executor_memory: str = ""
    spark_executors: int = 2
    spark_cores: int = 4
    canary_service: str = ""
    prometheus: str = ""

    def image(self, declared: str) -> str:
        """The image of a step that declares one of components/images."""
        images = {DATA_IMAGE: self.data_image, TRAIN_IMAGE: self.train_image, SERVING_IMAGE: self.serving_image}
        return images[declared]


def nightly_on(cluster: Cluster) -> GraphComponent:
    """The night with everything its pods need on that cluster, ready to compile."""
    from kfp import dsl
    from kfp.dsl import pipeline_context

    from pipelines.nightly import GROUP_PARTS, nightly

    the_night: Callable[..., None] = nightly.pipeline_func

    @functools.wraps(the_night)
    def on_the_cluster(*arguments: Any, **named: Any) -> None:
        before = GROUP_PARTS.set(cluster.group_parts)
        try:
            the_night(*arguments, **named)
        finally:
            GROUP_PARTS.reset(before)
        # kfp's setters look through the whole stack for the name of their caller: a thread's own is short. On the stack
        # of a command, or of a test, the same takes seconds.
        with ThreadPoolExecutor(1) as aside:
            for task in pipeline_context.Pipeline.get_default_pipeline().tasks.values():
                aside.submit(_fit_out, task, cluster).result()

    return dsl.pipeline(name=NAME, description=nightly.description)(on_the_cluster)


def compile_cluster(target: Path, cluster: Cluster | None = None) -> None:
    """Write the night as the YAML a cluster is given."""
    from kfp import compiler

    compiler.Compiler().compile(nightly_on(cluster or Cluster()), str(target))


def _fit_out(task: PipelineTask, cluster: Cluster) -> None:
    """Give one step's pod what it needs."""
    from kfp import kubernetes

    step = task.component_spec.name.replace("-", "_")
    size = SIZES[step]
    starts_spark = step in SPARK_STEPS
    if starts_spark:
        size = replace(size, memory=pod_memory(size.memory, cluster.spark_memory))
    task.set_container_image(cluster.image(task.container_spec.image))
    task.set_cpu_request(size.cpu).set_cpu_limit(size.cpu)
    task.set_memory_request(size.memory).set_memory_limit(size.memory)
    task.set_retry(RETRIES, backoff_duration=RETRY_WAIT, backoff_factor=RETRY_FACTOR)
    task.set_caching_options(enable_caching=step in CACHED)
    for name, value in {**VARIABLES, "GOALRANK_SPARK_MASTER": cluster.spark_master}.items():
        task.set_env_variable(name, value)
    kubernetes.set_timeout(task, int(size.hours * 3600))
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.mount_pvc(task, pvc_name=cluster.volume_claim, mount_path=ROOT)
    if step in FEAST_STEPS:
        task.set_env_variable("GOALRANK_FEATURE_STORE", "cluster")
        kubernetes.use_secret_as_env(task, FEAST_SECRET, {key: key for key in FEAST_KEYS})
        kubernetes.add_pod_label(task, *FEAST_LABEL)
    if starts_spark:
        _prepare_for_spark(task, cluster)
    if step in FIRST_AND_LAST:
        kubernetes.use_field_path_as_env(task, RUN_VARIABLE, field_path="metadata.labels['pipeline/runid']")
    if step == "publish_report":
        secret, key = NOTIFY_SECRET
        kubernetes.use_secret_as_env(task, secret, {key: key}, optional=True)
    if step == "promote_model" and cluster.canary_service:
        task.set_env_variable("GOALRANK_CANARY_SERVICE", cluster.canary_service)
        task.set_env_variable("GOALRANK_CANARY_ACCOUNT", PROMOTER_ACCOUNT)
        task.set_env_variable("GOALRANK_PROMETHEUS", cluster.prometheus)
        kubernetes.use_secret_as_volume(task, PROMOTER_SECRET, PROMOTER_ACCOUNT)
    if step == "train_ranker" and cluster.train_nodes > 1:
        _order_a_train_job(task, size, cluster)
    elif step in TRAINING and cluster.gpus:
        task.set_accelerator_type(cluster.gpu_resource).set_accelerator_limit(cluster.gpus)
        if cluster.gpu_node_label:
            label, _, value = cluster.gpu_node_label.partition("=")
            kubernetes.add_node_selector(task, label_key=label, label_value=value)
        if cluster.gpu_taint:
            kubernetes.add_toleration(task, key=cluster.gpu_taint, operator="Exists", effect="NoSchedule")


def _prepare_for_spark(task: PipelineTask, cluster: Cluster) -> None:
    """Memory of driver and executors, and what the driver asks for executors with where Kubernetes starts them."""
    from kfp import kubernetes

    # Feast's configuration takes both from the environment, whatever the pipeline's parameters are.
    task.set_env_variable("GOALRANK_SPARK_MEMORY", cluster.spark_memory)
    task.set_env_variable("GOALRANK_SPARK_EXECUTOR_MEMORY", cluster.spark_executor_memory or cluster.spark_memory)
    if not cluster.spark_master.startswith(spark.PREFIX):
        return
    task.set_env_variable(spark.IMAGE, cluster.data_image)
    task.set_env_variable(spark.EXECUTORS, str(cluster.spark_executors))
    task.set_env_variable(spark.CORES, str(cluster.spark_cores))
    task.set_env_variable(spark.CLAIM, cluster.volume_claim)
    kubernetes.use_field_path_as_env(task, spark.ADDRESS, field_path="status.podIP")
    kubernetes.use_field_path_as_env(task, spark.POD, field_path="metadata.name")


def _order_a_train_job(task: PipelineTask, size: Size, cluster: Cluster) -> None:
    """The step trains on several machines (components/train_ranker/train_job.py); its own pod waits for them."""
    from kfp import kubernetes

    task.set_cpu_request(WAITING.cpu).set_cpu_limit(WAITING.cpu)
    task.set_memory_request(WAITING.memory).set_memory_limit(WAITING.memory)
    told = {
        train_job.COUNT: str(cluster.train_nodes),
        train_job.IMAGE: cluster.train_image,
        train_job.CLAIM: cluster.volume_claim,
        train_job.CPU: size.cpu,
        train_job.MEMORY: size.memory,
        train_job.SECONDS: str(int(size.hours * 3600)),
        train_job.GPUS: str(cluster.gpus),
        train_job.GPU_RESOURCE: cluster.gpu_resource,
        train_job.GPU_TAINT: cluster.gpu_taint,
        train_job.GPU_NODE_LABEL: cluster.gpu_node_label,
    }
    for name, value in told.items():
        task.set_env_variable(name, value)
    kubernetes.use_field_path_as_env(task, train_job.POD, field_path="metadata.name")
