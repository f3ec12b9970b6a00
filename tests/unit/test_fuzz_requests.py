"""Thousands of bodies at the real application: none is a 500, none is accepted that should not be, no list is wrong.

The store is a stand-in that answers at once; parser, limits, routes, batching, ranking and journal are the real ones.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from components.serve_model.app import create_app
from components.serve_model.bodies import (
    ISSUED_PREFIX,
    MAX_ABSOLUTE_SCORE,
    MAX_BATCH,
    MAX_CANDIDATES,
    MAX_LIST_LENGTH,
    MAX_WATCH_SECONDS,
)
from components.serve_model.champion import Models
from goalrank import schema
from tests.unit import instant_service
from tests.unit.instant_service import INFER, champion, service

EXAMPLES = 900
"""A test; three of them, each example one body. About 20 s in all."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    models = Models(champion("1"), champion("2", seed=1), holdback=0.3)
    app = create_app(service(tmp_path_factory.mktemp("served"), models, exploration=0.5, seed=0))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


# ---------------------------------------------------------------------------------------------------------- strategies

NUMBERS = st.one_of(
    st.integers(),
    st.integers(1, 60),
    st.sampled_from([0, -1, 2**63 - 1, 2**63, 10**30, 1e300, -0.0, 1.5, math.nan, math.inf]),
    st.floats(),
)
ODD = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.just([]), st.just({}))
DOCUMENTS = st.recursive(
    ODD, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4))
)
IDS = st.text(alphabet="abcXYZ019._:-/\n ", min_size=0, max_size=12)
GOOD_IDS = st.from_regex(r"[a-z0-9]{9}", fullmatch=True)


def sometimes_odd(strategy: st.SearchStrategy, share: int = 12) -> st.SearchStrategy:
    """Mostly what it should be."""
    return st.integers(0, share).flatmap(lambda drawn: ODD if drawn == share else strategy)


CANDIDATE = st.fixed_dictionaries(
    {"item_id": sometimes_odd(st.integers(1, 60), 30), "score": sometimes_odd(st.floats(-5, 5), 30)},
)
REQUEST = st.fixed_dictionaries(
    {"user_id": sometimes_odd(st.integers(1, 2**63 - 1)), "candidates": sometimes_odd(st.lists(CANDIDATE, max_size=9))},
    optional={"request_id": IDS, "list_length": sometimes_odd(st.integers(1, 50)), "extra": DOCUMENTS},
)
GOOD = st.fixed_dictionaries(
    {
        "user_id": st.integers(1, 2**63 - 1),
        "candidates": st.lists(
            st.fixed_dictionaries({"item_id": st.integers(1, 60), "score": st.floats(-5, 5)}),
            min_size=1,
            max_size=12,
            unique_by=lambda one: one["item_id"],
        ),
    },
    optional={"list_length": st.integers(1, 50)},
)
FEEDBACK = st.fixed_dictionaries(
    {"request_id": IDS, "position": sometimes_odd(st.integers(1, 6))},
    optional={"click": sometimes_odd(st.integers(0, 1)), "watch_seconds": sometimes_odd(st.floats(0, 100))},
)


