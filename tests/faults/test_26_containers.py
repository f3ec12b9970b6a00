"""Containers without privileges: every pod of every environment, as `kubectl kustomize` renders it.

Held are the controls of the standard (tests/cluster/restricted.py) and what the point asks beyond it. That a kubelet
and a network plug-in enforce them, only a cluster can show (docs/deploy.md).
"""

from __future__ import annotations

import copy

import pytest

from tests.cluster.rendered import OVERLAYS, Object, name_of, of_kind, overlay, pods, selects
from tests.cluster.restricted import violations
from tests.faults.conftest import Seen

MAY_HOLD_A_TOKEN: frozenset[str] = frozenset()
"""Pods that Kubernetes mounts a token of their account into: none; promote_model's is mounted by the night itself."""


def faults_of(objects: list[Object]) -> list[str]:
    """What an environment lets a container do that it need not."""
    found = []
    accounts = {one["metadata"]["name"]: one for one in of_kind(objects, "ServiceAccount")}
    closed = [
        one["spec"]
        for one in of_kind(objects, "NetworkPolicy")
        if not one["spec"].get("ingress") and not one["spec"].get("egress")
    ]
    for pod in pods(objects):
        found += [f"{pod.owner}: {bad}" for bad in violations(pod.spec)]
        for container in pod.containers:
            context = container.get("securityContext", {})
            if context.get("readOnlyRootFilesystem") is not True:
                found.append(f"{pod.owner}: {container['name']} may write to its root")
            if context.get("capabilities", {}).get("add"):
                found.append(f"{pod.owner}: {container['name']} is given capabilities")
        account = accounts.get(pod.spec.get("serviceAccountName", ""), {})
        token = pod.spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
        if token and pod.owner not in MAY_HOLD_A_TOKEN:
            found.append(f"{pod.owner}: holds a token of its account")
        kinds = {kind for spec in closed if selects(spec["podSelector"], pod.labels) for kind in spec["policyTypes"]}
        if kinds != {"Ingress", "Egress"}:
            found.append(f"{pod.owner}: its network is not closed by default")
    return found


def test_no_container_may_do_more_than_it_needs(seen: Seen) -> None:
    counted = {name: len(pods(overlay(name))) for name in OVERLAYS}
    assert all(counted.values())
    assert {name: faults_of(overlay(name)) for name in OVERLAYS} == {name: [] for name in OVERLAYS}
    seen(
        f"{sum(counted.values())} pod templates of {', '.join(OVERLAYS)} rendered",
        "all meet `restricted`, roots read-only, nothing added, no token, network closed by default",
    )


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (("securityContext", "runAsNonRoot"), False, "runAsNonRoot is not true"),
        (("securityContext", "readOnlyRootFilesystem"), False, "may write to its root"),
        (("securityContext", "capabilities"), {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "is given capabilities"),
    ],
)
def test_a_container_that_may_is_told(where: tuple[str, str], value: object, told: str) -> None:
    objects = copy.deepcopy(overlay("prod"))
    pods(objects)[0].containers[0][where[0]][where[1]] = value
    assert any(told in fault for fault in faults_of(objects))


def test_a_token_or_an_open_network_is_told(seen: Seen) -> None:
    objects = copy.deepcopy(overlay("prod"))
    for pod in pods(objects):
        pod.spec["automountServiceAccountToken"] = True
    open_ones = [one for one in objects if one["kind"] != "NetworkPolicy"]
    found = faults_of(open_ones)
    assert any(fault.endswith("holds a token of its account") for fault in found)
    assert sum(fault.endswith("its network is not closed by default") for fault in found) == len(pods(objects))
    named = [name_of(one) for one in objects if one["kind"] == "NetworkPolicy"]
    seen(f"prod without its {len(named)} network policies, and tokens mounted", f"{len(found)} faults told")
