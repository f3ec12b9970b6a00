"""Wrong requests and missing features at a real server: a 4xx with a reason or a defined fallback, never a 500."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components import registry
from components.serve_model.bodies import MAX_BATCH, MAX_BODY_BYTES, MAX_CANDIDATES
from components.serve_model.ranking import RETRIEVER_POLICY
from goalrank.schema import LIST_LENGTH
from tests.components.serving import Caller, Place, body, by_score, make_place, read_logs, serving, tensors
from tests.faults.conftest import Seen

INFER = f"/v2/models/{registry.RANKER}/infer"


def candidates(*items: Any) -> dict[str, Any]:
    return {"user_id": 1, "candidates": [{"item_id": item, "score": 0.5} for item in items]}


def without(name: str) -> dict[str, Any]:
    document = tensors(body(1))
    document["inputs"] = [one for one in document["inputs"] if one["name"] != name]
    return document


def changed(tensor: str, **more: Any) -> dict[str, Any]:
    document = tensors(body(1))
    for one in document["inputs"]:
        if one["name"] == tensor:
            one.update(more)
    return document


WRONG: list[tuple[str, str, Any, int]] = [
    # what, path, body, status
    ("no body", "/rank", b"", 422),
    ("no JSON", "/rank", b"user_id=1", 422),
    ("cut short", "/rank", b'{"user_id": 1, "candidates": [{"item_', 422),
    ("bytes that are no text", "/rank", b"\xff\xfe\x00\x01", 422),
    ("nested 50,000 deep", "/rank", b"[" * 50_000, 422),
    ("a number of 9,000 digits", "/rank", b'{"user_id": ' + b"9" * 9_000 + b"}", 422),
    ("a number", "/rank", 5, 422),
    ("null", "/rank", None, 422),
    ("an oversized body", "/rank", b" " * (MAX_BODY_BYTES + 1), 413),
    ("an unknown field", "/rank", body(1, colour="red"), 422),
    ("no user", "/rank", {"candidates": body(1)["candidates"]}, 422),
    ("a user of the wrong type", "/rank", body(1) | {"user_id": "1"}, 422),
    ("user 0", "/rank", body(1) | {"user_id": 0}, 422),
    ("a user beyond 64 bits", "/rank", body(1) | {"user_id": 2**63}, 422),
    ("no candidates", "/rank", candidates(), 422),
    ("candidates that are no list", "/rank", {"user_id": 1, "candidates": "1,2"}, 422),
    ("a candidate twice", "/rank", candidates(4, 5, 4), 422),
    ("a negative item", "/rank", candidates(-4), 422),
    ("an item that is a float", "/rank", candidates(4.5), 422),
    ("an item that is true", "/rank", candidates(True), 422),
    ("too many candidates", "/rank", candidates(*range(1, MAX_CANDIDATES + 2)), 422),
    ("a score of NaN", "/rank", b'{"user_id": 1, "candidates": [{"item_id": 1, "score": NaN}]}', 422),
    ("a score of 1e300", "/rank", b'{"user_id": 1, "candidates": [{"item_id": 1, "score": 1e300}]}', 422),
    ("a list of length 0", "/rank", body(1, list_length=0), 422),
    ("a list of length 1,000", "/rank", body(1, list_length=1000), 422),
    ("a request id with a path in it", "/rank", body(1, request_id="../../x"), 422),
    ("a request id of the service's own kind", "/rank", body(1, request_id="served-1"), 422),
    ("an empty batch", "/rank", [], 422),
    ("too large a batch", "/rank", [body(1)] * (MAX_BATCH + 1), 422),
    ("feedback on nothing", "/feedback", {"request_id": "nobody", "position": 1}, 404),
    ("feedback of the wrong type", "/feedback", {"request_id": "nobody", "position": "first"}, 422),
    ("feedback of negative watch time", "/feedback", {"request_id": "a", "position": 1, "watch_seconds": -1}, 422),
    ("v2: no JSON", INFER, b"{", 400),
    ("v2: no inputs", INFER, {}, 400),
    ("v2: inputs of the wrong type", INFER, {"inputs": {"user_id": 1}}, 400),
    ("v2: no user", INFER, without("user_id"), 400),
    ("v2: no scores", INFER, without("scores"), 400),
    ("v2: an unknown tensor", INFER, changed("scores", name="heights"), 400),
    ("v2: a tensor twice", INFER, {"inputs": tensors(body(1))["inputs"] * 2}, 400),
    ("v2: a wrong datatype", INFER, changed("candidates", datatype="FP32"), 400),
    ("v2: a wrong shape", INFER, changed("user_id", shape=[2]), 400),
    ("v2: a shape of 10^9", INFER, changed("candidates", shape=[1, 10**9]), 400),
    ("v2: a negative shape", INFER, changed("candidates", shape=[-1, 12]), 400),
    ("v2: too few data", INFER, changed("scores", data=[0.5]), 400),
    ("v2: data of the wrong type", INFER, changed("candidates", data=["a"] * 12), 400),
    ("v2: ragged data", INFER, changed("candidates", data=[[1, 2], 3]), 400),
    ("v2: an item twice", INFER, changed("candidates", data=[7] * 12), 400),
    ("v2: true as an id", INFER, changed("user_id", data=[True]), 400),
    ("v2: an unknown output", INFER, tensors(body(1), outputs=[{"name": "price"}]), 400),
    ("v2: another model", "/v2/models/other/infer", tensors(body(1)), 404),
    ("v2: a version that does not serve", f"/v2/models/{registry.RANKER}/versions/77/infer", tensors(body(1)), 404),
    ("v2: an oversized body", INFER, b" " * (MAX_BODY_BYTES + 1), 413),
    ("no such path", "/rank/..%2f", body(1), 404),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = make_place(tmp_path_factory.mktemp("place"))
    made.register(seed=1)
    return made


def test_no_wrong_request_is_answered_and_none_is_a_500(place: Place, tmp_path: Path, seen: Seen) -> None:
    with serving(place, tmp_path, "--exploration", "0", "--poll-seconds", "60") as address:
        caller = Caller(address)
        good = caller.post("/rank", body(1))[1]["items"]
        statuses: Counter[int] = Counter()
        for what, path, content, expected in WRONG:
            # A refused upload may end its connection.
            status, document = (caller if expected != 413 else Caller(address)).post(path, content)
            assert status == expected, (what, status, document)
            assert document["error"] and isinstance(document["error"], str), what
            statuses[status] += 1
        # In a batch the good ones are answered, the others say why not.
        status, answers = caller.post("/rank", [body(1), candidates(4, 4), body(2), 5])
        assert status == 200
        assert [answer.get("status") for answer in answers] == [None, 422, None, 422]
        assert answers[0]["items"] == good and "found twice" in answers[1]["error"]
        assert caller.post("/rank", body(1))[1]["items"] == good
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    seen(f"{len(WRONG)} kinds of wrong bodies to /rank, /feedback and the v2 protocol", f"{counts}; no 500, no list")


def test_fewer_candidates_unknown_ids_and_missing_features_have_a_defined_answer(
    place: Place, tmp_path: Path, seen: Seen
) -> None:
    with serving(place, tmp_path, "--exploration", "0", "--keep-seconds", "0") as address:
        caller = Caller(address)
        for count in (1, 3, LIST_LENGTH - 1):
            request = body(3, candidates=count)
            status, answer = caller.post("/rank", request)
            assert status == 200 and answer["fallback"] is None
            assert sorted(answer["items"]) == sorted(one["item_id"] for one in request["candidates"])
        stranger = body(1) | {"user_id": 10**15}
        status, answer = caller.post("/rank", stranger)
        assert (status, answer["fallback"]) == (200, "unknown_user")
        valid(stranger, answer)
        half_known = body(1)
        for place_in_list in range(6):
            half_known["candidates"][place_in_list]["item_id"] = 10**15 + place_in_list
        status, answer = caller.post("/rank", half_known)
        assert (status, answer["fallback"]) == (200, None)
        valid(half_known, answer)
        all_new = body(1)
        for number, candidate in enumerate(all_new["candidates"]):
            candidate["item_id"] = 10**15 + number
        status, answer = caller.post("/rank", all_new)
        assert (status, answer["fallback"]) == (200, "missing_features")
        assert answer["items"] == by_score(all_new)
        away = place.online_database.with_suffix(".away")
        shutil.move(place.online_database, away)
        try:
            status, answer = caller.post("/rank", body(2))
        finally:
            shutil.move(away, place.online_database)
        assert (status, answer["fallback"]) == (200, "store_away")
        assert answer["items"] == by_score(body(2))
    assert RETRIEVER_POLICY in read_logs(tmp_path, "requests")["policy"].to_pylist()
    seen(
        "fewer candidates than the list is long; an unknown user; unknown items; no item known; the store taken away",
        "all of them ranked; the model on the items alone (unknown_user); the model; the retriever's order "
        "(missing_features); the retriever's order (store_away)",
    )


def valid(request: dict[str, Any], answer: dict[str, Any]) -> None:
    items = answer["items"]
    assert len(set(items)) == LIST_LENGTH and set(items) <= {one["item_id"] for one in request["candidates"]}
