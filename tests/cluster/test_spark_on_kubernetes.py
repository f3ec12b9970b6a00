"""Executors as a step's pod asks for them: settings that Spark knows, pods that are admitted, rights and ports.

No API server is asked. What Spark adds to a pod is written down here from its documentation.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pyspark
import pytest
import yaml

from components import spark_executor
from components import spark_on_kubernetes as spark
from components.images import DATA_IMAGE, SERVING_IMAGE
from components.spark_executor import BACKEND, FLAGS, command
from goalrank.errors import UsageError
from pipelines.cluster import SPARK_STEPS, Cluster, compile_cluster
from pipelines.compile import COMPILED
from tests import lacking
from tests.cluster.pods_server import doubled
from tests.cluster.rendered import K8S, ROOT, Object, of_kind, render, selects
from tests.cluster.restricted import violations
from tests.cluster.schemas import problems
from tests.pipeline.test_compiled import containers, documents

JARS = Path(pyspark.__file__).parent / "jars"
MASTER = "k8s://https://kubernetes.default.svc"
TOLD = {
    spark.IMAGE: "registry.example/goalrank/data@sha256:" + "0" * 64,
    spark.EXECUTORS: "3",
    spark.CORES: "2",
    spark.CLAIM: "goalrank-workspace",
    spark.ADDRESS: "10.0.0.7",
    spark.POD: "the-night-check-logs",
}
SPARKS_OWN = {"spark-role": "executor", "spark-app-selector": "spark-1"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "account").mkdir()
    (tmp_path / "account" / "namespace").write_text("goalrank-prod")
    return tmp_path / "account"


def pod() -> Object:
    """The executor's pod, our template and what Spark sets of it by these settings."""
    made = copy.deepcopy(spark.pod_template())
    made["metadata"] = {"name": "e-1", "labels": {**SPARKS_OWN, "app.kubernetes.io/name": spark.EXECUTOR}}
    (container,) = made["spec"]["containers"]
    container |= {
        "image": TOLD[spark.IMAGE],
        "args": ["executor"],
        "env": [{"name": name, "value": "1"} for name in FLAGS.values()],
        "ports": [{"name": "blockmanager", "containerPort": spark.BLOCKS_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "2", "memory": "1408Mi"}, "limits": {"cpu": "2", "memory": "1408Mi"}},
    }
    container["volumeMounts"].append({"name": "workspace", "mountPath": spark.WORKSPACE})
    claim = {"name": "workspace", "persistentVolumeClaim": {"claimName": TOLD[spark.CLAIM]}}
    made["spec"]["volumes"].append(claim)
    made["spec"]["restartPolicy"] = "Never"
    return made


def test_the_settings(account: Path, tmp_path: Path) -> None:
    found = spark.configuration(tmp_path, TOLD, account)
    assert found["spark.kubernetes.namespace"] == "goalrank-prod"
    assert spark.LOCAL_DIR.startswith("spark-local-dir-"), "or Spark mounts a second volume at the same path"
    assert found["spark.driver.host"] == TOLD[spark.ADDRESS] and found["spark.executor.instances"] == "3"
    assert found["spark.kubernetes.driver.pod.name"] == TOLD[spark.POD], "executors go with the step's pod"
    template = json.loads(Path(found["spark.kubernetes.executor.podTemplateFile"]).read_text())
    assert template == spark.pod_template()
    (container,) = template["spec"]["containers"]
    assert container["name"] == found["spark.kubernetes.executor.podTemplateContainerName"]
    assert not any("token" in value and "/" not in value for value in found.values())


@pytest.mark.parametrize("name", TOLD)
def test_what_is_not_told_is_named(account: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"but not {name}"):
        spark.configuration(tmp_path, {key: value for key, value in TOLD.items() if key != name}, account)
    with pytest.raises(UsageError, match="namespace: executors are asked for from a step's pod"):
        spark.configuration(tmp_path, TOLD, tmp_path / "nowhere")


