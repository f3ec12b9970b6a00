"""The Pod Security Standard `restricted`, for the pods that steps ask Kubernetes for."""

from __future__ import annotations

from typing import Any

POD: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""securityContext of the pod."""

CONTAINER: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""securityContext of each of its containers."""
