"""A server on this machine that speaks the Kubernetes API for one InferenceService, and does as KServe does.

It takes JSON merge patches, refuses one that rests on an older resourceVersion (409), checks the bearer token, and
keeps what was sent. Revisions and traffic follow KServe's rules: a changed container or annotation makes a revision,
which is ready some reads later or never; a share goes to the newest and the rest to the one rolled out before;
observedGeneration is the counter of the Knative service beneath, which has lived longer than this object.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from components.promote_model.inference_service import VARIABLE

NAME, NAMESPACE, TOKEN = "goalrank-ranker", "goalrank", "promoter-token"
PATH = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices/{NAME}"


def merged(document: Any, changes: Any) -> Any:
    """A JSON merge patch (RFC 7396) applied: null takes away, a list replaces."""
    if not isinstance(changes, dict):
        return copy.deepcopy(changes)
    result = copy.deepcopy(document) if isinstance(document, dict) else {}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


class KServe(ThreadingHTTPServer):
    """The API server, the object, and KServe's controller."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        environment = [{"name": "HOME", "value": "/tmp"}]
        self.document: dict[str, Any] = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "resourceVersion": "1", "generation": 1},
            "spec": {"predictor": {"minReplicas": 1, "containers": [{"name": "kserve-container", "env": environment}]}},
        }
        self.original = copy.deepcopy(self.document["spec"])
        self.never_ready: set[str] = set()
        """Versions whose revision does not come up."""
        self.slow = 2
        """Reads until a revision is ready."""
        self.lag = 1
        """Reads that still find the status of before a change: the controller is a program of its own."""
        self.conflicts = 0
        """So many patches meet somebody else's change."""
        self.faults: list[int] = []
        """Answers of the next calls; 0 is none."""
        self.history: list[tuple[str, int]] = []
        """Which version had how much traffic, after every change of it."""
        self.patches = 0
        self.early = False
        """Was a trial taken out while it still had traffic? Its revision would then be the one that is returned to."""
        self.lock = Lock()
        self._revisions: dict[str, str] = {}
        self._changed, self._late = False, 0
        self._waiting = 0
        self._rolled_out = ["", ""]
        self._child_generation = 4
        self._ready = ""
        self.slow, slow = 0, self.slow
        self._reconcile(changed=True)
        self.slow = slow

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def tried(self) -> str:
        environment = self.document["spec"]["predictor"]["containers"][0]["env"]
        return next((each["value"] for each in environment if each["name"] == VARIABLE), "")

    @property
    def percent(self) -> int | None:
        return self.document["spec"]["predictor"].get("canaryTrafficPercent")

    @property
    def newest(self) -> str:
        return list(self._revisions)[-1]

    def version_of(self, revision: str) -> str:
        """What a revision serves; "" follows the registry."""
        return self._revisions[revision]

    def traffic_of(self, version: str) -> int:
        """Percent of the traffic that revisions of a version get; "" is whoever follows the registry."""
        traffic = self.document["status"]["components"]["predictor"]["traffic"]
        return sum(each["percent"] for each in traffic if self._revisions[each["revisionName"]] == version)

    def patch(self, changes: dict[str, Any]) -> int:
        """Apply a JSON merge patch; the status it is answered with."""
        self.patches += 1
        if self.conflicts:
            self.conflicts -= 1
            self._touch()
        document = merged(self.document, changes)
        if document["metadata"]["resourceVersion"] != self.document["metadata"]["resourceVersion"]:
            return 409
        changed = any(
            part(document) != part(self.document)
            for part in (
                lambda each: each["spec"]["predictor"]["containers"],
                lambda each: each["metadata"].get("annotations", {}),
            )
        )
        document["metadata"]["generation"] += document["spec"] != self.document["spec"]
        before, self.document = self.tried, document
        if changed and self.percent == 0 and self.traffic_of(before):
            self.early = True
        self._touch()
        self._changed, self._late = self._changed or changed, self.lag
        return 200

    def read(self) -> dict[str, Any]:
        if self._late:
            self._late -= 1
            return self.document
        self._waiting -= 1
        self._reconcile(self._changed)
        self._changed = False
        return self.document

    def settle(self) -> None:
        """Let the controller do all it has to."""
        for _ in range(self.slow + self.lag + 2):
            self.read()

    def _touch(self) -> None:
        self.document["metadata"]["resourceVersion"] = str(int(self.document["metadata"]["resourceVersion"]) + 1)

    def _reconcile(self, changed: bool) -> None:
        self._child_generation += changed
        if changed:
            self._revisions[f"{NAME}-{len(self._revisions) + 1:05d}"] = self.tried
            self._waiting = self.slow
        comes_up = self._revisions[self.newest] not in self.never_ready
        if comes_up and self._waiting <= 0:
            self._ready = self.newest
        percent = self.percent
        before = self._rolled_out[1] if self._rolled_out[1] != self._ready else self._rolled_out[0]
        if percent is None or not before:
            shares = {self._ready: 100}
        elif self._ready != self.newest:  # until it is ready, a revision gets nothing
            shares = {before: 100}
        else:
            shares = {self.newest: percent, before: 100 - percent}
        if shares.get(self._ready) == 100 and self._rolled_out[1] != self._ready:
            self._rolled_out = [self._rolled_out[1], self._ready]
        ready = "True" if self._ready == self.newest else "False" if not comes_up else "Unknown"
        traffic = [{"revisionName": revision, "percent": share} for revision, share in shares.items()]
        self.document["status"] = {
            "observedGeneration": self._child_generation,
            "conditions": [{"type": "PredictorReady", "status": ready, "reason": "" if comes_up else "RevisionFailed"}],
            "components": {
                "predictor": {
                    "latestCreatedRevision": self.newest,
                    "latestReadyRevision": self._ready,
                    "traffic": traffic,
                }
            },
        }
        for version in set(self._revisions.values()) - {""}:
            now = (version, self.traffic_of(version))
            if next((each for each in reversed(self.history) if each[0] == version), (version, 0)) != now:
                self.history.append(now)


class Answers(BaseHTTPRequestHandler):
    """One call to :class:`KServe`."""

    server: KServe

    def _answer(self) -> None:
        server, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with server.lock:
            fault = server.faults.pop(0) if server.faults else None
            if fault is not None:
                status = fault
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status = 401
            elif self.path.partition("?")[0] != PATH:
                status = 404
            elif self.command == "PATCH":
                merge = self.headers["Content-Type"] == "application/merge-patch+json"
                status = server.patch(json.loads(body)) if merge else 415
            else:
                status = 200
                server.read()
            content = json.dumps(server.document if status == 200 else {"kind": "Status", "code": status}).encode()
        if not status:
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PATCH = do_PUT = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[KServe]:
    """A server that answers while the block runs."""
    with KServe() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
