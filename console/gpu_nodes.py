"""How a cluster calls its GPUs: the resource a pod asks for, the taint it tolerates, the label of nodes it wants.

Held against Kubernetes' own rules for names before anything is compiled: what breaks them is refused by the API server
only as a step's pod is made, in the middle of the night.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from console.kubernetes_names import is_qualified, is_value
from goalrank.errors import UsageError

if TYPE_CHECKING:
    from console.settings import Settings

_OWN = re.compile(r"(?:.*\.)?kubernetes\.io")
"""Domains whose resources are Kubernetes' own and never a device's."""


def gpu_nodes(settings: Settings) -> dict[str, str]:
    """Fields of pipelines.cluster.Cluster, by the settings' own names.

    Raises:
        UsageError: one is no name that Kubernetes takes.
    """
    resource, taint, label = settings.gpu_resource, settings.gpu_taint, settings.gpu_node_label
    domain, slash, _ = resource.partition("/")
    if not (slash and is_qualified(resource)) or _OWN.fullmatch(domain) or resource.startswith("requests."):
        raise UsageError(
            f"GOALRANK_GPU_RESOURCE {resource!r} found, expected a device plugin's resource, DOMAIN/NAME, such as "
            "nvidia.com/gpu or nvidia.com/mig-3g.40gb (`kubectl describe node` lists a node's)"
        )
    if taint and not is_qualified(taint):
        raise UsageError(
            f"GOALRANK_GPU_TAINT {taint!r} found, expected a taint's key alone, such as nvidia.com/gpu (whatever its "
            "value, effect NoSchedule); empty where GPU nodes have none"
        )
    key, equals, value = label.partition("=")
    if label and not (equals and is_qualified(key) and (not value or is_value(value))):
        raise UsageError(
            f"GOALRANK_GPU_NODE_LABEL {label!r} found, expected KEY=VALUE, such as nvidia.com/gpu.present=true; empty "
            "where any node with the resource will do"
        )
    return {"gpu_resource": resource, "gpu_taint": taint, "gpu_node_label": label}