PATHS = st.sampled_from([INFER, INFER, *(INFER.replace("/infer", f"/versions/{one}/infer") for one in (1, 2, 3))])
"""Version 1 is the champion, 2 the one before it; 3 does not serve."""


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    """An inference request, some of it off."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    ids = draw(st.lists(st.integers(1, 60), min_size=rows * width, max_size=rows * width, unique=draw(st.booleans())))
    users = [draw(st.integers(1, 99)) for _ in range(rows)]
    inputs = [
        {"name": "user_id", "shape": [rows], "datatype": "INT64", "data": users},
        {"name": "candidates", "shape": [rows, width], "datatype": "INT64", "data": ids},
        {"name": "scores", "shape": [rows, width], "datatype": "FP32", "data": [0.5] * (rows * width)},
    ]
    if draw(st.booleans()):
        # Few different ones: repetitions, of an earlier body and within one, have to come up.
        names = [draw(sometimes_odd(st.one_of(st.sampled_from("abcdefgh"), GOOD_IDS), 20)) for _ in range(rows)]
        inputs.append({"name": "request_id", "shape": [rows], "datatype": "BYTES", "data": names})
    if draw(st.booleans()):
        length = draw(sometimes_odd(st.integers(1, MAX_LIST_LENGTH), 20))
        inputs.append({"name": "list_length", "shape": [1], "datatype": "INT64", "data": [length]})
    for _ in range(draw(st.integers(-2, 2))):
        tensor = draw(st.sampled_from(inputs))
        tensor[draw(st.sampled_from(["name", "shape", "datatype", "data"]))] = draw(DOCUMENTS)
    return {"inputs": inputs} | draw(
        st.dictionaries(st.sampled_from(["id", "outputs", "extra"]), DOCUMENTS, max_size=1)
    )


def mangled(text: bytes, at: int, junk: bytes) -> bytes:
    """The text with a piece replaced."""
    at %= len(text) + 1
    return text[:at] + junk + text[at + len(junk) :]


def as_json(strategy: st.SearchStrategy) -> st.SearchStrategy[bytes]:
    """Its values as bodies."""
    return strategy.map(lambda one: json.dumps(one).encode())


BODIES = st.one_of(
    st.binary(max_size=200),
    as_json(DOCUMENTS),
    as_json(REQUEST),
    as_json(GOOD),
    as_json(st.lists(st.one_of(GOOD, sometimes_odd(REQUEST, 4)), max_size=4)),
    st.builds(mangled, as_json(GOOD), st.integers(0, 400), st.binary(max_size=4)),
)
OFTEN = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


# --------------------------------------------------------------------------------------------------------------- rules


def whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def acceptable(one: Any) -> bool:
    """What a ranking request must be, restated without pydantic."""
    if not isinstance(one, dict) or not one.keys() <= {"user_id", "candidates", "request_id", "list_length"}:
        return False
    offered, request_id = one.get("candidates"), one.get("request_id")
    if not isinstance(offered, list) or not 1 <= len(offered) <= MAX_CANDIDATES:
        return False
    for candidate in offered:
        if not isinstance(candidate, dict) or candidate.keys() != {"item_id", "score"}:
            return False
        if not whole(candidate["item_id"], 1, 2**63 - 1):
            return False
        if not number(candidate["score"], -MAX_ABSOLUTE_SCORE, MAX_ABSOLUTE_SCORE):
            return False
    if request_id is not None:
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-")
        plain = isinstance(request_id, str) and 1 <= len(request_id) <= 64 and set(request_id) <= allowed
        if not plain or not request_id[0].isalnum() or request_id.startswith(ISSUED_PREFIX):
            return False
    return (
        whole(one.get("user_id"), 1, 2**63 - 1)
        and whole(one.get("list_length", 6), 1, MAX_LIST_LENGTH)
        and len({candidate["item_id"] for candidate in offered}) == len(offered)
    )


def parsed(content: bytes) -> Any:
    try:
        return json.loads(content.decode())  # text first: other encodings than UTF-8 are refused
    except (ValueError, RecursionError):
        return None  # nothing that is acceptable


def check_list(request: dict[str, Any], answer: dict[str, Any]) -> None:
    offered = [candidate["item_id"] for candidate in request["candidates"]]
    items = answer["items"]
    assert len(items) == len(set(items)) == min(request.get("list_length", schema.LIST_LENGTH), len(offered))
    assert set(items) <= set(offered)
    assert answer["fallback"] in (None, "unknown_user", "missing_features")


# --------------------------------------------------------------------------------------------------------------- tests

seen: Counter[str] = Counter()


@OFTEN
@example(b'{"user_id":1,"candidates":[{"item_id":1,"score":1}],"user_id":true}')
@example(b'\xef\xbb\xbf{"user_id":1,"candidates":[{"item_id":1,"score":1}]}')
@example(b'[{"reason": "x", "status": 200}]')
@given(BODIES)
def test_rank_answers_what_is_acceptable_and_refuses_the_rest(client: TestClient, content: bytes) -> None:
    answer = client.post("/rank", content=content)
    assert answer.status_code in (200, 409, 422), (answer.status_code, answer.text)
    document, asked = answer.json(), parsed(content)
    seen[str(answer.status_code)] += 1
    if answer.status_code != 200:
        assert document["error"] and not (isinstance(asked, dict) and acceptable(asked) and answer.status_code == 422)
    elif isinstance(asked, list):
        assert 1 <= len(asked) == len(document) <= MAX_BATCH
        for one, given_answer in zip(asked, document, strict=True):
            if "items" in given_answer:
                assert acceptable(one)
                check_list(one, given_answer)
                seen["lists"] += 1
            else:
                assert given_answer["error"] and given_answer["status"] in (409, 422)
                assert given_answer["status"] == 409 or not acceptable(one)
    else:
        assert acceptable(asked)
        check_list(asked, document)
        seen["lists"] += 1


used: set[str] = set()
"""Request ids of inferences that were answered and logged."""


@OFTEN
@given(
    PATHS,
    st.one_of(
        st.binary(max_size=200),
        st.builds(lambda one: json.dumps(one).encode(), st.one_of(tensors(), tensors(), tensors(), DOCUMENTS)),
    ),
)
def test_inference_never_breaks(client: TestClient, path: str, content: bytes) -> None:
    answer = client.post(path, content=content)
    assert answer.status_code in (200, 400, 404, 409), (answer.status_code, answer.text)
    document = answer.json()
    seen[f"v2 {answer.status_code}"] += 1
    assert (answer.status_code == 404) == ("versions/3" in path)
    probed = "versions" in path
    if answer.status_code in (400, 404):
        assert document["error"]
        return
    inputs = {one["name"]: one for one in json.loads(content)["inputs"]}
    rows, width = inputs["candidates"]["shape"]
    names = (
        [value for one in inputs["request_id"]["data"] for value in (one if isinstance(one, list) else [one])]
        if "request_id" in inputs
        else []
    )
    if answer.status_code == 409:
        assert not probed and (len(set(names)) < len(names) or used & set(names))
        return
    if not probed:
        assert len(set(names)) == len(names) and not used & set(names)
        used.update(names)
    outputs = {one["name"]: one for one in document["outputs"]}
    if probed and "model_version" in outputs:
        assert set(outputs["model_version"]["data"]) == {path.split("/")[-2]}
    if probed and "explored" in outputs:
        assert not any(outputs["explored"]["data"])
    if names and not probed and "request_id" in outputs:
        assert outputs["request_id"]["data"] == names
    items = outputs.get("items")
    if items is None:
        return
    wanted = inputs["list_length"]["data"][0] if "list_length" in inputs else schema.LIST_LENGTH
    length = min(wanted, width)
    assert items["shape"] == [rows, length]
    flat = inputs["candidates"]["data"]
    offered = [value for row in flat for value in row] if isinstance(flat[0], list) else flat
    for row in range(rows):
        chosen = items["data"][row * length : (row + 1) * length]
        assert len(set(chosen)) == length and set(chosen) <= set(offered[row * width : (row + 1) * width])


@OFTEN
@given(
    st.one_of(st.binary(max_size=100), st.builds(lambda one: json.dumps(one).encode(), st.one_of(FEEDBACK, DOCUMENTS)))
)
def test_feedback_never_breaks(client: TestClient, content: bytes) -> None:
    answer = client.post("/feedback", content=content)
    assert answer.status_code in (200, 404, 422), (answer.status_code, answer.text)
    if answer.status_code == 200:
        one = json.loads(content)
        assert whole(one["position"], 1, MAX_LIST_LENGTH) and whole(one.get("click", 0), 0, 1)
        assert one.get("watch_seconds") is None or number(one["watch_seconds"], 0, MAX_WATCH_SECONDS)


def test_both_answers_and_refusals_were_seen() -> None:
    """Else the fuzzing would have missed one side."""
    if not seen:
        pytest.skip("counts what the tests above saw")
    assert seen["lists"] > 50 and seen["422"] > 100 and seen["v2 200"] > 50 and seen["v2 400"] > 100
    assert seen["v2 404"] > 50 and seen["v2 409"] > 10


def test_a_null_in_a_tensor_is_refused(client: TestClient) -> None:
    """Found by chance above: a null request_id was taken for one that is not given, and an id was made up."""
    answer = client.post(INFER, json=instant_service.tensors(instant_service.request(1), request_id=[None]))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("request_id holds null, expected values alone")
