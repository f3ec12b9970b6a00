"""Served lists equal the lists made offline from the same features, however the requests reach the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components import registry
from goalrank.schema import LIST_LENGTH
from tests.components.serving import Caller, body, by_score, make_place, post, serving, tensors
from tests.faults.conftest import Seen

REQUESTS = 160
HOLDBACK = 0.3


def test_lists_of_a_real_server_are_the_offline_lists(tmp_path: Path, seen: Seen) -> None:
    place = make_place(tmp_path)
    directories = {"1": place.register(seed=1), "2": place.register(seed=2)}
    place.point("2", previous="1")
    requests = [body(number) for number in range(REQUESTS)]
    right = {version: place.offline_lists(directory, requests) for version, directory in directories.items()}
    assert sum(one != other for one, other in zip(right["1"], right["2"], strict=True)) > REQUESTS / 2
    flags = ("--exploration", "0", "--holdback", str(HOLDBACK), "--poll-seconds", "60")
    infer = f"/v2/models/{registry.RANKER}/infer"
    with serving(place, tmp_path / "served", *flags) as address:
        # Many at once, so that the server answers in batches.
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda one: post(address, "/rank", one), requests))
        in_one_body = post_all(address, requests)
        columns = [
            {one["name"]: one for one in post(address, infer, tensors(*part))["outputs"]}
            for part in (requests[first : first + 40] for first in range(0, REQUESTS, 40))
        ]
    by_tensors = []
    for one in columns:
        data, versions = one["items"]["data"], one["model_version"]["data"]
        lists = [data[first : first + LIST_LENGTH] for first in range(0, len(data), LIST_LENGTH)]
        by_tensors += list(zip(lists, versions, strict=True))
    for number, request in enumerate(requests):
        version, items = answers[number]["model_version"], answers[number]["items"]
        assert items == right[version][number], (number, version)
        assert len(set(items)) == LIST_LENGTH
        assert set(items) <= {candidate["item_id"] for candidate in request["candidates"]}
        assert (in_one_body[number]["model_version"], in_one_body[number]["items"]) == (version, items)
        assert by_tensors[number] == (items, version)
    assert sum(items != by_score(one) for items, one in zip(right["2"], requests, strict=True)) > REQUESTS / 2
    held = sum(answer["model_version"] == "1" for answer in answers)
    assert 0 < held < REQUESTS / 2
    seen(
        f"{REQUESTS} requests to a real server with a holdback of {HOLDBACK:.0%}: many at once, in batch bodies, as "
        "tensors",
        f"every list equals the offline list of the version it names ({held} by the previous one), {LIST_LENGTH} "
        "distinct candidates each",
    )


def post_all(address: str, requests: list[dict]) -> list[dict]:
    caller, answers = Caller(address), []
    for first in range(0, len(requests), 64):
        status, documents = caller.post("/rank", requests[first : first + 64])
        assert status == 200
        answers += documents
    return answers
