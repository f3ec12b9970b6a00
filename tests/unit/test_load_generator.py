"""The load generator of the serving benchmark: it keeps to its times, whatever the server does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from benchmarks.load_generator import fire, http_request


@contextmanager
def server(stall_at: float = 0.0, stall: float = 0.0, drop_every: int = 0) -> Iterator[int]:
    """Answers at once, but once, `stall_at` seconds after its first request, stands still for `stall` seconds, and
    drops every n-th connection's request."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    first, count, lock = list[float](), [0], threading.Lock()
    gate = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            buffer = b""
            while data := connection.recv(65536):
                buffer += data
                while b"\r\n\r\n" in buffer:
                    head, _, rest = buffer.partition(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    if len(rest) < length:
                        break
                    body, buffer = rest[:length], rest[length:]
                    with lock:
                        if not count[0]:
                            first.append(time.perf_counter())
                        count[0] += 1
                        dropped = drop_every and count[0] % drop_every == 0
                    if dropped:
                        return
                    with gate:
                        since = time.perf_counter() - first[0]
                        if stall and stall_at <= since < stall_at + stall:
                            time.sleep(stall_at + stall - since)
                    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
                    connection.sendall(answer[: len(answer) // 2])
                    connection.sendall(answer[len(answer) // 2 :] + body)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


REQUESTS = [http_request("/rank", str(number).encode() * 20) for number in range(7)]


def test_every_request_gets_its_own_answer_at_the_rate_asked_for():
    with server() as port:
        begun = time.perf_counter()
        shots = fire(port, REQUESTS, rate=200.0, seconds=2.0, seed=1)
        took = time.perf_counter() - begun
    assert len(shots) == 400 and all(shot.status == 200 for shot in shots)
    assert all(shot.body == str(shot.number).encode() * 20 for shot in shots)
    assert {shot.number for shot in shots} == set(range(7)) and took < 6.0
    gaps = np.diff([shot.due for shot in shots])
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.2) and gaps.std() == pytest.approx(gaps.mean(), rel=0.3)


def test_a_server_that_stands_still_is_seen_by_all_who_were_due_meanwhile():
    """One second of ten at 100/s: about a hundred requests waited, not only the one in hand."""
    with server(stall_at=1.0, stall=1.0) as port:
        shots = fire(port, REQUESTS, rate=100.0, seconds=4.0, seed=2)
    late = [shot for shot in shots if shot.seconds > 0.1]
    assert 60 <= len(late) <= 130 and all(shot.status == 200 for shot in shots)


def test_what_is_not_answered_has_failed():
    with server(drop_every=10) as port:
        shots = fire(port, REQUESTS, rate=100.0, seconds=1.0, seed=3)
    assert sum(shot.status == 0 for shot in shots) == 10
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nobody = fire(port, REQUESTS, rate=50.0, seconds=0.5, seed=4)
    assert len(nobody) == 25 and all(shot.status == 0 for shot in nobody)


def test_it_gives_up_once_too_far_behind():
    with server(stall_at=0.0, stall=5.0) as port:
        begun = time.perf_counter()
        shots = fire(port, REQUESTS, rate=100.0, seconds=20.0, seed=5, give_up_behind=1.0)
        assert time.perf_counter() - begun < 8.0
    assert len(shots) == 2000 and sum(shot.status == 0 for shot in shots) > 1500
