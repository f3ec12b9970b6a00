"""Every pod meets the Pod Security Standard `restricted`, which its namespace enforces; and the check can fail."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.rendered import K8S, ROOT, Object, name_of, of_kind, pods, render, selects
from tests.cluster.restricted import violations
from tests.cluster.schemas import is_core, problems

MODES = ("enforce", "audit", "warn")
"""Of Pod Security admission."""


def test_pods_are_restricted(objects: list[Object]) -> None:
    found = pods(objects)
    assert len(found) >= 5
    assert {pod.owner: bad for pod in found if (bad := violations(pod.spec))} == {}


def test_the_namespace_enforces_it(objects: list[Object]) -> None:
    (namespace,) = of_kind(objects, "Namespace")
    levels = {
        mode: namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn")
    }
    assert set(levels.values()) == {"restricted"}


def test_an_older_kubeflow_is_a_component_of_the_overlay(tmp_path: Path) -> None:
    """Not a label put on by hand, which the next `kubectl apply -k` would take off."""
    to = os.path.relpath(K8S, tmp_path.resolve())
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "goalrank-prod"}
    parts = {"resources": [f"{to}/base"], "components": [f"{to}/components/baseline-pods"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(head | parts))
    rendered = render(tmp_path)
    (namespace,) = of_kind(rendered, "Namespace")
    levels = {mode: namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in MODES}
    assert levels == {"enforce": "baseline", "audit": "restricted", "warn": "restricted"}
    assert [problem for one in rendered if is_core(one) for problem in problems(one)] == []
    policies = {name_of(policy): policy["spec"] for policy in of_kind(rendered, "NetworkPolicy")}
    assert "NetworkPolicy/artifact-previews" in policies
    run = {"workflows.argoproj.io/workflow": "goalrank-nightly-x"}
    stores = {"redis": 6379, "postgres": 5432}
    way = policies["NetworkPolicy/night-to-stores"]
    assert selects(way["podSelector"], run)
    for rule, (store, port) in zip(way["egress"], stores.items(), strict=True):
        assert selects(rule["to"][0]["podSelector"], {"app.kubernetes.io/name": store})
        (into,) = policies[f"NetworkPolicy/{store}-from-night"]["ingress"]
        assert selects(into["from"][0]["podSelector"], run)
        assert [each["port"] for each in (*rule["ports"], *into["ports"])] == [port, port]
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert "../../components/baseline-pods" in page and "kubectl label namespace" not in page


def test_roots_are_read_only_and_sizes_are_said(objects: list[Object]) -> None:
    """Beyond the standard: what is written goes to a volume of a stated size, and no container takes all of a node."""
    for pod in pods(objects):
        for container in pod.containers:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, pod.owner
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, pod.owner
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}, pod.owner
        for volume in pod.spec.get("volumes", []):
            assert "emptyDir" not in volume or volume["emptyDir"].get("sizeLimit"), (pod.owner, volume["name"])


GOOD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "main",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """GOOD with one value changed; None takes it away."""
    pod = copy.deepcopy(GOOD)
    at: Any = pod
    for step in path[:-1]:
        at = at[step] if isinstance(at, list) else at.setdefault(step, {})
    if to is None:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return pod


CONTAINER = ("containers", 0)
CONTEXT = (*CONTAINER, "securityContext")
BAD = [
    (changed("hostNetwork", to=True), "hostNetwork is set"),
    (changed("hostPID", to=True), "hostPID is set"),
    (changed("hostIPC", to=True), "hostIPC is set"),
    (changed("volumes", to=[{"name": "v", "hostPath": {"path": "/"}}]), "volume v is a hostPath"),
    (changed("volumes", to=[{"name": "v", "nfs": {}}]), "volume v is a nfs"),
    (changed("containers", to=[]), "no containers"),
    (changed("initContainers", to=[{"name": "first"}]), "first: allowPrivilegeEscalation is not false"),
    (changed("ephemeralContainers", to=[{"name": "late"}]), "late: capabilities are not all dropped"),
    (changed("securityContext", "runAsNonRoot", to=None), "main: runAsNonRoot is not true"),
    (changed(*CONTEXT, "runAsNonRoot", to=False), "main: runAsNonRoot is not true"),
    (changed("securityContext", "runAsUser", to=0), "the pod's runAsUser is 0"),
    (changed(*CONTEXT, "runAsUser", to=0), "main: its runAsUser is 0"),
    (changed("securityContext", "seccompProfile", to=None), "main: seccompProfile is neither"),
    (changed(*CONTEXT, "seccompProfile", to={"type": "Unconfined"}), "main: seccompProfile is neither"),
    (changed("securityContext", "seccompProfile", to={"type": "Unconfined"}), "the pod's seccompProfile is"),
    (changed("securityContext", "sysctls", to=[{"name": "kernel.msgmax"}]), "sysctl kernel.msgmax"),
    (changed("securityContext", "seLinuxOptions", to={"user": "root"}), "the pod's seLinuxOptions is"),
    (changed("securityContext", "appArmorProfile", to={"type": "Unconfined"}), "the pod's appArmorProfile is"),
    (changed("securityContext", "windowsOptions", to={"hostProcess": True}), "the pod's windowsOptions is"),
    (changed(*CONTEXT, "privileged", to=True), "main: privileged"),
    (changed(*CONTEXT, "allowPrivilegeEscalation", to=None), "main: allowPrivilegeEscalation is not false"),
    (changed(*CONTEXT, "allowPrivilegeEscalation", to=True), "main: allowPrivilegeEscalation is not false"),
    (changed(*CONTEXT, "capabilities", to=None), "main: capabilities are not all dropped"),
    (changed(*CONTEXT, "capabilities", "drop", to=["NET_RAW"]), "main: capabilities are not all dropped"),
    (changed(*CONTEXT, "capabilities", "add", to=["SYS_ADMIN"]), "main: capabilities SYS_ADMIN are added"),
    (changed(*CONTEXT, "procMount", to="Unmasked"), "main: procMount is not Default"),
    (changed(*CONTAINER, "ports", to=[{"containerPort": 1, "hostPort": 1}]), "main: a hostPort is taken"),
    (changed(*CONTAINER, "livenessProbe", to={"httpGet": {"host": "10.0.0.1"}}), "main: a probe or hook names a host"),
    (changed(*CONTAINER, "lifecycle", to={"preStop": {"tcpSocket": {"host": "x"}}}), "main: a probe or hook names"),
]


def test_a_good_pod_passes() -> None:
    assert violations(GOOD) == []
    assert violations(changed(*CONTEXT, "capabilities", "add", to=["NET_BIND_SERVICE"])) == []


@pytest.mark.parametrize(("pod", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_pod_is_told(pod: dict[str, Any], reason: str) -> None:
    assert any(found.startswith(reason) for found in violations(pod)), violations(pod)
