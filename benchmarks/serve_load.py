"""How many requests a second the ranking service answers in time, against MLflow's own model server.

    python -m benchmarks.serve_load [--quick] [--json FILE]

Both servers have one process on one core, the same ranker (preset small, 50 candidates, lists of 6) and the same Feast
online store (SQLite); the load generator has the other core. Requests leave at Poisson times whatever the server does,
and latency counts from when a request was due (load_generator.py). A rate is held if no request fails, every list is
the right one and the 99th percentile is under 100 ms.

The servers compared:
    goalrank            `goalrank serve` as it is by default: exploration 2%, holdback 5%, every answer journalled
    goalrank, no cache  the same with --keep-seconds 0: every row read from the store for every batch
    mlflow              `mlflow models serve`, its model reads the store by Feast's SDK for each request: the claim
    mlflow, cache       its model reads through the ranking service's cache of feature rows
    mlflow, features    the registered pyfunc; the client sends the features, the server reads no store at all

The first claim is about what a team gets that serves the model with MLflow and reads Feast for each request. The second
gives MLflow's server the same cache: what is left is answering in batches and the servers themselves.

Then the soak: 100,000 requests at a steady rate, the champion's alias moving between two versions every few seconds,
and the online store taken away and put back in the middle. Every answer is checked against the list made offline by
the version that it names, or against the fallback it names while the store was away. Once the server has ended, its log
holds as many requests as were answered, but for those it says it could not write (goalrank_unlogged_requests_total).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load_generator import Shot, fire, http_request
from benchmarks.report import Claim, Row, claim, progress, run
from benchmarks.serving_place import Place, build, feature_bodies, move_aliases, register_for_mlflow
from components import registry
from goalrank_platform import root

LIMIT_SECONDS = 0.1
TARGET = 5.0
SOAK_REQUESTS = 100_000
ATTEMPTS = 2
WARMING_PACE = {"goalrank": 150.0, "mlflow": 15.0}
"""Requests a second while a server's caches fill."""
FEWEST = 150
"""Requests at least at each rate: a 99th percentile needs some."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    users: int = 3000
    items: int = 3000
    requests: int = 4000
    size: str = "small"
    seconds: float = 10.0
    warming: int = 600
    refine: int = 3
    soak_requests: int = SOAK_REQUESTS
    soak_share: float = 0.65
    """Rate of the soak, as a share of the highest rate held."""
    swap_every: float = 10.0
    away_seconds: float = 20.0
    soak_keep_seconds: float = 20.0
    variants: bool = True


QUICK = Plan(users=1000, items=1000, requests=1000, seconds=5.0, warming=200, refine=1, soak_requests=10_000,
             swap_every=3.0, away_seconds=5.0, soak_keep_seconds=4.0, variants=False)  # fmt: skip
TINY = Plan(users=60, items=80, requests=60, size="tiny", seconds=1.0, warming=20, refine=0, soak_requests=600,
            swap_every=1.0, away_seconds=1.5, soak_keep_seconds=1.0, variants=False)  # fmt: skip


def measure(plan: Plan) -> tuple[list[Row], list[Claim]]:
    """Rows (a server and a rate each, and the soak) and claims."""
    with tempfile.TemporaryDirectory(prefix="serve-load-") as folder, _cores() as server_core:
        progress(f"building a store of {plan.users} users and {plan.items} items, and {plan.requests} requests")
        place = build(Path(folder) / "place", plan.users, plan.items, plan.requests, plan.size, seed=0)
        rows: list[Row] = []
        held: dict[str, float] = {}
        for name, started in _servers(place, plan, server_core):
            with started as (port, requests, wrong_with):
                held[name] = _highest_rate(name, port, requests, wrong_with, plan, rows)
        ratio = held["goalrank"] / held["mlflow"] if held["mlflow"] else float("nan")
        kept = held.get("mlflow, cache", 0.0)
        cached = held["goalrank"] / kept if kept else float("nan")
        soak, wrong = _soak(place, plan, server_core, max(held["goalrank"] * plan.soak_share, 20.0))
        rows.append(soak)
        claims = [
            claim("highest rate, goalrank over mlflow (p99 under 100 ms, no error)", ratio, "at least", TARGET),
            *([claim("the same over mlflow with this service's cache", cached, "at least", TARGET)] * plan.variants),
            claim("soak: wrong or failed answers", wrong, "at most", 0),
            claim("soak: requests", soak["requests"], "at least", plan.soak_requests),
            claim("soak: answers that the log lacks, or has too many", soak["astray"], "at most", 0),
            claim("soak: champions swapped in while it ran", soak["swaps"], "at least", 2),
            claim("soak: answers given while the store was away", soak["store_away"], "at least", 1),
        ]
        return rows, claims


# ------------------------------------------------------------------------------------------------------------- servers

Started = tuple[int, list[bytes], Callable[[Shot], str]]
"""Port, requests as bytes, and what is wrong with an answer ('' if nothing)."""


def _servers(place: Place, plan: Plan, core: list[str]) -> Iterator[tuple[str, Any]]:
    yield "goalrank", _goalrank(place, core)
    yield "mlflow", _mlflow(place, core, register_for_mlflow(place, 0.0))
    if plan.variants:
        yield "goalrank, no cache", _goalrank(place, core, "--keep-seconds", "0")
        yield "mlflow, cache", _mlflow(place, core, register_for_mlflow(place, 300.0))
        yield "mlflow, features", _mlflow(place, core, "models:/goalrank-ranker/1", with_features=True)


@contextmanager
def _goalrank(place: Place, core: list[str], *flags: str, logs: Path | None = None) -> Iterator[Started]:
    """`goalrank serve`, by its component's own command."""
    logs = logs or Path(tempfile.mkdtemp(dir=place.folder))
    command = [*core, sys.executable, "-m", "components.serve_model.main", "--port", "0", "--logs-uri", str(logs)]
    command += ["--feast-uri", place.feast_uri, "--tracking-uri", place.tracking_uri, *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root(), env=_environment())
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if "answers at" not in line:
            raise RuntimeError(f"the service did not start: {line!r}, exit code {server.poll()}")
        port = int(line.split("answers at ")[1].split()[0].rsplit(":", 1)[1])
        requests = [http_request("/rank", json.dumps(one).encode()) for one in place.requests]
        yield port, requests, lambda shot: _wrong(place, shot)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


