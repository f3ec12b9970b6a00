"""What a cluster calls its GPUs is a setting: it reaches the pods of one machine and the TrainJob of several."""

from __future__ import annotations

from typing import Any

import pytest

from components.train_ranker.train_job_manifest import Machines, manifest
from console.gpu_nodes import gpu_nodes
from console.kubeflow import desired
from console.settings import Settings
from goalrank.errors import UsageError
from pipelines.cluster import TRAINING, Cluster
from tests.pipeline.test_compiled import containers, documents

IMAGES = dict.fromkeys(("data_image", "train_image", "serving_image"), f"registry.example/g@sha256:{'0' * 64}")
OTHERS = {
    "GOALRANK_GPU_RESOURCE": "nvidia.com/mig-3g.40gb",
    "GOALRANK_GPU_TAINT": "sku",
    "GOALRANK_GPU_NODE_LABEL": "cloud.example.org/accelerator=a100",
}
NONE = {"GOALRANK_GPU_TAINT": "", "GOALRANK_GPU_NODE_LABEL": ""}


def night(told: dict[str, str], monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Any, Any]:
    """The compiled night as an environment of such variables makes it: the spec, and each step's pod."""
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with desired(Settings(**IMAGES, **more)) as wanted:
        return documents(wanted.package)


@pytest.mark.parametrize(
    ("told", "resource", "taint", "label"),
    [
        ({}, "nvidia.com/gpu", "nvidia.com/gpu", {"nvidia.com/gpu.present": "true"}),
        (OTHERS, "nvidia.com/mig-3g.40gb", "sku", {"cloud.example.org/accelerator": "a100"}),
        (
            OTHERS | {"GOALRANK_GPU_NODE_LABEL": "node-role.example.org/gpu="},
            None,
            None,
            {"node-role.example.org/gpu": ""},
        ),
        (NONE, "nvidia.com/gpu", None, None),
    ],
    ids=["by default", "others", "a label without a value", "no taint, no label"],
)
def test_of_one_machine_and_of_several(
    told: dict[str, str],
    resource: str | None,
    taint: str | None,
    label: dict[str, str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource, taint = (resource or OTHERS["GOALRANK_GPU_RESOURCE"]), (taint or told.get("GOALRANK_GPU_TAINT"))
    tolerations = [{"key": taint, "operator": "Exists", "effect": "NoSchedule"}] if taint else None
    spec, pods = night(told, monkeypatch, gpus=2)
    for step in TRAINING:
        accelerator = containers(spec)[step]["resources"]["accelerator"]
        assert (accelerator["resourceType"], accelerator["resourceCount"]) == (resource, "2")
        assert pods[step].get("tolerations") == tolerations, step
        assert pods[step].get("nodeSelector", {}).get("labels") == label, step
    spec, _ = night(told, monkeypatch, gpus=2, train_nodes=3)
    variables = {each["name"]: each.get("value", "") for each in containers(spec)["train_ranker"]["env"]}
    machines = Machines.of(variables, 2)
    assert machines is not None
    job = manifest("x", machines, {})["spec"]
    assert job["trainer"]["resourcesPerNode"]["limits"][resource] == "2"
    patched = job["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = patched["template"]["spec"]["template"]["spec"]
    assert (pod.get("tolerations"), pod.get("nodeSelector")) == (tolerations, label)


def test_settings_and_pipeline_mean_the_same_without_being_told() -> None:
    fields = gpu_nodes(Settings())
    assert fields == {name: getattr(Cluster(), name) for name in fields}


@pytest.mark.parametrize(
    "text", ["gpu", "", "nvidia.com/", "/gpu", "a/b/c", "requests.nvidia.com/gpu", "x.kubernetes.io/gpu"]
)
def test_no_resource_of_a_device(text: str) -> None:
    with pytest.raises(UsageError, match="GOALRANK_GPU_RESOURCE .* expected a device plugin's resource"):
        gpu_nodes(Settings(gpu_resource=text))


@pytest.mark.parametrize("text", ["sku=gpu:NoSchedule", "sku=gpu", "a b", "-x", "x" * 64, "Up.Case/x", " "])
def test_no_key_of_a_taint(text: str) -> None:
    with pytest.raises(UsageError, match="GOALRANK_GPU_TAINT .* expected a taint's key alone"):
        gpu_nodes(Settings(gpu_taint=text))


@pytest.mark.parametrize("text", ["gpu", "=true", "a=b=c", "gpu: true", "a/b/c=d", "gpu=-", f"gpu={'x' * 64}"])
def test_no_label(text: str) -> None:
    with pytest.raises(UsageError, match="GOALRANK_GPU_NODE_LABEL .* expected KEY=VALUE"):
        gpu_nodes(Settings(gpu_node_label=text))
