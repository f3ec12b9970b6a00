"""The ranking service on real parts: Feast's SQLite store, a ranker registered in MLflow, HTTP."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
import urllib.error
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
import torch
from starlette.testclient import TestClient

from components import registry
from components.feature_store import offline_rows, open_store
from components.serve_model.bodies import MAX_BODY_BYTES, MAX_CANDIDATES, FeedbackBody, parse_rank
from components.serve_model.champion import Champion, champion_model, load_champion
from components.serve_model.exploration import mixture_propensities
from components.serve_model.main import rank_once
from components.serve_model.ranking import MODEL_FAILED, RETRIEVER_POLICY, STORE_AWAY, UNKNOWN_USER, Asked, Ranking
from components.serve_model.served_log import JOURNAL, ServedLog, UnknownRequestError
from goalrank import schema
from goalrank.checkpoint import load_model
from goalrank.dataset import batch_from_rows
from goalrank.errors import CheckpointDamaged, ModelRefused, TryAgain, UsageError
from goalrank.ranker import Ranker
from tests.components.serving import (
    LAST,
    Place,
    address_of,
    app_of,
    body,
    launch,
    make_place,
    post,
    read_logs,
    register,
)
from tests.components.tiny_snapshot import midnight


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A materialised store; version 1 is the champion."""
    made = make_place(tmp_path_factory.mktemp("place"))
    made.register(seed=3)
    return made


@pytest.fixture(scope="module")
def champion(place: Place) -> Champion:
    return load_champion(place.tracking_uri)


@pytest.fixture
def client(place, champion, tmp_path):
    ranking = Ranking(place.features(), champion, exploration=0.0)
    with TestClient(app_of(ranking, ServedLog(tmp_path / "logs")), raise_server_exceptions=False) as client:
        yield client


# ------------------------------------------------------------------------------------------------------------- answers


def test_served_lists_equal_the_lists_made_offline(place, client):
    """Same requests, features from the offline store, model from the same files."""
    model = load_model(place.folder / "version-3" / registry.MODEL_FOLDER)
    store = open_store(place.feast_uri)
    for number in range(8):
        request = body(number)
        answer = client.post("/rank", json=request)
        assert answer.status_code == 200 and answer.json()["fallback"] is None and not answer.json()["explored"]
        ids = [candidate["item_id"] for candidate in request["candidates"]]
        users = offline_rows(store, "user_id", [request["user_id"]], midnight(LAST, 1))
        items = offline_rows(store, "item_id", ids, midnight(LAST, 1))
        scores = [[candidate["score"] for candidate in request["candidates"]]]
        with torch.inference_mode():
            encoded = model.encode(batch_from_rows(users, items, [0], [list(range(len(ids)))], scores))
            expected = [ids[index] for index in model.greedy(encoded, schema.LIST_LENGTH)[0].tolist()]
        assert answer.json()["items"] == expected
        assert answer.json()["model_name"] == registry.RANKER and answer.json()["model_version"] == "1"


def test_health_and_ready(client):
    assert client.get("/health").json() == {"status": "ok", "unlogged_requests": 0}
    assert client.get("/ready").json()["model_version"] == "1"
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_fewer_candidates_than_the_list_is_long(client):
    for count in (1, 3, 6):
        request = body(5, candidates=count)
        items = client.post("/rank", json=request).json()["items"]
        assert sorted(items) == sorted(candidate["item_id"] for candidate in request["candidates"])
    assert len(client.post("/rank", json=body(5, list_length=9)).json()["items"]) == 9


