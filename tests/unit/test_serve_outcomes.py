"""How the service says no: the status, the reason, and the outcome that its metrics count."""

from __future__ import annotations

import asyncio

import pytest
from starlette.testclient import TestClient

from components.serve_model import body_limit
from components.serve_model.app import create_app
from components.serve_model.batching import OverloadedError
from components.serve_model.bodies import MAX_BODY_BYTES
from components.serve_model.body_limit import BodyLimit
from components.serve_model.metrics import OUTCOMES, Metrics
from tests.unit.instant_service import INFER, request, service, tensors


@pytest.mark.parametrize("path", ["/rank/", "/feedback/", f"{INFER}/", "/ready/", "/v2/", "//rank"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_path_that_is_not_ours_is_not_redirected(tmp_path, path, method):
    """Least of all to the host that the client names."""
    with TestClient(create_app(service(tmp_path)), follow_redirects=False) as client:
        answer = client.request(method, path, headers={"host": "evil.example"}, content=b"{}")
    assert answer.status_code == 404 and "location" not in answer.headers and answer.json() == {"error": "Not Found"}


def counted(metrics: Metrics, endpoint: str) -> dict[str, float]:
    """Bodies of an endpoint by outcome, those that there were."""
    found = {name: metrics.requests.labels(endpoint, name)._value.get() for name in OUTCOMES}
    return {name: count for name, count in found.items() if count}


def test_overloaded_is_counted_as_overloaded_and_not_as_failed(tmp_path, monkeypatch):
    ours = service(tmp_path)

    async def full(*args: object, **kwargs: object) -> None:
        raise OverloadedError("2048 requests wait already; try again in a second, or start more servers")

    with TestClient(create_app(ours), raise_server_exceptions=False) as client:
        monkeypatch.setattr(ours._batches, "ask", full)
        assert client.post("/rank", json=request(1)).status_code == 503
        assert client.post(INFER, json=tensors(request(1))).status_code == 503
    assert counted(ours.metrics, "rank") == counted(ours.metrics, "infer") == {"overloaded": 1.0}


def test_feedback_that_the_disk_did_not_take_is_not_overloaded(tmp_path, monkeypatch):
    """More servers would not help, a larger disk would."""
    ours = service(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with TestClient(create_app(ours)) as client:
        monkeypatch.setattr(ours.log, "feedback", full)
        assert client.post("/feedback", json={"request_id": "r", "position": 1}).status_code == 503
    assert counted(ours.metrics, "feedback") == {"not_kept": 1.0}


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("POST", "/rank", "rank"),
        ("POST", "/feedback", "feedback"),
        ("POST", INFER, "infer"),
        ("POST", f"{INFER.removesuffix('/infer')}/versions/1/infer", "infer"),
        ("POST", "/nothing", None),
        ("POST", "/v2/models", None),
        ("POST", f"{INFER}/", None),
        ("PUT", "/rank", None),
    ],
)
def test_a_body_over_the_limit_is_counted_where_a_good_one_would_be(tmp_path, method, path, endpoint):
    ours = service(tmp_path)
    with TestClient(create_app(ours)) as client:
        answer = client.request(method, path, content=b" " * (MAX_BODY_BYTES + 1))
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    found = {name: counted(ours.metrics, name) for name in ("rank", "feedback", "infer")}
    assert {name: counts for name, counts in found.items() if counts} == (
        {endpoint: {"invalid": 1.0}} if endpoint else {}
    )


def test_half_a_body_is_waited_for_a_while_and_no_longer(monkeypatch):
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 0.05)
    metrics, sent, parts = Metrics(), [], [{"type": "http.request", "body": b'{"user', "more_body": True}]

    async def receive():
        if parts:
            return parts.pop()
        return await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    async def never(*_):
        raise AssertionError("half a body reached the service")

    scope = {"type": "http", "method": "POST", "path": "/rank"}
    monkeypatch.setattr(body_limit, "DRAIN_SECONDS", 0.05)
    limited = BodyLimit(never, metrics, lambda path: path.removeprefix("/"))
    asyncio.run(asyncio.wait_for(limited(scope, receive, send), 10))
    assert sent[0]["status"] == 408 and b"did not come within" in sent[1]["body"]
    assert counted(metrics, "rank") == {"invalid": 1.0}
