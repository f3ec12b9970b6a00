"""The compiled pipeline is the source's own, and the console shows the steps it has."""

from __future__ import annotations

import ast
import functools
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.the_night import RUN_VARIABLE
from console import night
from console.settings import Settings
from goalrank_platform import root
from pipelines import STEPS
from pipelines.cluster import (
    CACHED,
    FEAST_KEYS,
    FEAST_LABEL,
    FEAST_SECRET,
    FEAST_STEPS,
    FIRST_AND_LAST,
    NOTIFY_SECRET,
    PROMOTER_SECRET,
    RETRIES,
    SIZES,
    TRAINING,
    USER,
    Cluster,
    compile_cluster,
)
from pipelines.compile import COMPILED, compile_nightly
from pipelines.nightly import nightly

PINNED = "registry.example/goalrank@sha256:" + "0123456789abcdef" * 4


def test_compiled_file_is_up_to_date(tmp_path: Path) -> None:
    compile_nightly(tmp_path / "nightly.yaml")
    fresh = (tmp_path / "nightly.yaml").read_text()
    assert (COMPILED / "nightly.yaml").read_text() == fresh, "run `make compile` and commit the result"


def test_every_step_is_in_the_pipeline() -> None:
    spec = next(yaml.safe_load_all((COMPILED / "nightly.yaml").read_text()))
    executors = {name.removeprefix("exec-").replace("-", "_") for name in spec["deploymentSpec"]["executors"]}
    assert executors == set(STEPS)


def test_promotion_hangs_on_a_condition_over_the_gate() -> None:
    spec = next(yaml.safe_load_all((COMPILED / "nightly.yaml").read_text()))
    dags = [component["dag"]["tasks"] for component in spec["components"].values() if "dag" in component]
    conditions = [
        task["triggerPolicy"]["condition"] for tasks in dags for task in tasks.values() if "triggerPolicy" in task
    ]
    assert any("gate-promotion" in condition and "== true" in condition for condition in conditions)


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pipeline spec, and by step what Kubernetes is told about its pod."""
    spec, platform = yaml.safe_load_all(path.read_text())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return spec, {name.removeprefix("exec-").replace("-", "_"): pod for name, pod in pods.items()}


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task that is a step, wherever in the pipeline it stands."""
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    found = {name.replace("-", "_"): task for dag in dags for name, task in dag["tasks"].items()}
    return {name: task for name, task in found.items() if name in STEPS}


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    executors = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-").replace("-", "_"): each["container"] for name, each in executors.items()}


def test_the_clusters_file_is_up_to_date_and_the_local_one_untouched_by_it(tmp_path: Path) -> None:
    compile_cluster(tmp_path / "cluster.yaml")
    fresh = (tmp_path / "cluster.yaml").read_text()
    assert (COMPILED / "nightly_cluster.yaml").read_text() == fresh, "run `make compile` and commit the result"
    compile_nightly(tmp_path / "nightly.yaml")
    assert (COMPILED / "nightly.yaml").read_text() == (tmp_path / "nightly.yaml").read_text()


def test_which_night_it_is_is_said_by_the_first_step_alone() -> None:
    """A step that asked for itself could mean another day, after midnight, or another folder."""
    spec, pods = documents(COMPILED / "nightly_cluster.yaml")
    for step, task in tasks(spec).items():
        given = task["inputs"]["parameters"]
        for name, output in (("date", "night"), ("run_uri", "folder")):
            if name in given:
                first = step in ("check_logs", "publish_report")
                assert (f"check-logs-{output}" in str(given[name]) or output in str(given[name])) != first, (step, name)
        told = [each["name"] for each in pods[step].get("fieldPathAsEnv", [])]
        assert told == ([RUN_VARIABLE] if step in FIRST_AND_LAST else []), step


def test_the_cluster_runs_the_same_night() -> None:
    """What is wired, and the code of every step, is the local night's own."""
    local = next(yaml.safe_load_all((COMPILED / "nightly.yaml").read_text()))
    there, _ = documents(COMPILED / "nightly_cluster.yaml")
    assert there["root"]["inputDefinitions"] == local["root"]["inputDefinitions"]
    ours, theirs = tasks(local), tasks(there)
    assert set(ours) == set(theirs) == set(STEPS)
    for step, task in ours.items():
        for part in ("inputs", "dependentTasks", "triggerPolicy"):
            assert task.get(part) == theirs[step].get(part), (step, part)
        assert containers(local)[step]["command"] == containers(there)[step]["command"]


