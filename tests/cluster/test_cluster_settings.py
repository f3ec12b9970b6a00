"""Settings that cannot work on a cluster, refused by every command before anybody is asked; and some that can."""

from __future__ import annotations

from typing import Any

import pytest

from console.cluster_settings import require_cluster
from console.settings import Settings
from goalrank.errors import EXIT_USAGE
from tests.cluster.kfp_server import KubeflowPipelines
from tests.cluster.typed import Terminal


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GOALRANK_CRON": "0 3 * * *"}, "did you mean '0 0 3 * * *'"),
        ({"GOALRANK_TIME_ZONE": "Mars/Base"}, "expected a name such as Europe/Berlin"),
        ({"GOALRANK_TRAIN_IMAGE": ""}, "expected an image by digest"),
        ({"GOALRANK_TRAIN_IMAGE": "goalrank/train:1"}, "expected an image by digest"),
        ({"GOALRANK_TRAIN_IMAGE": "goalrank/train:1\nx", "GOALRANK_IMAGE_TAGS": "1"}, "expected an image by digest"),
        ({"GOALRANK_LOGS_URI": "logs"}, "'logs' found, expected the path of a folder under /workspace"),
        (
            {"GOALRANK_LOGS_URI": "s3://bucket/logs"},
            "GOALRANK_LOGS_URI: 's3://bucket/logs' found, expected a local fol",
        ),
        (
            {"GOALRANK_LOGS_URI": "/workspacex/logs"},
            "'/workspacex/logs' found, expected the path of a folder under /workspace",
        ),
        (
            {"GOALRANK_SNAPSHOTS_URI": "file:///data"},
            "GOALRANK_SNAPSHOTS_URI 'file:///data' found, expected the path of a folder",
        ),
        ({"GOALRANK_SNAPSHOTS_URI": "/workspace/a*"}, "which Spark reads as a pattern"),
        (
            {"GOALRANK_FEAST_URI": "gs://x/feast"},
            "GOALRANK_FEAST_URI 'gs://x/feast' found, expected the path of a folder under",
        ),
        ({"GOALRANK_JOURNAL_URI": "/tmp/journal"}, "is lost with its pod; give one on the volume"),
        ({"GOALRANK_JOURNAL_URI": "s3://bucket/j"}, "an object store has none"),
        ({"GOALRANK_TRACKING_URI": "mlflow:5000"}, "'mlflow:5000' found, expected an MLflow server, such as http://ml"),
        ({"GOALRANK_TRACKING_URI": "/workspace/mlruns"}, "'/workspace/mlruns' found, expected an MLflow server"),
        ({"GOALRANK_TRACKING_URI": "http://"}, "'http://' found, expected an MLflow server"),
        ({"GOALRANK_PROMETHEUS": "prom:9090"}, "'prom:9090' found, expected the address of Prometheus, such as http"),
        (
            {"GOALRANK_CANARY_SERVICE": "goalrank-ranker", "GOALRANK_PROMETHEUS": "http:///x"},
            "expected the address of P",
        ),
        ({"GOALRANK_CANARY_SERVICE": "goalrank-ranker"}, "GOALRANK_PROMETHEUS is not: a canary is judged by its figur"),
        (
            {"GOALRANK_CANARY_SERVICE": "Ranker", "GOALRANK_PROMETHEUS": "http://prom:9090"},
            "'Ranker' found, expected the name of an InferenceService",
        ),
        ({"GOALRANK_TRAIN_PROCESSES": "4"}, "GOALRANK_GPUS 1 found, expected no more processes than GPUs of a machine"),
        (
            {"GOALRANK_TRAIN_PROCESSES": "3", "GOALRANK_GPUS": "2", "GOALRANK_TRAIN_NODES": "2"},
            "start one process a GPU",
        ),
        ({"GOALRANK_VOLUME_CLAIM": "Bad_Name"}, "'Bad_Name' found, expected a name that Kubernetes takes"),
        ({"GOALRANK_VOLUME_CLAIM": ""}, "'' found, expected a name that Kubernetes takes"),
        (
            {"GOALRANK_SERVICE_ACCOUNT": "Bad/../x"},
            "GOALRANK_SERVICE_ACCOUNT 'Bad/../x' found, expected a name that Ku",
        ),
        ({"GOALRANK_SERVICE_ACCOUNT": "x" * 254}, "expected a name that Kubernetes takes"),
        ({"GOALRANK_KFP_NAMESPACE": "team.a"}, "GOALRANK_KFP_NAMESPACE 'team.a' found, expected a namespace's name"),
        ({"GOALRANK_SPARK_MASTER": "k8s://"}, "'k8s://' found, expected k8s://https://HOST:PORT"),
        ({"GOALRANK_SPARK_MASTER": "spark://spark"}, "'spark://spark' found, expected spark://HOST:PORT"),
        ({"GOALRANK_SPARK_MASTER": ""}, "Spark master '' found, expected local[N], spark://HOST:PORT or k8s://https"),
        ({"GOALRANK_TRACKING_URI": "sqlite:///mlflow.db"}, "expected an MLflow server"),
        ({"GOALRANK_TRACKING_URI": "postgresql+psycopg://db:5432/mlflow"}, "without a database's driver"),
        ({"GOALRANK_TRACKING_URI": "http://mlflow:99999"}, "expected an MLflow server"),
        ({"GOALRANK_PROMETHEUS": "http://p:9090/ x"}, "expected the address of Prometheus"),
        ({"GOALRANK_SPARK_MASTER": "http://spark"}, "Spark master 'http://spark' found, expected local[N]"),
        ({"GOALRANK_JOURNAL_URI": "/a/../b"}, "GOALRANK_JOURNAL_URI"),
        ({"GOALRANK_PRESET": "huge"}, "preset 'huge' found"),
        ({"GOALRANK_GPUS": "-1"}, "gpus"),
        ({"GOALRANK_SPARK_MEMORY": "4Gi"}, "GOALRANK_SPARK_MEMORY '4Gi' found"),
        ({"GOALRANK_TRAIN_ON_SERVED": "1"}, "GOALRANK_TRAIN_ON_SERVED is set, expected it unset"),
        ({"GOALRANK_GPU_NODE_LABEL": "gpu"}, "GOALRANK_GPU_NODE_LABEL 'gpu' found, expected KEY=VALUE"),
    ],
)
def test_refused_before_anybody_is_asked(
    server: KubeflowPipelines, terminal: Terminal, environment: dict[str, str], said: str
) -> None:
    commands = [("schedule", "apply"), ("schedule", "diff")]
    if not environment.keys() & {"GOALRANK_CRON", "GOALRANK_TIME_ZONE"}:
        commands += [("submit", "--date", "2026-01-05"), ("backfill", "--from", "2026-01-05", "--to", "2026-01-06")]
    for words in commands:
        document = terminal.json(*words, **environment)
        assert (document["exit_code"], said in document["reason"]) == (EXIT_USAGE, True), document
    assert server.connections == 0


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("TRACKING_URI", "postgresql://bob:hunter2@db/mlflow", "postgresql://...@db/mlflow"),
        ("TRACKING_URI", "https://bob:hunter2/7@x@mlflow.example", "https://...@mlflow.example"),
        ("TRACKING_URI", "postgresql://db/mlflow?user=bob&password=hunter2", "user=bob&password=..."),
        ("PROMETHEUS", "http://bob:hunter2@prom:9090", "http://...@prom:9090"),
        ("PROMETHEUS", "http://prom:9090?api_key=hunter2", "?api_key=..."),
        ("PROMETHEUS", "bob:hunter2@prom:9090", "...@prom:9090"),
        ("SPARK_MASTER", "spark://bob:hunter2@spark:7077", "spark://...@spark:7077"),
        ("LOGS_URI", "s3://bob:hunter2@bucket/logs", "s3://...@bucket/logs"),
    ],
)
def test_a_password_goes_into_no_parameter(
    server: KubeflowPipelines, terminal: Terminal, name: str, value: str, shown: str
) -> None:
    for words in (("schedule", "apply"), ("schedule", "diff"), ("submit", "--date", "2026-01-05")):
        end = terminal.type(*words, "--json", **{f"GOALRANK_{name}": value})
        reason = end.document["reason"]
        assert (end.code, f"GOALRANK_{name} '" in reason, shown in reason) == (EXIT_USAGE, True, True), reason
        assert "Secret" in reason and "docs/deploy.md, step 3" in reason
        assert "hunter2" not in end.out + end.err
    assert server.connections == 0


@pytest.mark.parametrize(
    "given",
    [
        {"gpus": 0, "train_processes": 4},
        {"gpus": 4, "train_processes": 4},
        {"gpus": 2, "train_processes": 1},
        {
            "logs_uri": "/workspace/team@x/logs",
            "snapshots_uri": "file:///workspace/team@x/snapshots",
            "journal_uri": "/workspace",
        },
        {"tracking_uri": "HTTP://mlflow:5000", "service_account": "", "volume_claim": "a.b-1"},
        {"spark_master": "k8s://https://kubernetes.default.svc"},
        {"spark_master": "spark://one:7077,two:7077"},
        {"spark_master": "local[*]"},
        {"canary_service": "another", "prometheus": "https://prom.example/prometheus"},
    ],
    ids=str,
)
def test_what_a_cluster_can_work_with(given: dict[str, Any]) -> None:
    """Another InferenceService than the base's too: an overlay may rename it, and the promoter's role with it."""
    require_cluster(Settings(**given))
