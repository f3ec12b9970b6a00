"""The memory that Spark is given by a setting: every step that starts it is told, and its pod has room for it."""

from __future__ import annotations

import pytest

from components.feature_store import read_config
from components.spark_memory import DEFAULT_MEMORY, LEAST, OFF_HEAP, mebibytes, pod_memory
from console.kubeflow import desired
from console.settings import Settings
from goalrank.errors import UsageError
from pipelines.cluster import SIZES, SPARK_STEPS
from tests.cluster.test_gpu_nodes import IMAGES
from tests.pipeline.test_compiled import containers, documents

MASTERS = ["k8s://https://kubernetes.default.svc", "spark://spark.example.org:7077", "local[2]"]
DRIVER, EXECUTOR = "GOALRANK_SPARK_MEMORY", "GOALRANK_SPARK_EXECUTOR_MEMORY"


def quantity(memory: str) -> float:
    """Mi of a Kubernetes quantity."""
    return float(memory[:-2]) * {"Gi": 1024, "Mi": 1}[memory[-2:]]


@pytest.mark.parametrize("executor", ["", "6g"])
@pytest.mark.parametrize("master", MASTERS)
def test_every_step_that_starts_spark_is_told_and_has_it(
    master: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's configuration takes it from the environment, the other steps from the pipeline's parameter: one value."""
    for name, value in {DRIVER: "12g", EXECUTOR: executor, "GOALRANK_SPARK_MASTER": master}.items():
        monkeypatch.setenv(name, value)
    with desired(Settings(**IMAGES)) as wanted:
        assert wanted.parameters["spark_memory"] == "12g"
        spec, pods = documents(wanted.package)
    assert pods.keys() >= SPARK_STEPS
    for step, container in containers(spec).items():
        told = {each["name"]: each["value"] for each in container["env"] if each["name"] in (DRIVER, EXECUTOR)}
        starts = step in SPARK_STEPS
        assert told == ({DRIVER: "12g", EXECUTOR: executor or "12g"} if starts else {}), step
        given, more = container["resources"], (12 - 1) * 1024 * (1 + OFF_HEAP) if starts else 0
        assert given["resourceMemoryRequest"] == given["resourceMemoryLimit"]
        assert quantity(given["resourceMemoryLimit"]) == pytest.approx(quantity(SIZES[step].memory) + more, abs=1), step


def test_feast_has_what_the_step_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOALRANK_FEAST_REGISTRY", "GOALRANK_REDIS"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv(DRIVER, "12g")
    conf = read_config("/workspace/feast", "cluster")["offline_store"]["spark_conf"]
    assert conf["spark.driver.memory"] == "12g"


def test_a_pod_is_never_smaller_than_its_driver() -> None:
    assert pod_memory("4Gi", DEFAULT_MEMORY) == pod_memory("4Gi", f"{LEAST}m") == "4Gi"
    assert pod_memory("4Gi", "2048M") == pod_memory("4Gi", "2g") == f"{4096 + 1126}Mi"
    for driver in ("1g", "3g", "32g", "200gb"):
        assert quantity(pod_memory("4Gi", driver)) > (1 + OFF_HEAP) * mebibytes(DRIVER, driver) + 2048


@pytest.mark.parametrize("amount", ["4", "4.5g", "-1g", "4Gi", " 4g", "4 g", "449m", "0g", "٤g", "much"])
@pytest.mark.parametrize("name", [DRIVER, EXECUTOR])
def test_what_spark_would_not_take_is_refused_before_anything_is_compiled(
    name: str, amount: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, amount)
    with pytest.raises(UsageError) as refused:
        Settings()
    assert str(refused.value) == (
        f"{name} {amount!r} found, expected a whole number of m or g from {LEAST}m, such as 4g"
    )


def test_the_driver_has_some_and_executors_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTOR, "")
    assert Settings().spark_executor_memory == ""
    monkeypatch.setenv(DRIVER, "")
    with pytest.raises(UsageError, match=f"{DRIVER} '' found"):
        Settings()