def test_what_every_pod_is_given() -> None:
    spec, pods = documents(COMPILED / "nightly_cluster.yaml")
    assert set(pods) == set(SIZES) - {"join_groups"} == set(STEPS)
    for step, pod in pods.items():
        assert int(pod["activeDeadlineSeconds"]) == SIZES[step].hours * 3600
        assert pod["securityContext"] == {"runAsUser": str(USER), "runAsGroup": str(USER), "runAsNonRoot": True}
        assert [mount["constant"] for mount in pod["pvcMount"]] == [Cluster().volume_claim]
        retry = tasks(spec)[step]["retryPolicy"]
        assert (retry["maxRetryCount"], retry["backoffDuration"], retry["backoffFactor"]) == (RETRIES, "120s", 2.0)
        assert "enableCache" not in tasks(spec)[step]["cachingOptions"] or step in CACHED
        secrets = {secret["secretName"]: secret.get("optional", False) for secret in pod.get("secretAsEnv", [])}
        assert (NOTIFY_SECRET[0] in secrets) == (step == "publish_report")
        assert [name for name, optional in secrets.items() if optional] in ([], [NOTIFY_SECRET[0]])
        gpu = "accelerator" in containers(spec)[step]["resources"]
        assert gpu == ("tolerations" in pod) == ("nodeSelector" in pod) == (step in TRAINING)


def test_the_feature_store_is_opened_by_its_steps_alone() -> None:
    """Its passwords, its kind and the label that the network policies know are these steps' and no other's."""
    spec, pods = documents(COMPILED / "nightly_cluster.yaml")
    assert pods.keys() >= FEAST_STEPS
    for step, pod in pods.items():
        given = {
            (secret["secretName"], key["secretKey"], key["envVar"])
            for secret in pod.get("secretAsEnv", [])
            for key in secret["keyToEnv"]
            if secret["secretName"] != NOTIFY_SECRET[0]
        }
        labels = pod.get("podMetadata", {}).get("labels", {})
        told = {each["name"]: each["value"] for each in containers(spec)[step]["env"]}
        found = (given, labels, told.get("GOALRANK_FEATURE_STORE"))
        opens = ({(FEAST_SECRET, key, key) for key in FEAST_KEYS}, dict([FEAST_LABEL]), "cluster")
        assert found == (opens if step in FEAST_STEPS else (set(), {}, None)), step


def test_every_step_whose_code_reaches_the_feature_store_is_named() -> None:
    """From component.py on, which is what kfp calls."""
    entries = {step: f"components.{step}.component" for step in SIZES}
    assert all(imported(entry) for entry in entries.values())
    assert {step for step, entry in entries.items() if "components.feature_store" in reached(entry)} == FEAST_STEPS


def reached(module: str) -> set[str]:
    """Modules of components that one imports, itself or through others."""
    found, to_read = set[str](), [module]
    while to_read:
        name = to_read.pop()
        if name not in found and name.startswith("components."):
            found.add(name)
            to_read += imported(name)
    return found


@functools.cache
def imported(module: str) -> list[str]:
    """What one module of ours imports, inside functions too; nothing where a name is no module's."""
    path = root().joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else ():
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def test_a_night_on_this_machine_is_told_every_setting(tmp_path: Path) -> None:
    """As tests/cluster/test_schedule.py says of the cluster's."""
    given = night._parameters(Settings(group_plan="own=4", objective="temperature=1"), tmp_path, full_rebuild=True)
    assert (given["group_plan"], given["objective"]) == ("own=4", "temperature=1")
    elsewhere = {"date", "run_uri", "workspace_uri"}  # of the night itself; of a cluster
    assert given.keys() | elsewhere == set(inspect.signature(nightly.pipeline_func).parameters)


