"""The champion is swapped again and again under load: no failed request, no answer of two versions."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from pathlib import Path

from tests.components.serving import Caller, body, get, make_place, serving
from tests.faults.conftest import Seen
from tests.faults.test_22_malicious_model import flip, wait_for

CALLERS = 6
SWAPS = 8
REQUESTS = 60
BODY = 5
"""Requests in one body: all of them must name one version."""


def test_no_request_fails_and_no_answer_mixes_versions(tmp_path: Path, seen: Seen) -> None:
    place = make_place(tmp_path)
    directories = {"1": place.register(seed=1), "2": place.register(seed=2)}
    place.point("1")
    requests = [body(number) for number in range(REQUESTS)]
    right = {version: place.offline_lists(directory, requests) for version, directory in directories.items()}
    faults: list[str] = []
    answered: Counter[str] = Counter()
    bodies = 0
    ended = threading.Event()

    def call(first: int) -> None:
        nonlocal bodies
        caller, at = Caller(address), first
        while not ended.is_set():
            numbers = [(at + step) % REQUESTS for step in range(BODY)]
            at += BODY
            try:
                status, answers = caller.post("/rank", [requests[number] for number in numbers])
            except Exception as error:
                faults.append(f"{type(error).__name__}: {error}")
                return
            versions = {answer.get("model_version") for answer in answers}
            if status != 200 or len(versions) != 1:
                faults.append(f"{status}, versions {versions}")
                continue
            (version,) = versions
            wrong = [n for n, answer in zip(numbers, answers, strict=True) if answer["items"] != right[version][n]]
            if wrong or any(answer["fallback"] for answer in answers):
                faults.append(f"version {version}: requests {wrong} are not its offline lists")
            answered[version] += BODY
            bodies += 1

    # Without exploration and holdback each list is the greedy one of the champion, so a mixture would show.
    flags = ("--exploration", "0", "--holdback", "0", "--poll-seconds", "0.1")
    with serving(place, tmp_path / "served", *flags) as address:
        callers = [threading.Thread(target=call, args=(number * 7,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            for swap in range(SWAPS):
                champion = "2" if swap % 2 == 0 else "1"
                place.point(champion, previous="1" if champion == "2" else "2")
                wait_until(address, champion)
            # A version whose weights were altered, then a registry that is gone: the same version goes on.
            flip(place.register(seed=3))
            wait_for(address, 'goalrank_swaps_total{outcome="refused"}')
            database = tmp_path / "mlflow" / "mlflow.db"
            shutil.move(database, database.with_suffix(".away"))
            wait_for(address, "goalrank_registry_away_total")
            before = sum(answered.values())
            time.sleep(0.5)
            assert sum(answered.values()) > before, "nobody was answered while the registry was away"
            shutil.move(database.with_suffix(".away"), database)
            place.point("2", previous="1")
            wait_until(address, "2")
        finally:
            ended.set()
            for caller in callers:
                caller.join()
    assert not faults, faults[:5]
    assert min(answered["1"], answered["2"]) > 0
    seen(
        f"{CALLERS} callers, {sum(answered.values())} requests in {bodies} bodies; {SWAPS + 1} swaps, a damaged "
        "version and a registry taken away in between",
        f"none failed, each body by one version ({answered['1']} lists by 1, {answered['2']} by 2), each list that "
        "version's",
    )


def wait_until(address: str, version: str) -> None:
    end = time.monotonic() + 60
    while get(address, "/ready")["model_version"] != version:
        assert time.monotonic() < end, f"version {version} was not swapped in within a minute"
        time.sleep(0.05)