def test_unknown_user_and_items_get_an_answer_of_the_model(client):
    request = body(1) | {"user_id": 10**15}
    request["candidates"][0]["item_id"] = 2**63 - 1
    answer = client.post("/rank", json=request)
    assert answer.status_code == 200 and answer.json()["fallback"] == UNKNOWN_USER
    assert len(set(answer.json()["items"])) == schema.LIST_LENGTH


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"candidates": []}, "candidates: List should have at least 1 item"),
        ({"candidates": [{"item_id": 1, "score": 0.0}] * 2}, "item 1 found twice, expected distinct items"),
        ({"candidates": [{"item_id": "1", "score": 0.0}]}, "candidates.0.item_id: Input should be a valid integer"),
        ({"candidates": [{"item_id": True, "score": 0.0}]}, "candidates.0.item_id: Input should be a valid integer"),
        ({"candidates": [{"item_id": 1.5, "score": 0.0}]}, "candidates.0.item_id: Input should be a valid integer"),
        ({"candidates": [{"item_id": -1, "score": 0.0}]}, "greater than or equal to 1"),
        ({"candidates": [{"item_id": 2**63, "score": 0.0}]}, "less than or equal to"),
        ({"candidates": [{"item_id": 10**400, "score": 0.0}]}, "candidates.0.item_id"),
        ({"candidates": [{"item_id": 1}]}, "candidates.0.score: Field required"),
        ({"candidates": [{"item_id": 1, "score": "high"}]}, "candidates.0.score: Input should be a valid number"),
        (
            {"candidates": [{"item_id": 1, "score": float("nan")}]},
            "candidates.0.score: Input should be a finite number",
        ),
        ({"candidates": [{"item_id": 1, "score": 1e300}]}, "less than or equal to"),
        ({"candidates": [{"item_id": n, "score": 0.0} for n in range(MAX_CANDIDATES + 1)]}, "at most 1000 items"),
        ({"candidates": None}, "candidates: Input should be a valid array"),
        ({"user_id": None}, "user_id: Input should be a valid integer"),
        ({"list_length": 0}, "list_length: Input should be greater than or equal to 1"),
        ({"list_length": 51}, "list_length: Input should be less than or equal to 50"),
        ({"request_id": "../../etc"}, "request_id: String should match pattern"),
        ({"request_id": "a\nb"}, "request_id: String should match pattern"),
        ({"request_id": "served-1"}, "are made by the service"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(client, change, reason):
    """A 4xx with a reason, never a 500."""
    text = json.dumps(body(1) | change)
    answer = client.post("/rank", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and reason in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 422),
        (b"", 422),
        (b"[]", 422),
        (b"\xff\xfe", 422),
        (b"[" * 100_000, 422),
        (b'{"user_id": ' + b"9" * 10_000 + b"}", 422),
        (b" " * (MAX_BODY_BYTES + 1), 413),
    ],
)
def test_what_is_no_request_at_all_is_a_4xx(client, content, status):
    answer = client.post("/rank", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status and answer.json()["error"]


def test_the_store_away_gives_the_retrievers_order_and_says_so(place, champion, tmp_path, monkeypatch):
    ranking = Ranking(place.features(), champion, exploration=0.5)

    def away(*args: object, **kwargs: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr("feast.FeatureStore.get_online_features", away)
    log = ServedLog(tmp_path)
    with TestClient(app_of(ranking, log)) as client:
        request = body(2)
        answer = client.post("/rank", json=request).json()
    by_score = sorted(request["candidates"], key=lambda candidate: -candidate["score"])
    assert answer["fallback"] == STORE_AWAY
    assert answer["items"] == [candidate["item_id"] for candidate in by_score][: schema.LIST_LENGTH]
    assert read_logs(tmp_path, "requests")["policy"].to_pylist() == [RETRIEVER_POLICY]
    assert set(read_logs(tmp_path, "impressions")["propensity"].to_pylist()) == {None}


def test_a_failing_model_gives_the_retrievers_order_and_says_so(place, champion, monkeypatch):
    broken = Ranker(champion.model.sizes)
    monkeypatch.setattr(broken, "greedy", lambda encoded, length: torch.zeros(1, length, dtype=torch.int64))
    ranked = Ranking(place.features(), Champion(broken, champion.version)).rank(parse_rank(body(2)))
    assert ranked.fallback == MODEL_FAILED and len(set(ranked.items)) == schema.LIST_LENGTH


def test_many_threads_at_once_get_their_own_lists(place, champion):
    ranking = Ranking(place.features(), champion)
    requests = [parse_rank(body(number)) for number in range(12)]
    alone = [ranking.rank(request).items for request in requests]
    together: dict[int, list[int]] = {}

    def work(number: int) -> None:
        together[number] = ranking.rank(requests[number]).items

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(12)] == alone and len({tuple(items) for items in alone}) > 1


def test_rank_once(place):
    answer = rank_once(place.feast_uri, place.tracking_uri, body(4, request_id="mine"))
    assert answer["request_id"] == "mine" and len(answer["items"]) == schema.LIST_LENGTH
    assert "request_id" not in rank_once(place.feast_uri, place.tracking_uri, body(4))
    with pytest.raises(UsageError, match="user_id: Field required"):
        rank_once(place.feast_uri, place.tracking_uri, {"candidates": [{"item_id": 1, "score": 0.0}]})


# --------------------------------------------------------------------------------------------------------- exploration


def test_mixture_propensities_sum_to_one_and_multiply_to_the_mixture():
    """All lists of 2 out of 4 items, a random sequential policy: the product of the propensities is the mixture."""
    rng = np.random.default_rng(0)
    first = rng.dirichlet(np.ones(4))
    second = {top: rng.dirichlet(np.ones(3)) for top in range(4)}
    epsilon, greedy = 0.3, (2, 0)
    total, position_one = 0.0, Counter()
    for pair in itertools.permutations(range(4), 2):
        rest = [item for item in range(4) if item != pair[0]]
        steps = np.array([first[pair[0]], second[pair[0]][rest.index(pair[1])]])
        propensities = mixture_propensities(np.log(steps), np.array(pair) == greedy, epsilon)
        mixture = epsilon * steps.prod() + (1 - epsilon) * (pair == greedy)
        assert propensities.prod() == pytest.approx(mixture, rel=1e-12)
        total += propensities.prod()
        position_one[pair[0]] = propensities[0]
    assert total == pytest.approx(1.0) and sum(position_one.values()) == pytest.approx(1.0)


def test_mixture_propensities_at_the_ends():
    steps = np.log([0.5, 0.25, 1e-320])
    same = np.array([True, True, True])
    assert mixture_propensities(steps, same, 0.0).tolist() == [1.0, 1.0, 1.0]
    sampled = mixture_propensities(steps, np.array([True, False, True]), 1.0)
    assert sampled[:2] == pytest.approx([0.5, 0.25]) and sampled[2] > 0


def test_logged_propensities_match_how_often_lists_are_served(place, champion):
    """Exploring a lot on three candidates: each list's frequency against the product of its logged propensities."""
    ranking = Ranking(place.features(), champion, exploration=0.6, seed=7)
    request, rounds = parse_rank(body(6, candidates=3, list_length=2)), 400
    counts: Counter[tuple[int, ...]] = Counter()
    logged: dict[tuple[int, ...], float] = {}
    explored = 0
    for _ in range(rounds):
        ranked = ranking.rank(request)
        counts[tuple(ranked.items)] += 1
        logged[tuple(ranked.items)] = float(np.prod(ranked.propensities))
        explored += ranked.explored
    for items, probability in logged.items():
        error = 4 * np.sqrt(probability * (1 - probability) / rounds)
        assert counts[items] / rounds == pytest.approx(probability, abs=error)
    assert sum(logged.values()) == pytest.approx(1.0, abs=0.05) and len(logged) > 3
    assert explored / rounds == pytest.approx(0.6, abs=4 * np.sqrt(0.24 / rounds))


def test_whoever_is_answered_again_does_not_explore_a_second_time(place, champion, monkeypatch):
    """A batch of close calls only, then one whose model fails unless alone: the share, and frequency as logged."""
    request, size, rounds, epsilon = parse_rank(body(6, candidates=3, list_length=2)), 10, 60, 0.3
    encode = champion.model.encode

    def fails_together(features):  # type: ignore[no-untyped-def]
        if len(features.mask_BN) > 1:
            raise RuntimeError("too many")
        return encode(features)

    def served(seed: int, alone: int) -> None:
        ranking = Ranking(place.features(), champion, exploration=epsilon, seed=seed)
        counts: Counter[tuple[int, ...]] = Counter()
        logged: dict[tuple[int, ...], float] = {}
        explored = 0
        for _ in range(rounds):
            for ranked in ranking.rank_all([Asked(request, champion)] * size):
                counts[tuple(ranked.items)] += 1
                logged[tuple(ranked.items)] = float(np.prod(ranked.propensities))
                explored += ranked.explored
        total = rounds * size
        assert explored / total == pytest.approx(epsilon, abs=4 * np.sqrt(epsilon * (1 - epsilon) / total))
        for items, probability in logged.items():
            error = 4 * np.sqrt(probability * (1 - probability) / total)
            assert counts[items] / total == pytest.approx(probability, abs=error)
        assert ranking.answered_alone == alone

    monkeypatch.setattr("components.serve_model.ranking.CLOSE_CALL", 1e9)
    served(seed=11, alone=rounds * size)
    monkeypatch.setattr(champion.model, "encode", fails_together)
    served(seed=12, alone=0)


def test_an_explored_close_call_has_the_propensities_it_has_alone(place, champion, monkeypatch):
    """They rest on the greedy list, which a close call's batch might turn."""
    monkeypatch.setattr("components.serve_model.ranking.CLOSE_CALL", 1e9)
    ranking = Ranking(place.features(), champion, exploration=1.0, seed=3)
    ranking.rank_all([Asked(parse_rank(body(number)), champion) for number in range(5)])
    assert ranking.answered_alone == 5


def test_exploration_must_be_a_share(champion):
    with pytest.raises(UsageError, match="exploration is 1.5, expected a share between 0 and 1"):
        Ranking(None, champion, exploration=1.5)


# ------------------------------------------------------------------------------------------------------ the served log


def test_served_requests_and_feedback_become_logs_of_the_contract(place, champion, tmp_path):
    ranking = Ranking(place.features(), champion, exploration=0.5, seed=1)
    sent = {}
    with TestClient(app_of(ranking, ServedLog(tmp_path))) as client:
        for number in range(6):
            request = body(number)
            answer = client.post("/rank", json=request).json()
            sent[answer["request_id"]] = (request, answer["items"])
        first = next(iter(sent))
        assert (
            client.post(
                "/feedback", json={"request_id": first, "position": 2, "click": 1, "watch_seconds": 9.5}
            ).status_code
            == 200
        )
        assert client.post("/feedback", json={"request_id": first, "position": 2, "like": 1}).status_code == 200
        wrong = client.post("/feedback", json={"request_id": first, "position": 7, "click": 1})
        assert wrong.status_code == 404 and "position 7" in wrong.json()["error"]
        assert client.post("/feedback", json={"request_id": "other", "position": 1}).status_code == 404
        assert client.post("/feedback", json={"request_id": first, "position": 1, "click": 2}).status_code == 422
        assert (
            client.post("/feedback", json={"request_id": first, "position": 1, "watch_seconds": -1.0}).status_code
            == 422
        )
        assert read_logs(tmp_path, "requests").num_rows == 0  # still waiting for feedback
    requests, impressions = read_logs(tmp_path, "requests"), read_logs(tmp_path, "impressions")
    assert sorted(requests["request_id"].to_pylist()) == sorted(sent)
    assert set(requests["policy"].to_pylist()) == {f"{registry.RANKER}:1"}
    for row in requests.to_pylist():
        request, items = sent[row["request_id"]]
        assert row["user_id"] == request["user_id"]
        assert row["candidates"] == [candidate["item_id"] for candidate in request["candidates"]]
        assert row["candidate_scores"] == [candidate["score"] for candidate in request["candidates"]]
        shown = [one for one in impressions.to_pylist() if one["request_id"] == row["request_id"]]
        assert [one["position"] for one in shown] == list(range(1, len(items) + 1))
        assert [one["item_id"] for one in shown] == items
        assert all(0 < one["propensity"] <= 1 for one in shown)
    clicked = [row for row in impressions.to_pylist() if row["click"]]
    assert [(row["request_id"], row["position"], row["like"], row["watch_seconds"]) for row in clicked] == [
        (first, 2, 1, 9.5)
    ]
    day = datetime.now(UTC).date().isoformat()
    assert {path.parent.name for path in tmp_path.glob("*/dt=*/*.parquet")} == {f"dt={day}"}
    assert list((tmp_path / JOURNAL).iterdir()) == []


def ranked_and_body(number: int, place, champion):
    request = parse_rank(body(number, request_id=f"r-{number}"))
    return request, Ranking(place.features(), champion).rank(request)


def test_segments_are_written_when_their_feedback_window_is_over(place, champion, tmp_path):
    now = [datetime(2026, 1, 5, 23, 50, tzinfo=UTC).timestamp()]
    log = ServedLog(tmp_path, window_seconds=600, segment_seconds=60, clock=lambda: now[0])
    request, ranked = ranked_and_body(1, place, champion)
    log.record(request, ranked)
    now[0] += 61
    log.flush_due()  # closed, still waiting
    log.feedback(FeedbackBody(request_id="r-1", position=1, click=1))
    assert read_logs(tmp_path, "requests").num_rows == 0
    now[0] += 600
    log.flush_due()
    # Written after midnight: it arrived on the 6th, though served on the 5th.
    assert [path.parent.name for path in (tmp_path / "requests").glob("dt=*/*.parquet")] == ["dt=2026-01-06"]
    assert read_logs(tmp_path, "requests")["event_time"].to_pylist()[0].day == 5
    assert read_logs(tmp_path, "impressions")["click"].to_pylist()[0] == 1
    with pytest.raises(UnknownRequestError, match="window of 600 seconds is over"):
        log.feedback(FeedbackBody(request_id="r-1", position=1, click=1))
    log.close()


def test_a_request_id_used_twice_is_refused_also_after_a_restart(place, champion, tmp_path):
    ranking = Ranking(place.features(), champion)
    for expected in ([200, 409], [409, 409]):
        with TestClient(app_of(ranking, ServedLog(tmp_path))) as client:
            assert [client.post("/rank", json=body(1, request_id="mine")).status_code for _ in range(2)] == expected
    assert read_logs(tmp_path, "requests")["request_id"].to_pylist() == ["mine"]


def test_a_crash_between_the_two_tables_writes_nothing_twice(place, champion, tmp_path, monkeypatch):
    log = ServedLog(tmp_path)
    log.record(*ranked_and_body(2, place, champion))
    write = ServedLog._write_table

    def dies(self: ServedLog, name: str, table: str, rows: pa.Table) -> None:
        if table == "impressions":
            raise OSError(28, "no space left")
        write(self, name, table, rows)

    monkeypatch.setattr(ServedLog, "_write_table", dies)
    log.close()
    assert read_logs(tmp_path, "requests").num_rows == 1 and read_logs(tmp_path, "impressions").num_rows == 0
    monkeypatch.setattr(ServedLog, "_write_table", write)
    ServedLog(tmp_path, clock=lambda: time.time() + 86_400)  # started again on the next day, in another partition
    assert read_logs(tmp_path, "requests").num_rows == 1
    assert read_logs(tmp_path, "impressions").num_rows == schema.LIST_LENGTH


def test_a_full_disk_loses_the_log_line_not_the_answer(place, champion, tmp_path, monkeypatch):
    from components.serve_model.journal import Segment

    log = ServedLog(tmp_path)

    def full(self: Segment, events: list) -> None:
        raise OSError(28, "no space left")

    with TestClient(app_of(Ranking(place.features(), champion), log)) as client:
        monkeypatch.setattr(Segment, "append", full)
        assert client.post("/rank", json=body(1)).status_code == 200
        assert client.get("/health").json()["unlogged_requests"] == 1


def test_a_line_cut_short_by_a_kill_is_passed_over(place, champion, tmp_path):
    log = ServedLog(tmp_path)
    log.record(*ranked_and_body(3, place, champion))
    path = next((tmp_path / JOURNAL).glob("*.jsonl"))
    whole = path.read_bytes()
    log._open.release()
    path.write_bytes(whole + whole.replace(b"r-3", b"r-4")[: len(whole) // 2])
    assert ServedLog(tmp_path).recover() == 0  # nothing is left to recover after the start
    assert read_logs(tmp_path, "requests")["request_id"].to_pylist() == ["r-3"]


# ------------------------------------------------------------------------------------------------------- whole process


def test_kill_and_recover_then_a_graceful_end(place, tmp_path):
    """kill -9 loses nothing that was answered; the next start writes it out, and SIGTERM writes out its own."""
    process = launch(place, tmp_path, "--exploration", "0.2")
    address = address_of(process)
    try:
        killed = [post(address, "/rank", body(number))["request_id"] for number in range(5)]
        post(address, "/feedback", {"request_id": killed[0], "position": 1, "click": 1})
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert read_logs(tmp_path, "requests").num_rows == 0
    process = launch(place, tmp_path, "--exploration", "0.2")
    address = address_of(process)
    try:
        assert sorted(read_logs(tmp_path, "requests")["request_id"].to_pylist()) == sorted(killed)
        assert sum(read_logs(tmp_path, "impressions")["click"].to_pylist()) == 1
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, "/rank", {"user_id": 1})
        assert refused.value.code == 422
        last = post(address, "/rank", body(9))["request_id"]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    assert code == 0 or code == -signal.SIGTERM
    assert sorted(read_logs(tmp_path, "requests")["request_id"].to_pylist()) == sorted([*killed, last])
    assert read_logs(tmp_path, "impressions").num_rows == 6 * schema.LIST_LENGTH


# ------------------------------------------------------------------------------------------------------- the champion


def test_champion_model_finds_the_alias_and_refuses_altered_weights(place, tmp_path):
    tracking_uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(ModelRefused, match="no version of goalrank-ranker has the alias champion"):
        champion_model(tracking_uri, tmp_path)
    register(tmp_path, tracking_uri, seed=1)
    directory = register(tmp_path, tracking_uri, seed=2, alias=registry.CHALLENGER)
    assert champion_model(tracking_uri, tmp_path)[0].version == "1"
    version, found = champion_model(tracking_uri, tmp_path, alias=registry.CHALLENGER)
    assert version.version == "2" and (found / "weights.safetensors").is_file()
    weights = directory / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # one flipped byte
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointDamaged):
        load_champion(tracking_uri, registry.CHALLENGER)


def test_serving_without_a_store_is_try_again(place, tmp_path):
    with pytest.raises(TryAgain):
        rank_once(str(tmp_path / "nothing"), place.tracking_uri, body(1))