def test_both_steps_that_make_groups_are_told_the_plan() -> None:
    """The helpers' half is made by one, the ranker's own by the other; and Kubeflow's cache sees another plan."""
    spec = next(yaml.safe_load_all((COMPILED / "nightly.yaml").read_text()))
    assert spec["root"]["inputDefinitions"]["parameters"]["group_plan"]["defaultValue"] == ""
    for step in ("generate_groups", "train_ranker"):
        assert "group_plan" in str(tasks(spec)[step]["inputs"]["parameters"]["group_plan"]["componentInputParameter"])
    objective = tasks(spec)["train_ranker"]["inputs"]["parameters"]["objective"]["componentInputParameter"]
    assert "objective" in str(objective)


def test_what_is_cached_is_keyed_by_the_snapshot() -> None:
    spec, _ = documents(COMPILED / "nightly_cluster.yaml")
    for step in TRAINING:
        given = tasks(spec)[step]["inputs"]["parameters"]["snapshot_id"]
        assert "extract-features" in str(given), step


def test_a_cluster_of_other_shape(tmp_path: Path) -> None:
    other = Cluster(PINNED, PINNED, PINNED, gpus=0, volume_claim="elsewhere")
    compile_cluster(tmp_path / "cluster.yaml", other)
    spec, pods = documents(tmp_path / "cluster.yaml")
    assert {container["image"] for container in containers(spec).values()} == {PINNED}
    assert all(pod["pvcMount"][0]["constant"] == "elsewhere" for pod in pods.values())
    assert not any("tolerations" in pod for pod in pods.values())


def test_groups_in_parts(tmp_path: Path) -> None:
    """A pod for each part, with all that the one pod has; who puts them together needs no GPU."""
    compile_cluster(tmp_path / "cluster.yaml", Cluster(group_parts=3))
    spec, pods = documents(tmp_path / "cluster.yaml")
    assert set(pods) == set(SIZES) == {*STEPS, "join_groups"}
    one, _ = documents(COMPILED / "nightly_cluster.yaml")
    assert spec["root"]["inputDefinitions"] == one["root"]["inputDefinitions"]
    dags = [part["dag"]["tasks"] for part in [spec["root"], *spec["components"].values()] if "dag" in part]
    (loop,) = [task for each in dags for task in each.values() if "parameterIterator" in task]
    assert json.loads(loop["parameterIterator"]["items"]["raw"]) == [0, 1, 2]
    every = {name: task for each in dags for name, task in each.items()}
    assert every["generate-groups"]["inputs"]["parameters"]["parts"]["runtimeValue"]["constant"] == 3
    assert "join-groups" in str(every["train-ranker"]["inputs"]["artifacts"]["groups"])
    assert "join-groups" in str(every["register-model"]["inputs"]["artifacts"]["groups"])
    assert "nodeSelector" in pods["generate_groups"] and "nodeSelector" not in pods["join_groups"]
    assert pods["join_groups"]["pvcMount"] == pods["generate_groups"]["pvcMount"]
    assert FEAST_SECRET not in str(pods["join_groups"])
    compile_cluster(tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == (COMPILED / "nightly_cluster.yaml").read_text(), "one piece again"


def test_a_step_nobody_gave_a_size_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SIZES, "train_ranker")
    with pytest.raises(KeyError, match="train_ranker"):
        compile_cluster(tmp_path / "cluster.yaml")


def test_a_canary_is_promote_models_alone(tmp_path: Path) -> None:
    """Its account too: what may change serving is seen by no step that runs training code."""
    compile_cluster(tmp_path / "cluster.yaml", Cluster(canary_service="ranker", prometheus="http://prometheus:9090"))
    spec, pods = documents(tmp_path / "cluster.yaml")
    mounted = {step: [each["secretName"] for each in pod.get("secretAsVolume", [])] for step, pod in pods.items()}
    assert {step: names for step, names in mounted.items() if names} == {"promote_model": [PROMOTER_SECRET]}
    for step, container in containers(spec).items():
        told = {each["name"]: each["value"] for each in container["env"]}
        assert (told.get("GOALRANK_CANARY_SERVICE") == "ranker") == (step == "promote_model")
    assert not any("secretAsVolume" in pod for pod in documents(COMPILED / "nightly_cluster.yaml")[1].values())
