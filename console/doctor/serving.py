"""The port of the ranking service: does ours answer there, or somebody else's program?"""

from __future__ import annotations

import json

from console.doctor import network
from console.doctor.findings import OK, WARNING, Check, Finding
from console.next_steps import ours
from console.settings import Settings

GROUP = "serving"


def service(settings: Settings) -> list[Finding]:
    """Asked on loopback where it listens on every address."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    where = f"{host}:{settings.port}"
    if settings.port == 0:
        return []
    said = network.answers(f"http://{where}/ready")
    if isinstance(said, str):
        if not network.connects(host, settings.port):
            return [_taken(where, settings)]
        found = f"nobody serves at {where}; `{ours('serve', settings.workspace)}` does"
        return [Finding(GROUP, "service", OK, found)]
    try:
        document = json.loads(said[1] or b"{}")
        version, status = document["model_version"], document["status"]
    except (ValueError, KeyError, TypeError):
        return [_taken(where, settings)]
    if status == "ready":
        return [Finding(GROUP, "service", OK, f"version {version} answers at {where}")]
    return [Finding(GROUP, "service", WARNING, f"{where} says {status}", "docs/runbook.md, serving")]


def _taken(where: str, settings: Settings) -> Finding:
    mend = f"`{ours('serve --port N', settings.workspace)}` with another, or end that program"
    return Finding(GROUP, "service", WARNING, f"another program listens at {where}", mend)


CHECKS = (Check(GROUP, "service", service),)
