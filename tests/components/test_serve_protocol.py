"""What the service speaks besides a single /rank: batches, the Open Inference Protocol v2, metrics."""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from components import registry
from components.serve_model.app import create_app
from components.serve_model.batching import OverloadedError
from components.serve_model.bodies import MAX_BATCH
from components.serve_model.champion import Models, load_champion
from components.serve_model.metrics import Metrics
from components.serve_model.ranking import Ranking
from components.serve_model.served_log import ServedLog
from components.serve_model.service import Service
from goalrank import __version__
from goalrank.schema import LIST_LENGTH
from tests.components.serving import Place, body, make_place, read_logs, tensors

MODEL = f"/v2/models/{registry.RANKER}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Version 2 is the champion, version 1 the one before it."""
    made = make_place(tmp_path_factory.mktemp("place"))
    made.register(seed=1, alias=registry.PREVIOUS)
    made.register(seed=2)
    return made


@pytest.fixture(scope="module")
def models(place: Place) -> Models:
    tracking_uri = place.tracking_uri
    return Models(load_champion(tracking_uri), load_champion(tracking_uri, registry.PREVIOUS), holdback=0.3)


@pytest.fixture
def client(place, models, tmp_path):
    ranking = Ranking(place.features(), models, exploration=0.3, seed=5)
    app = create_app(Service(ranking, ServedLog(tmp_path), Metrics()))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


# --------------------------------------------------------------------------------------------------------------- batch


def test_a_batch_answers_each_request_or_says_why_not(client, tmp_path):
    requests = [body(1), body(2, request_id="mine"), {"user_id": 1}, body(3, list_length=2), body(4, request_id="mine")]
    answers = client.post("/rank", json=requests)
    assert answers.status_code == 200
    first, second, third, fourth, fifth = answers.json()
    assert len(first["items"]) == LIST_LENGTH and second["request_id"] == "mine" and len(fourth["items"]) == 2
    assert third == {"error": "candidates: Field required", "status": 422}
    assert fifth["status"] == 409 and "used before" in fifth["error"]
    feedback = {"request_id": first["request_id"], "position": 1, "click": 1}
    assert client.post("/feedback", json=feedback).status_code == 200
    client.__exit__(None, None, None)
    assert read_logs(tmp_path, "requests").num_rows == 3


def test_limits_of_a_batch(client):
    for size, status in ((0, 422), (1, 200), (MAX_BATCH, 200), (MAX_BATCH + 1, 422)):
        assert client.post("/rank", json=[body(number, candidates=3) for number in range(size)]).status_code == status
    assert (
        client.post("/rank", json=[{}] * 3).json()
        == [{"error": "user_id: Field required; candidates: Field required", "status": 422}] * 3
    )


def test_an_overloaded_service_says_so(place, models, tmp_path, monkeypatch):
    service = Service(Ranking(place.features(), models), ServedLog(tmp_path), Metrics())

    async def full(*args: object, **kwargs: object) -> None:
        raise OverloadedError("2048 requests wait already; try again in a second, or start more servers")

    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        monkeypatch.setattr(service._batches, "ask", full)
        answer = client.post("/rank", json=body(1))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "wait already" in answer.json()["error"]
        assert "wait already" in client.post(f"{MODEL}/infer", json=tensors(body(1))).json()["error"]


# ---------------------------------------------------------------------------------------------------------- inference


