"""What `kubectl kustomize` makes of an overlay, and what the checks read from its objects."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import lacking

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir() if folder.is_dir())
OLDEST_KUSTOMIZE = 5
"""Earlier ones know no `labels` or `components`; Debian 12's kubectl brings one of 2019."""

Object = dict[str, Any]


@functools.cache
def why_not() -> str | None:
    """Why nothing can be rendered here; None where it can."""
    if shutil.which("kubectl") is None:
        return "kubectl is missing, `kubectl kustomize` renders the overlays"
    told = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=60)
    version = str(json.loads(told.stdout or "{}").get("kustomizeVersion", "none"))
    major = re.match(r"v(\d+)", version)
    if major is None or int(major[1]) < OLDEST_KUSTOMIZE:
        return f"kubectl brings kustomize {version}, expected v{OLDEST_KUSTOMIZE} or newer"
    return None


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization; skips the test where kubectl cannot do it (tests/lacking.py)."""
    if reason := why_not():
        lacking.skip(reason)
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@functools.cache
def overlay(name: str) -> list[Object]:
    """The objects of one environment."""
    return render(K8S / "overlays" / name)


def name_of(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


@dataclass(frozen=True)
class Pod:
    """A pod template, wherever it stands in an object."""

    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of its containers, those that run first as well."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str | int, int]:
        """Container ports by name and by number."""
        ports = [port for container in self.containers for port in container.get("ports", [])]
        named = {port["name"]: port["containerPort"] for port in ports if "name" in port}
        return named | {port["containerPort"]: port["containerPort"] for port in ports}


def pods(objects: list[Object]) -> list[Pod]:
    """Every pod template: any list of `containers` counts, wherever it stands, so a new kind is not passed over."""
    return [pod for one in objects for pod in _pods_in(one, name_of(one), {})]


def _pods_in(node: Any, owner: str, labels: dict[str, str]) -> Iterator[Pod]:
    if isinstance(node, dict):
        if isinstance(node.get("containers"), list):
            # KServe puts a predictor's `labels` on its pods; everywhere else they stand in the template's metadata.
            yield Pod(owner, node.get("labels", labels), node)
        inner = node.get("metadata", {}).get("labels", {}) if isinstance(node.get("metadata"), dict) else labels
        for value in node.values():
            yield from _pods_in(value, owner, inner)
    elif isinstance(node, list):
        for value in node:
            yield from _pods_in(value, owner, labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """A label selector, as NetworkPolicies and PodDisruptionBudgets write it; an empty one selects everything."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", []):
        found, values = labels.get(term["key"]), term.get("values", [])
        holds = {
            "In": found in values,
            "NotIn": found not in values,
            "Exists": found is not None,
            "DoesNotExist": found is None,
        }
        if not holds[term["operator"]]:
            return False
    return True
