"""A Spark session of ours through the Kubernetes scheduler of Spark: pods asked for, admitted, run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from components import spark, spark_on_kubernetes
from components.step import Step
from tests import lacking
from tests.cluster import pods_server
from tests.cluster.pods_server import DRIVER, NAMESPACE, TOKEN
from tests.cluster.rendered import K8S
from tests.cluster.test_spark_on_kubernetes import TOLD

SPARK = K8S / "components" / "spark"


@pytest.fixture(scope="module", autouse=True)
def java() -> None:
    """Without it Spark cannot start."""
    if shutil.which("java") is None:
        lacking.skip("java is missing, Spark cannot start")


def test_a_job_runs_on_executors_that_kubernetes_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = tmp_path / "account"
    account.mkdir()
    for name, content in (("token", TOKEN), ("namespace", NAMESPACE)):
        (account / name).write_text(content)
    given = TOLD | {spark_on_kubernetes.ADDRESS: "127.0.0.1", spark_on_kubernetes.POD: DRIVER}
    given |= {spark_on_kubernetes.EXECUTORS: "1", spark_on_kubernetes.CORES: "1"}
    original = spark_on_kubernetes.configuration

    def configuration(folder: Path) -> dict[str, str]:
        found = original(folder, given, account)
        del found["spark.kubernetes.authenticate.caCertFile"]  # plain HTTP here
        # Watches are not spoken by this server; the driver polls as well.
        return found | {
            "spark.kubernetes.executor.enableApiWatcher": "false",
            "spark.kubernetes.executor.apiPollingInterval": "2s",
        }

    monkeypatch.setattr(spark_on_kubernetes, "configuration", configuration)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    with pods_server.serving(tmp_path, granted()) as server:
        master = f"k8s://{server.host}"
        with (
            Step("extract_features", str(tmp_path / "run")) as step,
            spark.spark_session(step, master, "512m") as session,
        ):
            total = session.range(0, 1000, numPartitions=4).selectExpr("sum(id)").first()[0]
        assert total == 499500
        assert server.refused == []
        (pod,) = server.taken
        assert pod["spec"]["serviceAccountName"] == spark_on_kubernetes.EXECUTOR
        told_back = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
        assert f"@127.0.0.1:{spark_on_kubernetes.DRIVER_PORT}" in told_back["SPARK_DRIVER_URL"]
        assert pod["metadata"]["ownerReferences"][0]["name"] == DRIVER
        assert server.processes[pod["metadata"]["name"]].wait(60) is not None, "an executor ends with its step"
        assert ("pods", "create") in server.asked
        refused = {kind for kind, _ in server.asked - granted()}
        assert refused <= {"persistentvolumeclaims"}, "which a driver asks for as it ends, though it made none"


def granted() -> set[tuple[str, str]]:
    """What the component's role lets the night's account do."""
    (role,) = [one for one in yaml.safe_load_all((SPARK / "access.yaml").read_text()) if one["kind"] == "Role"]
    return {(kind, verb) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