def test_this_release_of_spark_knows_the_settings(account: Path, tmp_path: Path) -> None:
    """A name it does not know would be ignored without a word."""
    known = b""
    for jar in (*JARS.glob("spark-kubernetes_*.jar"), *JARS.glob("spark-core_*.jar"), *JARS.glob("spark-common*.jar")):
        with zipfile.ZipFile(jar) as classes:
            names = [name for name in classes.namelist() if re.search(r"(k8s/Config|config/package)\$?\.class$", name)]
            known += b"".join(classes.read(name) for name in names)
    families = ("spark.kubernetes.executor.label.", "spark.kubernetes.executor.volumes.")
    prefix = "spark.kubernetes.authenticate."  # of which Spark keeps the ends apart
    for name in spark.configuration(tmp_path, TOLD, account):
        family = next((each for each in families if name.startswith(each)), name)
        assert family.removeprefix(prefix).encode() in known, name


def test_executors_are_admitted() -> None:
    assert problems(pod()) == []
    assert violations(pod()["spec"]) == [] and doubled(pod()["spec"]) == []
    (container,) = pod()["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod()["spec"]["automountServiceAccountToken"] is False, "an executor asks the API server for nothing"


@pytest.fixture(scope="module")
def with_spark(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """An environment whose nights use Spark on Kubernetes."""
    folder = tmp_path_factory.mktemp("overlay")
    to = os.path.relpath(K8S, folder.resolve())
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "goalrank-prod",
                "resources": [f"{to}/base"],
                "components": [f"{to}/components/spark"],
            }
        )
    )
    return render(folder)


