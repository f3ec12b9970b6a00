"""A server on this machine that speaks Kubeflow Pipelines' v2beta1 API, as strict as the real one where it counts.

Bodies are held against kfp-server-api's own models (unknown fields and wrong types are refused, 400), lists come in
pages, names are taken once (409), the bearer token is checked (401), its account's rights are (403, kfp_rights.py), and
state is kept. `faults` breaks chosen calls, before or after they took effect. It runs nothing: a run goes on by one
state each time it is asked about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kfp_server_api
import yaml

from tests.cluster import kfp_rights

STATES = ("PENDING", "RUNNING", "SUCCEEDED")
OVER = ("SUCCEEDED", "FAILED", "CANCELED")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    """Break the next `times` calls whose "METHOD /path" matches; after: once they took effect. Status 0: hang up."""

    pattern: str
    status: int
    times: int = 1
    after: bool = False
    said: str = "injected"
    header: dict[str, str] = field(default_factory=dict)


def check(kind: str, value: Any, where: str = "body") -> None:
    """Hold a JSON value against a type of kfp-server-api's models."""
    if value is None:
        return
    if kind.startswith("dict("):
        inner = kind[5:-1].partition(", ")[2]
        for key, each in value.items():
            check(inner, each, f"{where}.{key}")
    elif kind.startswith("list["):
        for each in value:
            check(kind[5:-1], each, where)
    elif kind in ("str", "datetime"):
        if not isinstance(value, str) and where != "body.max_concurrency":  # an int64, which may come as a number
            raise Refused(400, f"{where}: {value!r} is no {kind}")
    elif kind in ("int", "bool"):
        if type(value).__name__ != kind:
            raise Refused(400, f"{where}: {value!r} is no {kind}")
    elif kind != "object":
        model = getattr(kfp_server_api.models, kind)
        if not model.openapi_types:
            if value not in model.allowable_values:
                raise Refused(400, f"{where}: {value!r} is none of {model.allowable_values}")
            return
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        for key, each in value.items():
            if key not in names:
                raise Refused(400, f'{where}: unknown field "{key}"')
            check(model.openapi_types[names[key]], each, f"{where}.{key}")


