"""What Kubeflow Pipelines asks Kubernetes about a caller before it does what a call wants, where it has several users.

As its API server's source has it in September 2026 (backend/src/apiserver/server): a version counts as its pipeline, a
recurring run is called a job. What is new in 2.18 is asked here, too: whoever starts a run of a pipeline must be able
to get the pipeline (kubeflow/pipelines#14348) and to use the run's service account (#14181).
"""

from __future__ import annotations

import json

import yaml

from tests.cluster.rendered import K8S, Object, of_kind

Right = tuple[str, str, str, str]
"""API group, resource, name ("": any), verb."""

SCHEDULE = "goalrank-schedule"
"""The role of those who type `goalrank schedule`, `submit` and `backfill`."""

GROUP = "pipelines.kubeflow.org"
VERBS = {"GET": "list", "POST": "create", "PATCH": "update", "DELETE": "delete"}
"""Of a call whose path ends with no action; a GET that names one thing is a `get`."""

RESOURCES = {"experiments": "experiments", "pipelines": "pipelines", "recurringruns": "jobs", "runs": "runs"}


def granted() -> set[Right]:
    """What the role allows as k8s/base/access has it."""
    access = K8S / "base" / "access"
    found = [one for file in sorted(access.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text("utf-8"))]
    return allowed(found, SCHEDULE)


def allowed(objects: list[Object], role: str) -> set[Right]:
    """What the role of that name among some objects allows."""
    (only,) = [one for one in of_kind(objects, "Role") if one["metadata"]["name"] == role]
    return {
        (group, resource, name, verb)
        for rule in only["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def asked(method: str, path: str, body: bytes) -> set[Right]:
    """The rights without which a call is refused; none for one that asks whether the server is well."""
    path, _, action = path.removeprefix("/apis/v2beta1/").partition(":")
    collection, *rest = path.split("/")
    if collection not in RESOURCES:
        return set()
    verb = action or VERBS[method]
    if verb == "list" and rest and rest[-1] != "versions":
        verb = "get"
    rights = {(GROUP, RESOURCES[collection], "", verb)}
    if verb == "create" and collection in ("runs", "recurringruns"):
        rights.add((GROUP, "pipelines", "", "get"))
        if account := json.loads(body).get("service_account"):
            rights.add(("", "serviceaccounts", account, "use"))
    return rights
