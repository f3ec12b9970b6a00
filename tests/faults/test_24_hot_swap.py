"""The champion is swapped again and again under load: no failed request, no list of two versions, no body of two
pairs of champion and predecessor."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from pathlib import Path

from components import registry
from components.serve_model.holdback import held_back
from tests.components.serving import USERS, Caller, body, get, make_place, serving
from tests.faults.conftest import Seen
from tests.faults.test_22_malicious_model import flip, wait_for

CALLERS = 6
SWAPS = 8
HOLDBACK = 0.3
Pair = tuple[str, str | None]
"""Champion and the version before it, as the registry named them together."""
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


def test_with_a_holdback_each_body_is_answered_by_one_pair(tmp_path: Path, seen: Seen) -> None:
    place = make_place(tmp_path)
    directories = {str(seed): place.register(seed=seed) for seed in (1, 2, 3)}
    place.point("1")
    # A user each, so that a pair shows: who is held back is drawn anew for each.
    requests = [body(number) for number in range(USERS)]
    right = {version: place.offline_lists(directory, requests) for version, directory in directories.items()}
    # Between two pairs the champion stands alone, since the registry moves one alias at a time.
    pairs: list[Pair] = [("1", None), ("2", "1"), ("2", None), ("3", "2"), ("3", None), ("1", "3")]
    expected = {pair: [answering(request["user_id"], pair) for request in requests] for pair in pairs}
    assert len({tuple(versions) for versions in expected.values()}) == len(pairs), "no two pairs look alike"
    faults: list[str] = []
    answered: Counter[Pair] = Counter()
    ended = threading.Event()

    def call() -> None:
        caller = Caller(address)
        while not ended.is_set():
            try:
                status, answers = caller.post("/rank", requests)
            except Exception as error:
                faults.append(f"{type(error).__name__}: {error}")
                return
            if status != 200:
                faults.append(f"{status}: {answers}")
                continue
            versions = [answer.get("model_version") for answer in answers]
            explaining = [pair for pair, one in expected.items() if one == versions]
            if not explaining:
                faults.append(f"versions {versions} are of no pair that stood together")
                continue
            answered[explaining[0]] += 1
            wrong = [
                n for n, (one, by) in enumerate(zip(answers, versions, strict=True)) if one["items"] != right[by][n]
            ]
            if wrong:
                faults.append(f"rows {wrong} are not the offline lists of the versions they name")

    flags = ("--exploration", "0", "--holdback", str(HOLDBACK), "--poll-seconds", "0.02")
    with serving(place, tmp_path / "served", *flags) as address:
        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            for swap in range(SWAPS):
                champion, previous = [("2", "1"), ("3", "2"), ("1", "3")][swap % 3]
                # Cleared first: a new champion beside the version before the old one is no pair of a promotion.
                registry.point(registry.connect(place.tracking_uri), registry.RANKER, registry.PREVIOUS, None)
                wait_until(address, None, "previous_version")
                place.point(champion, previous)
                wait_until(address, previous, "previous_version")
                before = answered[champion, previous]
                end = time.monotonic() + 60
                while answered[champion, previous] == before and not faults and time.monotonic() < end:
                    time.sleep(0.02)
        finally:
            ended.set()
            for caller in callers:
                caller.join()
    assert not faults, faults[:5]
    both = {pair: count for pair, count in answered.items() if pair[1] is not None}
    assert len(both) == 3
    seen(
        f"{CALLERS} callers, {sum(answered.values())} bodies of {USERS} users; holdback {HOLDBACK}, {SWAPS} promotions",
        f"none failed; each body by one pair of champion and predecessor ({sum(both.values())} by both versions), each "
        "row the list of the version it names",
    )


def answering(user_id: int, pair: Pair) -> str:
    """Who answers a user while the pair stands."""
    champion, previous = pair
    return previous if previous is not None and held_back(user_id, champion, previous, HOLDBACK) else champion


def wait_until(address: str, version: str | None, which: str = "model_version") -> None:
    end = time.monotonic() + 60
    while get(address, "/ready")[which] != version:
        assert time.monotonic() < end, f"{which} did not become {version} within a minute"
        time.sleep(0.05)