@contextmanager
def _mlflow(place: Place, core: list[str], uri: str, with_features: bool = False) -> Iterator[Started]:
    """`mlflow models serve`."""
    port = _free_port()
    command = [*core, sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = _environment() | {"MLFLOW_TRACKING_URI": place.tracking_uri, "OMP_NUM_THREADS": "1"}
    with open(place.folder / "mlflow.log", "ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=place.folder, env=environment, process_group=0)
    try:
        _wait_for(port, server, place.folder / "mlflow.log")
        if with_features:
            records: list[dict[str, Any]] = feature_bodies(place, 500)
        else:
            records = [
                {
                    "user_id": one["user_id"],
                    "item_ids": [candidate["item_id"] for candidate in one["candidates"]],
                    "scores": [candidate["score"] for candidate in one["candidates"]],
                }
                for one in place.requests
            ]
        requests = [http_request("/invocations", json.dumps({"dataframe_records": [one]}).encode()) for one in records]
        right = place.lists["1"]

        def wrong(shot: Shot) -> str:
            found = json.loads(shot.body)["predictions"][0] if shot.status == 200 else None
            return "" if found == right[shot.number] else f"{shot.status}: {shot.body[:200]!r}"

        yield port, requests, wrong
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _wrong(place: Place, shot: Shot, away: tuple[float, float] | None = None) -> str:
    """What is wrong with an answer of the ranking service; '' if it is right."""
    if shot.status != 200:
        return f"status {shot.status}: {shot.body[:200]!r}"
    answer = json.loads(shot.body)
    request = place.requests[shot.number]
    candidates = [one["item_id"] for one in request["candidates"]]
    items = answer["items"]
    if len(items) != 6 or len(set(items)) != 6 or not set(items) <= set(candidates):
        return f"not a list: {items}"
    if answer["fallback"] == "store_away":
        if away is None or shot.due + shot.seconds < away[0] or shot.due > away[1]:
            return "store_away while the store was there"
        ordered = sorted(request["candidates"], key=lambda one: -one["score"])
        return "" if items == [one["item_id"] for one in ordered[:6]] else f"not the retriever's order: {items}"
    if answer["fallback"] not in (None, "unknown_user"):
        return f"fallback {answer['fallback']}"
    if not answer["explored"] and items != place.lists[answer["model_version"]][shot.number]:
        return f"{items}, expected {place.lists[answer['model_version']][shot.number]}"
    return ""


# ---------------------------------------------------------------------------------------------------------------- rates


def _highest_rate(
    name: str,
    port: int,
    requests: list[bytes],
    wrong_with: Callable[[Shot], str],
    plan: Plan,
    rows: list[Row],
) -> float:
    """The highest rate held; a row for each try. Rates double until one is not held, then the gap is halved.

    A rate is given up after two tries: other work on the machine stops a process for 100 ms now and then.
    """
    main = name in ("goalrank", "mlflow")
    seconds, refine = (plan.seconds, plan.refine) if main else (plan.seconds / 2, min(plan.refine, 1))
    ours = name.startswith("goalrank")
    fire(port, requests, 10.0, seconds / 2, seed=1)
    # As many requests warm every cache, each server's at a pace it can keep.
    pace = WARMING_PACE["goalrank" if ours else "mlflow"]
    fire(port, requests, pace, plan.warming / pace, seed=2)
    low, high, rate, refined = 0.0, float("inf"), 50.0 if ours else 10.0, 0
    while high == float("inf") or refined < refine:
        held = False
        for attempt in range(ATTEMPTS):
            lasts = max(seconds, FEWEST / rate)
            shots = fire(port, requests, rate, lasts, seed=int(rate) + attempt, give_up_behind=2.0)
            row = {"server": name, "rate": round(rate, 1)} | _figures(shots, wrong_with)
            held = row["held"] = row["p99_ms"] < LIMIT_SECONDS * 1000 and not row["wrong_or_failed"]
            rows.append(row)
            progress(f"{name}: {rate:.0f}/s: p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms, held {held}")
            if held:
                break
            time.sleep(2.5)  # what is still in hand is answered
        refined += high < float("inf")
        low, high = (rate, high) if held else (low, min(high, rate))
        rate = rate * 2 if high == float("inf") else (low + high) / 2
        if high < 2.0:
            break
    return low


def _figures(shots: Sequence[Shot], wrong_with: Callable[[Shot], str]) -> Row:
    answered = np.array([shot.seconds for shot in shots if shot.status])
    # What was never answered took for ever: it counts in the percentiles.
    seconds = np.concatenate([answered, np.full(len(shots) - len(answered), np.inf)])
    faults = [fault for shot in shots if (fault := wrong_with(shot))]
    if faults:
        progress(f"wrong or failed: {len(faults)}, the first: {faults[0][:300]}")
    p50, p99 = np.percentile(seconds, [50, 99], method="higher") * 1000
    return {
        "requests": len(shots),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "wrong_or_failed": len(faults),
    }


# ----------------------------------------------------------------------------------------------------------------- soak


def _soak(place: Place, plan: Plan, core: list[str], rate: float) -> tuple[Row, int]:
    """Many requests while champions are swapped and the store is taken away; the row, and how many went wrong."""
    seconds = plan.soak_requests / rate
    progress(f"soak: {plan.soak_requests} requests at {rate:.0f}/s, {seconds:.0f} s")
    logs = place.folder / "soak"
    flags = ("--keep-seconds", str(plan.soak_keep_seconds), "--poll-seconds", "1")
    away = [float("inf"), float("inf")]
    ended = threading.Event()

    def take_store_away() -> None:
        if ended.wait(min(seconds / 3, 60.0)):
            return
        database = Path(place.feast_uri) / "online.db"
        # Its write-ahead log stays: nobody has written since the last checkpoint.
        away[0] = time.perf_counter()
        database.rename(database.with_name("away.db"))
        ended.wait(plan.away_seconds)
        database.with_name("away.db").rename(database)
        # The service leaves a failed store alone for half a second, and opening it takes a moment.
        away[1] = time.perf_counter() + 3.0

    with _goalrank(place, core, *flags, logs=logs) as (port, requests, _):
        warming = fire(port, requests, min(rate, 100.0), 5.0, seed=3)
        # A process of its own: MLflow's client would hold up the load generator.
        mover = multiprocessing.get_context("spawn").Process(
            target=move_aliases, args=(place.tracking_uri, plan.swap_every), daemon=True
        )
        mover.start()
        taker = threading.Thread(target=take_store_away)
        taker.start()
        shots = fire(port, requests, rate, seconds, seed=4)
        ended.set()
        taker.join()
        mover.terminate()
        mover.join()
        told = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    registry.point(registry.connect(place.tracking_uri), registry.RANKER, registry.CHAMPION, "1")
    figures = _figures(shots, lambda shot: _wrong(place, shot, (away[0], away[1])))
    answers = Counter()
    for shot in shots:
        if shot.status == 200:
            answer = json.loads(shot.body)
            answers[f"version {answer['model_version']}"] += 1
            answers["explored"] += answer["explored"]
            answers[str(answer["fallback"])] += 1
    logged, unlogged = _logged(logs), int(_metric(told, "goalrank_unlogged_requests_total{"))
    answered = sum(shot.status == 200 for shot in [*warming, *shots])
    row = {
        "server": "goalrank, soak",
        "rate": round(rate, 1),
        **figures,
        "swaps": int(_metric(told, 'goalrank_swaps_total{outcome="swapped"}')),
        "store_away": answers["store_away"],
        "unknown_user": answers["unknown_user"],
        "explored": answers["explored"],
        "version 1": answers["version 1"],
        "version 2": answers["version 2"],
        "logged": logged,
        "astray": abs(answered - unlogged - logged),
    }
    return row, row["wrong_or_failed"]


def _metric(text: str, name: str) -> float:
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)), 0.0)


def _logged(logs: Path) -> int:
    """Requests in the served log, once the server has ended."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in (logs / "requests").glob("dt=*/*.parquet"))


# -------------------------------------------------------------------------------------------------------------- machine


@contextmanager
def _cores() -> Iterator[list[str]]:
    """This process on one core; the prefix that puts a server on another, where there are two."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(usable) < 2 or shutil.which("taskset") is None:
        yield []
        return
    os.sched_setaffinity(0, usable[1:])
    try:
        yield ["taskset", "--cpu-list", str(usable[0])]
    finally:
        os.sched_setaffinity(0, usable)


def _environment() -> dict[str, str]:
    paths = [str(root()), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),  # uvicorn's command
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(f"mlflow models serve ended with code {server.returncode}: {log.read_text()[-1000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("mlflow models serve did not answer within two minutes")


if __name__ == "__main__":
    run("serve_load", lambda quick: measure(QUICK if quick else Plan()), (__doc__ or "").splitlines()[0])
