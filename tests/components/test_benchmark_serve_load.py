"""The load benchmark at its smallest: real servers, ours and MLflow's, on loopback."""

import json

from benchmarks.load_generator import fire
from benchmarks.serve_load import SOAK_REQUESTS, TARGET, TINY, measure


def test_both_servers_are_measured_and_the_soak_answers_rightly():
    rows, claims = measure(TINY)
    assert {row["server"] for row in rows} == {"goalrank", "mlflow", "goalrank, soak"}
    soak = rows[-1]
    assert soak["requests"] >= TINY.soak_requests
    assert soak["wrong_or_failed"] == 0
    held = {claim["name"]: claim["holds"] for claim in claims}
    assert held["soak: wrong or failed answers"] and held["soak: requests"]
    assert held["soak: answers that the log lacks, or has too many"] and soak["logged"] > soak["requests"]
    assert claims[0]["target"] == f"at least {TARGET:g}"
    json.dumps([rows, claims])


def test_every_request_that_was_asked_for_is_sent():
    """Nobody listens: what counts is how many were due."""
    for rate in (20.625, 21.0, 22.0, 523.7):
        shots = fire(9, [b"GET / HTTP/1.1\r\n\r\n"], rate, 40 / rate, seed=0, give_up_behind=0.0)
        assert len(shots) == 40
    assert SOAK_REQUESTS == 100_000
