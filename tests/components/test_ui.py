"""`goalrank ui` as a process: who may call it, what it answers, and that its opinions are the reward model's own."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from components import registry
from components.feature_store import OnlineReader
from components.serve_model.champion import champion_model
from components.serve_model.main import rank_once
from console.settings import Settings
from console.ui import playground
from console.ui.lists import Lists, Models
from console.ui.requests import LoggedRequests
from goalrank.checkpoint import load_model
from goalrank.reward import RewardModel
from tests.components.promoted_workspace import PromotedWorkspace
from tests.ui_workspace import DOCS, HOSTILE, LAST, REPORT, make_workspace, pages, wait_until_loaded

REQUEST = f"{LAST}-000000"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> PromotedWorkspace:
    return make_workspace(tmp_path_factory.mktemp("ui"))


@pytest.fixture(scope="module")
def address(place: PromotedWorkspace) -> Iterator[str]:
    with pages(place.folder) as found:
        wait_until_loaded(found)
        yield found


def send(
    address: str, path: str, body: bytes | None = None, method: str = "", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path goes out as it is written here."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host="host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def ask(address: str, path: str, document: Any = None) -> tuple[int, Any]:
    """Status and the JSON answered."""
    body = None if document is None else json.dumps(document).encode()
    status, _, text = send(address, path, body, content_type="application/json")
    return status, json.loads(text)


# ----------------------------------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("path", ["/", "/playground", "/static/style.css", "/static/playground.js", "/api/state"])
def test_every_answer_forbids_what_it_does_not_need(address: str, path: str) -> None:
    status, headers, _ = send(address, path)
    assert status == 200
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store" and headers["cross-origin-resource-policy"] == "same-origin"
    if headers["content-type"].startswith("text/html"):
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy


def test_reports_and_data_docs_run_no_script(address: str) -> None:
    for path, text in (("report.html", REPORT), ("artifacts/goalrank-nightly-1/check-logs/data_docs/index.html", DOCS)):
        status, headers, body = send(address, f"/nights/{LAST}/3/{path}")
        assert (status, body.decode()) == (200, text)
        assert "script-src" not in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        f"/nights/{LAST}/3/night.json",
        f"/nights/{LAST}/3/../../../workspace.json",
        f"/nights/{LAST}/3/%2e%2e/%2e%2e/%2e%2e/workspace.json",
        f"/nights/{LAST}/3/artifacts/goalrank-nightly-1/check-logs/data_docs/..%2f..%2f..%2f..%2fnight.json",
        "/nights//etc/passwd",
        "/nights/%2fetc%2fpasswd",
        "/comparisons/",
        "/comparisons/%2e%2e%2fworkspace.json",
        f"/comparisons/{LAST}-1_{LAST}-2.html",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/playground.html",
        "/docs",
        "/nights/",
    ],
)
def test_no_other_file_can_be_had(address: str, path: str) -> None:
    status, headers, _ = send(address, path)
    assert status == 404 and headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:80", "127.0.0.1.rebound.example", "", "[::2]"])
def test_another_hosts_name_is_refused(address: str, host: str) -> None:
    assert send(address, "/api/users", host=host)[0] == 403


def test_our_own_names_are_not(address: str) -> None:
    port = urlsplit(address).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "localhost"):
        assert send(address, "/", host=host)[0] == 200


# ------------------------------------------------------------------------------------------------------ the playground


def test_users_and_their_requests(address: str) -> None:
    _, busiest = ask(address, "/api/users")
    counts = [user["requests"] for user in busiest]
    assert counts == sorted(counts, reverse=True)
    _, found = ask(address, "/api/users?q=2")
    assert found[0]["user_id"] == "2" and all(user["user_id"].startswith("2") for user in found)
    _, requests = ask(address, "/api/users/2/requests")
    assert len(requests) == found[0]["requests"]
    times = [one["event_time"] for one in requests]
    assert times == sorted(times, reverse=True) and times[0].startswith(LAST)
    assert ask(address, "/api/users?q=999")[1] == ask(address, "/api/users/999/requests")[1] == []
    assert ask(address, "/api/users?q=%27;drop")[0] == 422


def test_the_champions_list_is_what_the_service_would_answer(address: str, place: PromotedWorkspace) -> None:
    _, described = ask(address, f"/api/requests/{REQUEST}")
    candidates = [{"item_id": int(one["item_id"]), "score": one["score"]} for one in described["candidates"]]
    body = {"user_id": int(described["user_id"]), "candidates": candidates}
    served = rank_once(str(place.folder / "feast"), place.tracking_uri, body)
    lists = {one["name"]: one for one in described["lists"]}
    shown = [int(position["item_id"]) for position in lists["champion"]["opinion"]["positions"]]
    assert (shown, lists["champion"]["version"]) == (served["items"], served["model_version"])
    assert lists.keys() == {"champion", "challenger", "shown", "retriever"} and lists["challenger"]["version"] == "3"
    by_score = sorted(described["candidates"], key=lambda one: -one["score"])
    retrieved = [position["item_id"] for position in lists["retriever"]["opinion"]["positions"]]
    assert retrieved == [one["item_id"] for one in by_score[: len(retrieved)]]
    assert set(described["clicked"]) <= {position["item_id"] for position in lists["shown"]["opinion"]["positions"]}
    assert any(one["title"].startswith(HOSTILE) for one in described["candidates"])


def test_opinions_are_the_reward_models_own(address: str, place: PromotedWorkspace, tmp_path: Path) -> None:
    """Of the registered model called directly, on features read here."""
    version, directory = champion_model(place.tracking_uri, tmp_path, registry.REWARD)
    model = load_model(directory)
    assert isinstance(model, RewardModel)
    logged = LoggedRequests.newest(str(place.folder / "snapshots")).find(REQUEST)
    assert logged is not None
    case = Lists(Models.load(place.tracking_uri), OnlineReader(str(place.folder / "feast")))._read(logged)
    _, described = ask(address, f"/api/requests/{REQUEST}")
    champion = described["lists"][0]["opinion"]
    items = [position["item_id"] for position in champion["positions"]][::-1]
    _, reversed_list = ask(address, "/api/opinion", {"request_id": REQUEST, "items": items})
    for opinion in (champion, reversed_list):
        index = [logged.candidates.index(int(position["item_id"])) for position in opinion["positions"]]
        list_11L = torch.tensor([[index]])
        with torch.inference_mode():
            encoded = model.encode(case.batch)
            expected = model.reward(encoded, list_11L).item()
            click, like, watch = (part.mean(dim=0)[0, 0] for part in model.predict(encoded, list_11L))
        assert opinion["reward"] == pytest.approx(expected, abs=1e-6)
        assert sum(position["worth"] for position in opinion["positions"]) == pytest.approx(expected, abs=1e-5)
        for place_in_list, position in enumerate(opinion["positions"]):
            assert position["click"] == pytest.approx(click[place_in_list].item(), abs=1e-6)
            assert position["like"] == pytest.approx(like[place_in_list].item(), abs=1e-6)
            assert position["watch_minutes"] == pytest.approx(watch[place_in_list].item(), abs=1e-6)
    assert champion["reward"] != reversed_list["reward"] and version.version == "2"


BAD: list[tuple[Any, int, str]] = [
    ({"request_id": "none", "items": []}, 404, "no request 'none'"),
    ({"request_id": 7, "items": []}, 404, "no request"),
    ({"request_id": REQUEST}, 422, "no list of item ids"),
    ({"request_id": REQUEST, "items": [1]}, 422, "no list of item ids, as texts"),
    ({"request_id": REQUEST, "items": ["-1"]}, 422, "no list of item ids"),
    ({"request_id": REQUEST, "items": ["9" * 20]}, 422, "no list of item ids"),
    ({"request_id": REQUEST, "items": ["999"]}, 422, "different candidates"),
    ({"request_id": REQUEST, "items": []}, 422, "expected 1 to 6"),
    ([], 422, "no JSON object"),
]


@pytest.mark.parametrize(("body", "status", "said"), BAD)
def test_what_is_no_list_is_refused_with_the_reason(address: str, body: Any, status: int, said: str) -> None:
    found, document = ask(address, "/api/opinion", body)
    assert found == status and said in document["error"]


def test_bodies_that_are_no_json_too_long_or_a_forms(address: str) -> None:
    for body, kind, said in (
        (b"{", "application/json", "no JSON"),
        (b"[" * 10_000, "application/json", "no JSON"),
        (b" " * (playground.LONGEST_BODY + 1), "application/json", "bytes found"),
        (b"{}", "text/plain", "expected content-type"),
        (b"items=1", "application/x-www-form-urlencoded", "expected content-type"),
    ):
        status, _, text = send(address, "/api/opinion", body, content_type=kind)
        assert status == 422 and said in json.loads(text)["error"]
    assert send(address, "/api/opinion")[0] == 405


def test_an_item_twice_is_no_list(address: str) -> None:
    _, described = ask(address, f"/api/requests/{REQUEST}")
    item = described["candidates"][0]["item_id"]
    assert ask(address, "/api/opinion", {"request_id": REQUEST, "items": [item, item]})[0] == 422


# -------------------------------------------------------------------------------------------------- starting and ending


def test_a_workspace_without_a_champion_still_has_its_pages(tmp_path: Path) -> None:
    played = playground.Playground(Settings.load(workspace=tmp_path / "w"))
    played.load()
    assert played.state == playground.UNAVAILABLE and "run `goalrank nightly` first" in played.reason
    with pages(tmp_path / "w") as address:
        assert b"No night has run here yet" in send(address, "/")[2]
        status, document = ask(address, "/api/users")
        assert status == 503 and document["error"]


def test_a_night_that_came_meanwhile_is_loaded(place: PromotedWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    played = playground.Playground(Settings.load(workspace=place.folder))
    played.load()
    assert played.state == playground.READY
    monkeypatch.setattr(playground, "LOOK_SECONDS", 0.0)
    started: list[bool] = []
    monkeypatch.setattr(played, "start", lambda: started.append(True))
    played.renew()
    assert not started
    client = registry.connect(place.tracking_uri)
    registry.point(client, registry.RANKER, registry.CHALLENGER, "1")
    try:
        played.renew()
        assert started
    finally:
        registry.point(client, registry.RANKER, registry.CHALLENGER, "3")


def test_a_port_that_is_taken_is_usage_and_an_interrupt_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "goalrank_platform", "ui", "--no-open", "--workspace", str(tmp_path / "w")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*command, "--port", port], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "choose another with --port" in done.stderr
    for sent in (signal.SIGINT, signal.SIGTERM):
        running = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stdout is not None and "at http://127.0.0.1:" in running.stdout.readline()
        running.send_signal(sent)
        _, said = running.communicate(timeout=60)
        assert (running.returncode, said) == (0, "")
