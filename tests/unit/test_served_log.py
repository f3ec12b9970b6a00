"""What the service logs: request ids taken once, segments written once, damage that stops nobody."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from components import registry
from components.serve_model.app import create_app
from components.serve_model.bodies import FeedbackBody, RankBody
from components.serve_model.ranking import Ranked
from components.serve_model.served_log import JOURNAL, RepeatedRequestError, ServedLog, UnknownRequestError
from goalrank import schema
from tests.unit.instant_service import INFER, request, service, tensors

DAY = 86_400.0
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()


def asked(request_id: str | None = None, user_id: int = 7) -> RankBody:
    offered = [{"item_id": 1, "score": 0.5}, {"item_id": 2, "score": 0.25}]
    return RankBody.model_validate({"user_id": user_id, "candidates": offered, "request_id": request_id})


RANKED = Ranked([2, 1], [0.5, 1.0], f"{registry.RANKER}:1", registry.RANKER, "1", None, False)


def written(logs: Path, table: str) -> pa.Table:
    files = sorted((logs / table).glob("dt=*/served-*.parquet"))
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return pa.concat_tables(tables) if tables else schema.LOG_TABLES[table].empty_table()


def days(logs: Path, table: str) -> list[str]:
    return sorted(path.parent.name.removeprefix("dt=") for path in (logs / table).glob("dt=*/served-*.parquet"))


# ---------------------------------------------------------------------------------------------------------- request ids


def test_ids_are_claimed_one_by_one_or_all_together(tmp_path):
    log = ServedLog(tmp_path)
    assert log.claim([asked("a"), asked(), asked("b")]) == [None] * 3
    first, again, none, twice = log.claim([asked("c"), asked("a"), asked(), asked("c")])
    assert first is None and none is None
    assert "'a' was used before" in str(again) and "'c' was used before" in str(twice)
    for bodies in ([asked("d"), asked("e"), asked("a")], [asked("d"), asked("d")]):
        assert {type(one) for one in log.claim(bodies, together=True)} == {RepeatedRequestError}
    assert log.claim([asked("d"), asked("e")], together=True) == [None] * 2, "a refused body takes no id"
    log.give_back([asked("d"), asked()])
    assert log.claim([asked("d")]) == [None]


def test_one_repeated_id_refuses_a_whole_inference_and_logs_nothing_of_it(tmp_path):
    served = service(tmp_path, exploration=0.0)
    with TestClient(create_app(served)) as client:

        def infer(*ids: str) -> tuple[int, dict[str, Any]]:
            requests = [request(number) for number in range(len(ids))]
            answer = client.post(INFER, json=tensors(*requests, request_id=list(ids)))
            return answer.status_code, answer.json()

        assert infer("a", "b")[0] == 200
        status, document = infer("c", "d", "a")
        assert status == 409 and "'a' was used before" in document["error"]
        assert infer("x", "x")[0] == 409, "twice in one body"
        feedback = client.post("/feedback", json={"request_id": "c", "position": 1, "click": 1})
        assert feedback.status_code == 404, "nothing was served under it"
        assert infer("c", "d")[0] == 200 and infer("x")[0] == 200, "ids of refused bodies are free"
        # A batch of /rank has an answer for each: one repetition harms no other, and is not ranked at all.
        answers = client.post("/rank", json=[request(1, request_id=name) for name in ("e", "a", "e")]).json()
        assert [answer.get("status") for answer in answers] == [None, 409, 409]
        assert served.metrics.registry.get_sample_value("goalrank_answers_total", {"version": "1"}) == 6
        assert served.metrics.registry.get_sample_value("goalrank_repeated_total") == 3 + 2 + 2
    assert sorted(written(tmp_path, "requests")["request_id"].to_pylist()) == ["a", "b", "c", "d", "e", "x"]


def test_a_batch_that_could_not_be_answered_used_no_id(tmp_path, monkeypatch):
    served = service(tmp_path)

    def breaks(asked: object) -> None:
        raise RuntimeError("a bug")

    with TestClient(create_app(served), raise_server_exceptions=False) as client:
        with monkeypatch.context() as patched:
            patched.setattr(served.ranking, "rank_all", breaks)
            assert client.post("/rank", json=request(1, request_id="mine")).status_code == 500
        assert client.post("/rank", json=request(1, request_id="mine")).status_code == 200
        assert client.post("/rank", json=request(1, request_id="mine")).status_code == 409


def test_a_full_disk_uses_no_id(tmp_path, monkeypatch):
    log = ServedLog(tmp_path)
    with monkeypatch.context() as full:
        full.setattr("os.write", lambda descriptor, content: 0)
        assert log.record(asked("mine"), RANKED) == "mine" and log.unlogged == 1
    with pytest.raises(UnknownRequestError):
        log.feedback(FeedbackBody(request_id="mine", position=1, click=1))
    assert log.record(asked("mine"), RANKED) == "mine" and log.unlogged == 1, "sent again, it is taken"
    log.feedback(FeedbackBody(request_id="mine", position=1, click=1))
    with pytest.raises(RepeatedRequestError):
        log.record(asked("mine"), RANKED)
    log.close()
    assert written(tmp_path, "requests")["request_id"].to_pylist() == ["mine"]


def kept(log: ServedLog) -> set[str]:
    return set().union(*log._client_ids.values())


def test_ids_are_forgotten_once_no_repetition_can_meet_them(tmp_path):
    """A process that lives for weeks holds the ids a fresh start would read, and those not written yet."""
    now = [NOON]
    log = ServedLog(tmp_path, window_seconds=600, segment_seconds=60, clock=lambda: now[0])
    for day in range(20):
        log.record(asked(f"day-{day}"), RANKED)
        now[0] += 61
        log.flush_due()
        now[0] += 600
        log.flush_due()
        expected = {f"day-{one}" for one in range(max(0, day - schema.LATENESS_DAYS), day + 1)}
        assert kept(log) == expected == kept(ServedLog(tmp_path, clock=lambda: now[0]))
        now[0] += DAY - 661
    log.record(asked("day-0"), RANKED)
    with pytest.raises(RepeatedRequestError):
        log.record(asked("day-19"), RANKED)


def test_ids_that_could_not_be_written_for_days_are_kept_from_the_day_they_arrive(tmp_path, monkeypatch):
    now = [NOON]
    log = ServedLog(tmp_path, window_seconds=600, segment_seconds=60, clock=lambda: now[0])
    log.record(asked("mine"), RANKED)

    def full(*args: object) -> None:
        raise OSError(28, "no space left")

    with monkeypatch.context() as disk:
        disk.setattr(pq, "write_table", full)
        for _ in range(12):
            now[0] += DAY / 2
            try:
                log.flush_due()
            except OSError:
                assert kept(log) == {"mine"}
    for back in range(schema.LATENESS_DAYS + 2):
        log.flush_due()
        assert kept(log) == ({"mine"} if back <= schema.LATENESS_DAYS else set())
        now[0] += DAY
    assert days(tmp_path, "requests") == ["2026-01-11"]


def test_record_refuses_an_id_used_before(tmp_path):
    log = ServedLog(tmp_path)
    assert log.record(asked("mine"), RANKED) == "mine"
    with pytest.raises(RepeatedRequestError, match="'mine' was used before"):
        log.record(asked("mine"), RANKED)


# -------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("later", [schema.LATENESS_DAYS, schema.LATENESS_DAYS + 1, 30])
def test_impressions_that_come_too_late_for_their_requests_are_dropped(tmp_path, monkeypatch, caplog, later):
    """A disk that fills between the two tables, and a start days later: a night would refuse the impressions."""
    log = ServedLog(tmp_path, clock=lambda: NOON)
    log.record(asked("mine"), RANKED)
    write = pq.write_table

    def fills_up(rows: pa.Table, path: Path) -> None:
        if "impressions" in path.name:
            raise OSError(28, "no space left")
        write(rows, path)

    with monkeypatch.context() as disk:
        disk.setattr(pq, "write_table", fills_up)
        log.close()
    assert days(tmp_path, "requests") == ["2026-01-05"] and not days(tmp_path, "impressions")
    caplog.clear()
    ServedLog(tmp_path, clock=lambda: NOON + later * DAY)
    assert days(tmp_path, "requests") == ["2026-01-05"]
    if later <= schema.LATENESS_DAYS:
        assert days(tmp_path, "impressions") == ["2026-01-08"] and not caplog.records
    else:
        assert not days(tmp_path, "impressions")
        assert "2 impressions of served-" in caplog.text and "arrived on 2026-01-05" in caplog.text
    assert list((tmp_path / JOURNAL).iterdir()) == [], "nothing is tried again for ever"


GOOD = {
    "request_id": "good",
    "user_id": 7,
    "event_time": int(NOON * 1_000_000),
    "candidates": [1, 2, 3],
    "candidate_scores": [0.5, 0.25, 1],
    "policy": "goalrank-ranker:1",
    "items": [2, 1],
    "propensities": [0.5, 1.0],
}
TOLD = {"feedback_on": "good", "position": 1, "click": 1, "like": 0, "watch_seconds": 2.5}


@pytest.mark.parametrize(
    "line",
    [
        {"request_id": "a", "user_id": "x"},
        {"request_id": "a"},
        {},
        5,
        [],
        b"\x00\x00",
        b'{"request_id": "a", "user_',
        json.dumps(GOOD).encode().replace(b"ranker", b"\xff\xfe"),
        b'{"a":' * 500,
        GOOD | {"colour": "red"},
        GOOD | {"user_id": 7.5},
        GOOD | {"user_id": 0},
        GOOD | {"user_id": 2**63},
        GOOD | {"event_time": "2026-01-05"},
        GOOD | {"policy": None},
        GOOD | {"candidates": []},
        GOOD | {"candidates": [1, 2]},
        GOOD | {"candidates": [1, 2, None]},
        GOOD | {"candidates": [[1], [2], [3]]},
        GOOD | {"candidate_scores": [0.5, 0.25, math.nan]},
        GOOD | {"items": None},
        GOOD | {"items": []},
        GOOD | {"items": [1, 2, 3, 4]},
        GOOD | {"items": [2, -1]},
        GOOD | {"propensities": [0.5]},
        GOOD | {"propensities": [0.5, 1.5]},
        GOOD | {"propensities": [0.5, None]},
        GOOD | TOLD,
        TOLD | {"position": None},
        TOLD | {"position": 0},
        TOLD | {"position": "first"},
        TOLD | {"click": 2},
        TOLD | {"like": None},
        TOLD | {"watch_seconds": -1},
        TOLD | {"watch_seconds": math.inf},
    ],
)
def test_a_damaged_line_is_set_aside_and_stops_nobody(tmp_path, caplog, line):
    content = line if isinstance(line, bytes) else json.dumps(line).encode()
    lines = [json.dumps(GOOD).encode(), content, json.dumps(TOLD).encode()]
    folder = tmp_path / JOURNAL
    folder.mkdir()
    (folder / "1-abc.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    ServedLog(tmp_path, clock=lambda: NOON)
    assert written(tmp_path, "requests")["request_id"].to_pylist() == ["good"]
    impressions = written(tmp_path, "impressions")
    assert impressions["item_id"].to_pylist() == [2, 1] and impressions["click"].to_pylist() == [1, 0]
    assert [path.name for path in folder.iterdir()] == ["1-abc.damaged"]
    assert (folder / "1-abc.damaged").read_bytes() == content + b"\n"
    assert "1 lines of" in caplog.text and "1-abc.damaged" in caplog.text


def test_feedback_whose_answer_is_damaged_or_that_has_no_place_is_passed_over(tmp_path):
    """Also where no answer is left at all."""
    folder = tmp_path / JOURNAL
    folder.mkdir()
    orphan, beyond = TOLD | {"feedback_on": "gone"}, TOLD | {"position": 3}
    for name, lines in (("1-a", [GOOD, orphan, beyond]), ("2-b", [GOOD | {"user_id": "x"}, TOLD])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ServedLog(tmp_path, clock=lambda: NOON)
    assert written(tmp_path, "requests").num_rows == 1
    assert written(tmp_path, "impressions")["click"].to_pylist() == [0, 0]
    assert [path.name for path in folder.iterdir()] == ["2-b.damaged"]


def test_what_the_service_writes_is_no_damage(tmp_path, caplog):
    log = ServedLog(tmp_path, clock=lambda: NOON)
    by_retriever = Ranked([1, 2], None, "goalrank-fallback:retriever", registry.RANKER, "1", "store_away", False)
    smallest = Ranked([2], [float(np.finfo(np.float64).tiny)], "p", registry.RANKER, "1", None, True)
    log.record_all([(asked("a"), RANKED), (asked("b"), by_retriever), (asked("c"), smallest)])
    log.feedback(FeedbackBody(request_id="b", position=2))
    log.feedback(FeedbackBody(request_id="c", position=1, like=1, watch_seconds=0))
    log.close()
    assert not caplog.records and written(tmp_path, "requests").num_rows == 3
    assert written(tmp_path, "impressions")["propensity"].null_count == 2