class KubeflowPipelines(ThreadingHTTPServer):
    """The server and its state; each table holds the documents as they are served, by id."""

    daemon_threads = True

    def __init__(self, token: str = "", multi_user: bool = False, largest_page: int = 100) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.token, self.multi_user, self.largest_page = token, multi_user, largest_page
        self.experiments: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, list[str]] = {}
        """Date of a night -> how its tries end, one after the other; else well."""
        self.faults: list[Fault] = []
        self.calls: list[str] = []
        self.granted = kfp_rights.granted()
        """What the token's account may do; the real server looks at it only where it has several users."""
        self.asked: set[kfp_rights.Right] = set()
        self.connections = 0
        self.enabled_after: list[int] = []
        """How many recurring runs were enabled after each call that changed one."""
        self.overlaps = 0
        self._numbers = 0
        self.lock = Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is no matter."""

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def enabled(self) -> list[dict[str, Any]]:
        return [run for run in self.recurring.values() if run["mode"] == "ENABLE"]

    @property
    def changes(self) -> list[str]:
        """Calls that change something."""
        return [call for call in self.calls if not call.startswith("GET")]

    def tick(self, recurring: dict[str, Any], at: datetime, state: str) -> None:
        """What the scheduler does at a night's time: a run, its parameters as they stand: no macro is filled in."""
        made = self._run(recurring | {"display_name": "by-the-clock"}, state)
        made["created_at"] = at.isoformat().replace("+00:00", "Z")

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, content_type: str) -> Any:
        wanted = kfp_rights.asked(method, path, body)
        self.asked |= wanted
        if missing := sorted(wanted - self.granted):
            raise Refused(403, f"{missing} is not granted")
        if "/pipelines/upload" in path:
            return self._upload(path.rsplit("/", 1)[-1], query, body, content_type)
        parts, action = path.removeprefix("/apis/v2beta1/").split("/"), ""
        if ":" in parts[-1]:
            parts[-1], action = parts[-1].split(":")
        document = json.loads(body) if body else {}
        match (method, *parts):
            case ("GET", "healthz"):
                return {"multi_user": self.multi_user}
            case ("GET", "experiments"):
                self._same_namespace(query)
                return self._page("experiments", self.experiments, query)
            case ("POST", "experiments"):
                check("V2beta1Experiment", document)
                self._same_namespace(document)
                self._taken(self.experiments, document["display_name"])
                return self._add(self.experiments, "experiment_id", document)
            case ("GET", "pipelines"):
                self._same_namespace(query)
                return self._page("pipelines", self.pipelines, query)
            case ("GET", "pipelines", pipeline, "versions"):
                theirs = {key: each for key, each in self.versions.items() if each["pipeline_id"] == pipeline}
                return self._page("pipeline_versions", theirs, query)
            case ("GET", "pipelines", _, "versions", version):
                return self._get(self.versions, version)
            case ("GET", "recurringruns"):
                return self._page("recurringRuns", self._of_experiment(self.recurring, query), query)
            case ("POST", "recurringruns"):
                return self._schedule(document)
            case ("POST", "recurringruns", run):
                mode, status = {"enable": ("ENABLE", "ENABLED"), "disable": ("DISABLE", "DISABLED")}[action]
                self._get(self.recurring, run).update(mode=mode, status=status)
                return {}
            case ("DELETE", "recurringruns", run):
                self._get(self.recurring, run)
                del self.recurring[run]
                return {}
            case ("GET", "runs"):
                return self._page("runs", self._of_experiment(self.runs, query), query)
            case ("POST", "runs"):
                check("V2beta1Run", document)
                self._checked_parameters(document)
                self.overlaps += any(run["state"] not in OVER for run in self.runs.values())
                return self._run(document, STATES[0])
            case ("GET", "runs", run):
                return self._advanced(self._get(self.runs, run))
        raise Refused(404, f"{method} {path}")

    def _of_experiment(self, table: dict[str, dict[str, Any]], query: dict[str, str]) -> dict[str, dict[str, Any]]:
        """Of an experiment, or else of the namespace, which a server of many users wants to be told."""
        if "experiment_id" not in query:
            self._same_namespace(query)
        wanted = query.get("experiment_id")
        return {key: each for key, each in table.items() if wanted in (None, each["experiment_id"])}

    def _same_namespace(self, given: dict[str, Any]) -> None:
        if self.multi_user and not given.get("namespace"):
            raise Refused(400, "Namespace is empty")

    def _number(self) -> str:
        self._numbers += 1
        return f"id-{self._numbers:04d}"

    def _add(self, table: dict[str, dict[str, Any]], key: str, document: dict[str, Any]) -> dict[str, Any]:
        number = self._number()
        created = (START + timedelta(seconds=self._numbers)).isoformat().replace("+00:00", "Z")
        table[number] = document | {key: number, "created_at": created}
        return table[number]

    def _get(self, table: dict[str, dict[str, Any]], number: str) -> dict[str, Any]:
        if number not in table:
            raise Refused(404, f"{number} not found")
        return table[number]

    def _taken(self, table: dict[str, dict[str, Any]], name: str, **others: str) -> None:
        for each in table.values():
            if each["display_name"] == name and all(each[key] == value for key, value in others.items()):
                raise Refused(409, f"{name} already exists")

    def _page(self, name: str, table: dict[str, dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        known = {"page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id"}
        if unknown := query.keys() - known:
            raise Refused(400, f"unknown query parameters {sorted(unknown)}")
        rows = list(table.values())
        if query.get("filter"):
            document = json.loads(query["filter"])
            for predicate in document["predicates"]:
                # kfp's client sends the number of the operation (1: equals) and the API's JSON name of the value.
                if predicate["key"] != "display_name" or predicate["operation"] not in (1, "EQUALS"):
                    raise Refused(400, f"filter {predicate} is not supported")
                rows = [row for row in rows if row["display_name"] == predicate["stringValue"]]
        if query.get("sort_by", "").endswith(" desc"):
            rows.reverse()
        begin = int(query.get("page_token") or 0)
        size = min(int(query.get("page_size") or 10), self.largest_page)
        page: dict[str, Any] = {name: rows[begin : begin + size], "total_size": len(rows)}
        if begin + size < len(rows):
            page["next_page_token"] = str(begin + size)
        return page

    def _upload(self, kind: str, query: dict[str, str], body: bytes, content_type: str) -> dict[str, Any]:
        message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        content = message.get_payload()[0].get_payload(decode=True)  # type: ignore[index, union-attr]
        spec, *platform = yaml.load_all(content, LOADER)
        document = {"pipeline_spec": spec, "platform_spec": platform[0] if platform else {}}
        if kind == "upload":
            self._same_namespace(query)
            self._taken(self.pipelines, query["name"])
            made = self._add(self.pipelines, "pipeline_id", {"display_name": query["name"]})
            pipeline = made["pipeline_id"]
        else:
            pipeline = query["pipelineid"]
            self._get(self.pipelines, pipeline)
            self._taken(self.versions, query["name"], pipeline_id=pipeline)
        version = {"display_name": query["name"], "pipeline_id": pipeline, "pipeline_spec": document}
        version = self._add(self.versions, "pipeline_version_id", version)
        return made if kind == "upload" else version

    def _checked_parameters(self, document: dict[str, Any]) -> None:
        """As the real server: every parameter is one of the pipeline's, and none without a default is missing."""
        self._get(self.experiments, document["experiment_id"])
        version = self._get(self.versions, document["pipeline_version_reference"]["pipeline_version_id"])
        known = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        given = document["runtime_config"]["parameters"]
        if unknown := given.keys() - known.keys():
            raise Refused(400, f"parameters {sorted(unknown)} are not the pipeline's")
        needed = {name for name, each in known.items() if not each.get("isOptional")}
        if missing := needed - given.keys():
            raise Refused(400, f"parameters {sorted(missing)} are missing")

    def _schedule(self, document: dict[str, Any]) -> dict[str, Any]:
        check("V2beta1RecurringRun", document)
        self._checked_parameters(document)
        if len(document["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise Refused(400, "the cron expression is invalid")
        status = "ENABLED" if document["mode"] == "ENABLE" else "DISABLED"
        filled = {"status": status, "service_account": "pipeline-runner"}
        document = filled | document | {"max_concurrency": str(document["max_concurrency"])}
        return self._add(self.recurring, "recurring_run_id", document)

    def _run(self, document: dict[str, Any], state: str) -> dict[str, Any]:
        kept = ("display_name", "experiment_id", "pipeline_version_reference", "runtime_config")
        return self._add(self.runs, "run_id", {name: document[name] for name in kept} | {"state": state})

    def _advanced(self, run: dict[str, Any]) -> dict[str, Any]:
        if run["state"] == "PENDING":
            run["state"] = "RUNNING"
        elif run["state"] == "RUNNING":
            ends = self.ends.get(run["runtime_config"]["parameters"]["date"])
            run["state"] = ends.pop(0) if ends else "SUCCEEDED"
        return run


class Answers(BaseHTTPRequestHandler):
    """One connection to :class:`KubeflowPipelines`."""

    server: KubeflowPipelines
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server, address = self.server, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = f"{self.command} {address.path.removeprefix('/apis/v2beta1')}"
        with server.lock:
            server.calls.append(call)
            fault = next((each for each in server.faults if each.times and re.search(each.pattern, call)), None)
            status, document, header = 200, None, {}
            if fault is not None:
                fault.times -= 1
                status, document, header = fault.status, {"error": fault.said, "message": fault.said}, fault.header
            if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                status, document = 401, {"message": "Unauthenticated"}
            elif fault is None or fault.after:
                try:
                    query = dict(parse_qsl(address.query))
                    done = server.answer(
                        self.command, address.path, query, body, self.headers.get("Content-Type") or ""
                    )
                    if fault is None:
                        document = done
                except Refused as refused:
                    status = refused.status
                    document = {"error": str(refused), "message": str(refused), "code": 3, "details": []}
                if "recurringruns" in call and self.command != "GET":
                    server.enabled_after.append(len(server.enabled))
        if status == 0:
            self.close_connection = True
            self.connection.close()
            return
        content = header.pop("body", None) or json.dumps(document)
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | header).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(**given: Any) -> Iterator[KubeflowPipelines]:
    """A server that answers while the block runs."""
    with KubeflowPipelines(**given) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
