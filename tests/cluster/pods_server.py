"""A server on this machine that speaks the Kubernetes API for pods and config maps, and runs a pod as a process.

As much of it as a Spark driver asks for: it takes pods that the core schema and the standard `restricted` admit and
that give nothing twice, lists them by label, tells how they are, and ends the process of one that is deleted. A pod's
address is the loopback.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cluster.restricted import violations
from tests.cluster.schemas import problems

NAMESPACE, TOKEN, DRIVER = "goalrank-prod", "night-token", "the-night-extract-features"
ROOT = Path(__file__).resolve().parents[2]


class Pods(ThreadingHTTPServer):
    """The API server, and the node that runs what it takes."""

    daemon_threads = True

    def __init__(self, logs: Path, granted: set[tuple[str, str]]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.granted = granted
        self.logs, self.lock = logs, Lock()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.taken: list[dict[str, Any]] = []
        self.refused: list[list[str]] = []
        self.asked: set[tuple[str, str]] = set()
        self._versions = 0
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.put("pods", {"metadata": {"name": DRIVER, "labels": {}}, "spec": {}, "status": status})

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, kind: str, document: dict[str, Any]) -> dict[str, Any]:
        self._versions += 1
        document["metadata"] |= {
            "namespace": NAMESPACE,
            "uid": f"uid-{self._versions}",
            "resourceVersion": str(self._versions),
            "creationTimestamp": "2026-01-08T02:30:00Z",
        }
        self.objects[kind, document["metadata"]["name"]] = document
        return document

    def create(self, kind: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if kind == "pods":
            # Resizing has a restartPolicy of its own, whose words are others than a pod's.
            (container,) = document["spec"]["containers"]
            plain = document | {"spec": document["spec"] | {"containers": [{**container, "resizePolicy": []}]}}
            found = violations(document["spec"]) + problems(plain) + doubled(document["spec"])
            if found:
                self.refused.append(found)
                return 403, {"kind": "Status", "status": "Failure", "message": "; ".join(found), "code": 403}
            self.taken.append(json.loads(json.dumps(document)))
            self._start(document)
        return 201, self.put(kind, document)

    def _start(self, pod: dict[str, Any]) -> None:
        (container,) = pod["spec"]["containers"]
        name = pod["metadata"]["name"]
        fields = {"status.podIP": "127.0.0.1", "metadata.name": name}
        told = {
            each["name"]: each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in container["env"]
        }
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "JAVA_HOME") if key in os.environ}
        with open(self.logs / f"{name}.log", "wb") as log:
            command = [sys.executable, *container["command"][1:], *container["args"]]
            environment = kept | {"PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1"} | told
            self.processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.logs)

    def listed(self, kind: str, selector: str) -> list[dict[str, Any]]:
        found = [each for (its_kind, _), each in self.objects.items() if its_kind == kind]
        for term in re.findall(r"[^,(]+(?:\([^)]*\))?", selector):  # commas part terms, but for those in parentheses
            key, operator, values = re.fullmatch(r"([\w./-]+)\s*(!=|=|in|notin)\s*\(?([^)]*)\)?", term.strip()).groups()  # type: ignore[union-attr]
            wanted = {value.strip() for value in values.split(",")}
            among = operator in ("=", "in")
            found = [one for one in found if (one["metadata"].get("labels", {}).get(key) in wanted) == among]
        return [self._told(each) for each in found]

    def _told(self, document: dict[str, Any]) -> dict[str, Any]:
        name = document["metadata"]["name"]
        if name in self.processes:
            code = self.processes[name].poll()
            phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
            state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
            status = {
                "name": "executor",
                "ready": code is None,
                "restartCount": 0,
                "image": "",
                "imageID": "",
                "state": state,
            }
            document["status"] = {"phase": phase, "podIP": "127.0.0.1", "containerStatuses": [status]}
        return document

    def delete(self, kind: str, names: list[str]) -> None:
        for name in names:
            self.objects.pop((kind, name), None)
            if kind == "pods" and name in self.processes:
                self.processes[name].terminate()


def doubled(pod: dict[str, Any]) -> list[str]:
    """What an API server refuses though each part fits its schema: one name or one path given twice."""
    named = [("volume", [volume["name"] for volume in pod.get("volumes", [])])]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        named.append(("mountPath", [mount["mountPath"] for mount in container.get("volumeMounts", [])]))
        named.append(("port", [port["name"] for port in container.get("ports", []) if "name" in port]))
    return [
        f"{what} {name} given twice" for what, names in named for name in sorted(set(names)) if names.count(name) > 1
    ]


class Answers(BaseHTTPRequestHandler):
    """One connection to :class:`Pods`."""

    server: Pods
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server, address = self.server, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        parts = address.path.strip("/").split("/")
        with server.lock:
            status, document = self._done(server, parts, query, body)
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _done(self, server: Pods, parts: list[str], query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        missing: tuple[int, dict[str, Any]] = (404, {"kind": "Status", "status": "Failure", "code": 404})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"kind": "Status", "status": "Failure", "code": 401}
        if parts[:3] != ["api", "v1", "namespaces"] or len(parts) < 5 or parts[3] != NAMESPACE:
            return missing
        kind, name = parts[4], "/".join(parts[5:])
        verb = {"POST": "create", "PATCH": "patch", "PUT": "update"}.get(self.command, "get" if name else "list")
        if self.command == "DELETE":
            verb = "delete" if name else "deletecollection"
        server.asked.add((kind, "watch" if query.get("watch") else verb))
        if (kind, "watch" if query.get("watch") else verb) not in server.granted:
            return 403, {"kind": "Status", "status": "Failure", "message": f"may not {verb} {kind}", "code": 403}
        if verb == "create":
            return server.create(kind, json.loads(body))
        selected = server.listed(kind, query.get("labelSelector", ""))
        if verb == "list":
            singular = {"pods": "Pod", "configmaps": "ConfigMap", "services": "Service"}.get(
                kind, "PersistentVolumeClaim"
            )
            return 200, {
                "kind": f"{singular}List",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": "1"},
                "items": selected,
            }
        if verb == "deletecollection":
            server.delete(kind, [each["metadata"]["name"] for each in selected])
            return 200, {"kind": "Status", "status": "Success"}
        if (kind, name) not in server.objects:
            return missing
        document = server._told(server.objects[kind, name])
        if verb == "delete":
            server.delete(kind, [name])
        return 200, {"apiVersion": "v1", "kind": "Pod" if kind == "pods" else "ConfigMap", **document}

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(logs: Path, granted: set[tuple[str, str]]) -> Iterator[Pods]:
    """A server that answers while the block runs, what is (resource, verb) granted; its processes end with it."""
    with Pods(logs, granted) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
            for process in server.processes.values():
                process.kill()
                process.wait()