def test_server_and_model_metadata(client):
    assert client.get("/v2").json() == {"name": "goalrank", "version": __version__, "extensions": []}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in (MODEL, f"{MODEL}/versions/2"):
        document = client.get(path).json()
        assert document["name"] == registry.RANKER and document["versions"] == ["2", "1"] and document["platform"]
        inputs = {one["name"]: (one["datatype"], one["shape"]) for one in document["inputs"]}
        assert inputs["user_id"] == ("INT64", [-1]) and inputs["scores"] == ("FP32", [-1, -1])
        assert {one["name"] for one in document["outputs"]} >= {"items", "request_id"}
        assert client.get(f"{path}/ready").json() == {"name": registry.RANKER, "ready": True}
    for path in ("/v2/models/other", "/v2/models/other/ready", f"{MODEL}/versions/9", f"{MODEL}/versions/9/ready"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"]


def outputs(document: dict) -> dict[str, list]:
    return {one["name"]: one["data"] for one in document["outputs"]}


def test_tensors_are_answered_like_rank_and_logged(client, tmp_path):
    requests = [body(number) for number in range(8)]
    document = client.post(f"{MODEL}/infer", json=tensors(*requests, id="seven")).json()
    assert document["id"] == "seven" and document["model_name"] == registry.RANKER
    shapes = {one["name"]: (one["datatype"], one["shape"]) for one in document["outputs"]}
    assert shapes["items"] == ("INT64", [8, LIST_LENGTH]) and shapes["request_id"] == ("BYTES", [8])
    found = outputs(document)
    versions = [client.app and answer["model_version"] for answer in client.post("/rank", json=requests).json()]
    assert found["model_version"] == versions  # the same users are held back
    feedback = {"request_id": found["request_id"][3], "position": 6, "like": 1}
    assert client.post("/feedback", json=feedback).status_code == 200
    client.__exit__(None, None, None)
    logged = {row["request_id"]: row for row in read_logs(tmp_path, "requests").to_pylist()}
    for number, name in enumerate(found["request_id"]):
        assert logged[name]["user_id"] == requests[number]["user_id"]
        assert logged[name]["candidates"] == [one["item_id"] for one in requests[number]["candidates"]]


def test_nested_data_scores_of_32_bits_a_length_ids_and_chosen_outputs(client):
    request = tensors(body(1), body(2))
    for tensor in request["inputs"][1:]:
        tensor["data"] = [tensor["data"][:12], tensor["data"][12:]]
    request["inputs"][2]["datatype"] = "FP32"
    request["inputs"].append({"name": "list_length", "shape": [1], "datatype": "INT64", "data": [3]})
    request["inputs"].append({"name": "request_id", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]})
    request["outputs"] = [{"name": "items"}, {"name": "request_id"}]
    document = client.post(f"{MODEL}/infer", json=request).json()
    assert [one["name"] for one in document["outputs"]] == ["items", "request_id"]
    assert document["outputs"][0]["shape"] == [2, 3] and document["outputs"][1]["data"] == ["a", "b"]
    assert client.post(f"{MODEL}/infer", json=request).status_code == 409
    binary = client.post(f"{MODEL}/infer", json=tensors(body(1)), headers={"inference-header-content-length": "9"})
    assert binary.status_code == 400 and "binary" in binary.json()["error"]


def test_a_version_is_probed_without_exploring_or_logging(client, place, tmp_path):
    requests = [body(number) for number in range(12)]
    for version in ("1", "2"):
        document = client.post(f"{MODEL}/versions/{version}/infer", json=tensors(*requests)).json()
        found = outputs(document)
        assert document["model_version"] == version and set(found["model_version"]) == {version}
        assert not any(found["explored"])
        lists = [found["items"][first : first + LIST_LENGTH] for first in range(0, 72, LIST_LENGTH)]
        directory = place.folder / f"version-{version}" / registry.MODEL_FOLDER
        assert lists == place.offline_lists(directory, requests)
    client.__exit__(None, None, None)
    assert read_logs(tmp_path, "requests").num_rows == 0


# ------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_say_what_happened(client, tmp_path):
    answers = client.post("/rank", json=[body(number) for number in range(40)]).json()
    client.post("/rank", json=body(1) | {"user_id": 10**12})
    client.post("/rank", json={})
    client.post(f"{MODEL}/infer", json=tensors(body(1)))
    text = client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[json.dumps(sample.labels, sort_keys=True)] = sample.value

    def value(sample: str, **labels: str) -> float:
        return found[sample].get(json.dumps(labels, sort_keys=True), 0.0)

    assert value("goalrank_requests_total", endpoint="rank", outcome="answered") == 2
    assert value("goalrank_requests_total", endpoint="rank", outcome="invalid") == 1
    assert value("goalrank_requests_total", endpoint="infer", outcome="answered") == 1
    assert value("goalrank_request_seconds_count", endpoint="rank") == 3
    assert value("goalrank_fallbacks_total", kind="unknown_user") == 1
    assert value("goalrank_feature_misses_total", entity="user") == 1
    assert value("goalrank_model_info", name=registry.RANKER, version="2", role="champion") == 1
    assert value("goalrank_model_info", name=registry.RANKER, version="1", role="previous") == 1
    assert value("goalrank_exploration_share") == 0.3 and value("goalrank_holdback_share") == 0.3
    assert value("goalrank_explored_total") >= sum(answer["explored"] for answer in answers) > 0
    assert value("goalrank_held_back_total") >= sum(answer["model_version"] == "1" for answer in answers) > 0
    assert sum(found["goalrank_answers_total"].values()) == 42
    assert value("goalrank_unlogged_requests_total", reason="not_written") == 0
    assert value("goalrank_queue_depth") == 0
    assert value("goalrank_feature_rows_read_total", entity="item") > 0