def test_the_component_is_well_formed(with_spark: list[Object]) -> None:
    ours = [one for one in with_spark if "spark" in one["metadata"]["name"]]
    kinds = ["NetworkPolicy", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount"]
    assert sorted(one["kind"] for one in ours) == kinds
    assert {one["metadata"]["namespace"] for one in ours} == {"goalrank-prod"}
    assert [problem for one in ours for problem in problems(one)] == []
    (binding,) = of_kind(ours, "RoleBinding")
    assert [each["name"] for each in binding["subjects"]] == ["goalrank-night"]
    (role,) = of_kind(ours, "Role")
    assert all("*" not in [*rule["resources"], *rule["verbs"]] for rule in role["rules"])
    assert not {"secrets", "roles", "serviceaccounts", "pods/exec", "services", "persistentvolumeclaims"} & {
        name for rule in role["rules"] for name in rule["resources"]
    }


def test_executors_run_as_an_account_without_rights(with_spark: list[Object]) -> None:
    """`default` would do for a public image alone: a registry's password is given to accounts by name."""
    name = pod()["spec"]["serviceAccountName"]
    (account,) = [one for one in of_kind(with_spark, "ServiceAccount") if one["metadata"]["name"] == name]
    assert account["automountServiceAccountToken"] is False
    bound = {each["name"] for binding in of_kind(with_spark, "RoleBinding") for each in binding["subjects"]}
    assert name not in bound


def test_driver_and_executors_may_speak_and_to_nobody_else(with_spark: list[Object]) -> None:
    executor = pod()["metadata"]["labels"]
    driver = {"workflows.argoproj.io/workflow": "the-night"}
    policies = of_kind(with_spark, "NetworkPolicy")

    def ports(whose: dict[str, str], way: str, other: dict[str, str]) -> set[int]:
        rules = [
            rule
            for each in policies
            if selects(each["spec"]["podSelector"], whose)
            for rule in each["spec"].get(way, [])
        ]
        peer = "to" if way == "egress" else "from"
        return {
            port["port"]
            for rule in rules
            for each in rule.get(peer, [])
            if "podSelector" in each and "namespaceSelector" not in each and selects(each["podSelector"], other)
            for port in rule["ports"]
        }

    both = {spark.DRIVER_PORT, spark.BLOCKS_PORT}
    assert ports(executor, "egress", driver) == ports(driver, "ingress", executor) == both
    assert ports(driver, "egress", executor) == ports(executor, "ingress", driver) == {spark.BLOCKS_PORT}
    assert ports(executor, "egress", executor) == ports(executor, "ingress", executor) == {spark.BLOCKS_PORT}
    outside = [
        each
        for policy in policies
        if selects(policy["spec"]["podSelector"], executor)
        and policy["metadata"]["name"] not in ("default-deny", "names")
        for rule in policy["spec"].get("egress", [])
        for each in rule["to"]
    ]
    assert outside and all("ipBlock" not in each and "namespaceSelector" not in each for each in outside)


def test_every_step_that_starts_spark_is_told(tmp_path: Path) -> None:
    cluster = Cluster(spark_master=MASTER, spark_executors=3, spark_cores=2, spark_executor_memory="6g")
    compile_cluster(tmp_path / "cluster.yaml", cluster)
    spec, pods = documents(tmp_path / "cluster.yaml")
    for step, container in containers(spec).items():
        told = {each["name"]: each["value"] for each in container["env"]}
        fields = {each["name"]: each["fieldPath"] for each in pods[step].get("fieldPathAsEnv", [])}
        given = {name for name in TOLD if name in told or name in fields}
        assert given == (set(TOLD) if step in SPARK_STEPS else set()), step
        if step in SPARK_STEPS:
            assert (told[spark.IMAGE], told[spark.EXECUTORS], told["GOALRANK_SPARK_MASTER"]) == (
                DATA_IMAGE,
                "3",
                MASTER,
            )
            assert (fields[spark.ADDRESS], fields[spark.POD]) == ("status.podIP", "metadata.name")
            assert (told["GOALRANK_SPARK_MEMORY"], told["GOALRANK_SPARK_EXECUTOR_MEMORY"]) == ("1g", "6g")


def test_drivers_and_executors_have_one_release_of_spark() -> None:
    """Whatever image a step runs in: unpinned there, so that constraints.txt decides for both."""
    spec, _ = documents(COMPILED / "nightly_cluster.yaml")
    used = {containers(spec)[step]["image"] for step in SPARK_STEPS}
    assert used == {DATA_IMAGE, SERVING_IMAGE}
    for name in ("data", "serve"):
        lines = (ROOT / "components" / "images" / f"{name}.txt").read_text().splitlines()
        assert "pyspark" in lines, "without a version"
        assert (
            "--constraint /opt/pins/constraints.txt"
            in (ROOT / "components" / "images" / f"{name}.Dockerfile").read_text()
        )


def test_an_executor_is_started_as_spark_says() -> None:
    environment = {name: name.lower() for name in FLAGS.values()}
    environment |= {
        "SPARK_EXECUTOR_MEMORY": "2g",
        "SPARK_JAVA_OPT_10": "-Dten",
        "SPARK_JAVA_OPT_2": "-Dtwo",
        "OTHER": "x",
    }
    words = command(environment, Path("/jars"), "/java")
    assert words[:7] == ["/java", "-Dtwo", "-Dten", "-Xms2g", "-Xmx2g", "-cp", "/jars/*"]
    assert words[7] == BACKEND
    assert dict(zip(words[8::2], words[9::2], strict=True)) == {flag: name.lower() for flag, name in FLAGS.items()}
    with pytest.raises(SystemExit, match="SPARK_EXECUTOR_ID"):
        command({name: "x" for name in environment if name != "SPARK_EXECUTOR_ID"}, Path("/jars"), "/java")


def test_this_release_of_spark_knows_the_flags() -> None:
    """The class in pip's package, asked for something it does not know, says what it knows."""
    java = shutil.which("java")
    if java is None:
        lacking.skip("java is missing, Spark's executor cannot be asked for its flags")
    environment = dict.fromkeys((*FLAGS.values(), "SPARK_EXECUTOR_MEMORY"), "1") | {"SPARK_EXECUTOR_MEMORY": "64m"}
    words = [*command(environment, JARS, java), "--nonsense", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "Unrecognized options: --nonsense" in done.stdout + done.stderr
    known = set(re.findall(r"--[\w-]+", (done.stdout + done.stderr).partition("Unrecognized")[2]))
    assert set(FLAGS) - known <= {"--podName"}, known
    assert spark_executor.BACKEND in words
