"""The Pod Security Standard `restricted`, of which `baseline` is a part, as a check of one pod's spec.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ control by control, for Linux pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECCOMP = {"RuntimeDefault", "Localhost"}
APPARMOR = {"RuntimeDefault", "Localhost"}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}

Spec = dict[str, Any]


def violations(pod: Spec) -> list[str]:
    """What `restricted` refuses in a pod's spec, one line each; empty: it is admitted."""
    found = list(_of_the_pod(pod))
    kinds = ("initContainers", "containers", "ephemeralContainers")
    containers = [one for kind in kinds for one in pod.get(kind, [])]
    if not containers:
        found.append("no containers")
    for container in containers:
        found += [f"{container['name']}: {reason}" for reason in _of_a_container(container, pod)]
    return found


def _of_the_pod(pod: Spec) -> Iterator[str]:
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(flag):
            yield f"{flag} is set"
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    context = pod.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']} is not a safe one"
    yield from _of_a_context(context, "the pod's")


def _of_a_container(container: Spec, pod: Spec) -> Iterator[str]:
    context, around = container.get("securityContext", {}), pod.get("securityContext", {})
    yield from _of_a_context(context, "its")
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("runAsNonRoot", around.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if context.get("seccompProfile", around.get("seccompProfile", {})).get("type") not in SECCOMP:
        yield "seccompProfile is neither RuntimeDefault nor Localhost"
    if context.get("procMount", "Default") != "Default":
        yield "procMount is not Default"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities are not all dropped"
    if extra := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capabilities {', '.join(sorted(extra))} are added"
    if any(port.get("hostPort", 0) for port in container.get("ports", [])):
        yield "a hostPort is taken"
    handlers = [container.get(probe, {}) for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += container.get("lifecycle", {}).values()
    if any(handler.get(way, {}).get("host") for handler in handlers for way in ("httpGet", "tcpSocket")):
        yield "a probe or hook names a host"


def _of_a_context(context: Spec, whose: str) -> Iterator[str]:
    checks: dict[str, Callable[[Any], bool]] = {
        "runAsUser": lambda user: user == 0,
        "runAsNonRoot": lambda value: value is False,
        "seccompProfile": lambda profile: profile.get("type") not in SECCOMP,
        "appArmorProfile": lambda profile: profile.get("type") not in APPARMOR,
        "windowsOptions": lambda options: bool(options.get("hostProcess")),
        "seLinuxOptions": lambda options: bool(
            options.get("type", "") not in SELINUX or options.get("user") or options.get("role")
        ),
    }
    for field, bad in checks.items():
        if field in context and bad(context[field]):
            yield f"{whose} {field} is {context[field]!r}"
