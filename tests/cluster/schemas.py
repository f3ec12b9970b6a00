"""Every object against its kind's schema: core kinds by kubernetes-validate, custom ones by the upstream CRDs.

A kind without a schema is an error: an object that nobody has checked must not look like one that is right.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests import lacking
from tests.cluster.rendered import ROOT, Object

KUBERNETES = ("1.32", "1.36")
"""Oldest that KServe supports, and the newest with schemas here."""

SHARED = Path(os.environ.get("GOALRANK_SHARED", ROOT.parent / "shared"))
CRDS = SHARED / "crds"
"""Unchanged CustomResourceDefinitions of the operators, one file each; they come with the operators elsewhere."""

WORDS = {
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "restartPolicy": {"Always", "Never", "OnFailure"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "policyTypes": {"Ingress", "Egress"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "fsGroupChangePolicy": {"Always", "OnRootMismatch"},
    "operator": {"In", "NotIn", "Exists", "DoesNotExist"},
    "action": {"FailIndex", "FailJob", "Count", "Ignore"},
    "medium": {"", "Memory"},
}
"""Which words a field knows, as the API reference has them: Kubernetes' schemas take any text there."""

METADATA = {"name", "namespace", "labels", "annotations", "ownerReferences"}


def require_crds() -> None:
    """Skips the test where the operators' schemas are not at hand; fails it in CI."""
    if not CRDS.is_dir():
        lacking.skip(f"no schemas of custom resources at {CRDS}; say where with GOALRANK_SHARED")


def is_core(one: Object) -> bool:
    """Of Kubernetes itself: no group, a group without a domain, or one of k8s.io."""
    group = one["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def problems(one: Object, versions: tuple[str, ...] = KUBERNETES) -> list[str]:
    """What is wrong with an object; empty: nothing."""
    if not is_core(one):
        return _custom_problems(one)
    found = []
    for version in versions:
        try:
            # Not the command: that only warns of a kind it does not know, and ends with 0.
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(error.message)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {'.'.join(map(str, error.path))}: {error.message}")
    return found + _strange_words(one)


def _strange_words(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for value in node for found in _strange_words(value)]
    if not isinstance(node, dict):
        return []
    found = [strange for value in node.values() for strange in _strange_words(value)]
    for key in node.keys() & WORDS.keys():
        said = node[key] if isinstance(node[key], list) else [node[key]]
        found += [
            f"{key} {word!r} is none of {', '.join(sorted(WORDS[key]))}" for word in said if word not in WORDS[key]
        ]
    return found


def _custom_problems(one: Object) -> list[str]:
    schema = custom_schemas().get((one["apiVersion"], one["kind"]))
    if schema is None:
        return [f"no CustomResourceDefinition for {one['kind']} of {one['apiVersion']} in {CRDS}"]
    found = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(one)
    ]
    found += [f"metadata.{field} is not allowed" for field in sorted(one["metadata"].keys() - METADATA)]
    # A CRD says nothing of metadata: it is that of any object.
    return found + problems({"apiVersion": "v1", "kind": "ConfigMap", "metadata": one["metadata"]})


@functools.cache
def custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """(apiVersion, kind) -> the CRD's own schema, unknown fields forbidden."""
    found = {}
    for file in sorted(CRDS.glob("*.yaml")):
        # The C loader: one of these files alone takes the other half a minute.
        spec = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` wherever it lists properties and does not say otherwise."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # Names of properties are not keywords: a property may itself be called `properties`.
    inner = {
        key: {name: closed(one) for name, one in value.items()} if key == "properties" else closed(value)
        for key, value in schema.items()
    }
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_open:
        inner["additionalProperties"] = False
    return inner
