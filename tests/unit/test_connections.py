"""Real sockets against the real server: clients that send too much, too slowly, or nothing; the end of the server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic_core import from_json, to_json

from components.serve_model import body_limit, connections
from components.serve_model.app import create_app
from components.serve_model.body_limit import BODY_SECONDS, DRAIN_BYTES, DRAIN_SECONDS
from components.serve_model.connections import (
    MAX_HEAD_BYTES,
    MAX_PIPELINED,
    SHUTDOWN_SECONDS,
    WHOLE_BODY_SECONDS,
    configured,
)
from tests.unit.instant_service import request, service

SHORT = 0.6
"""Instead of a limit's seconds."""
PATIENCE = 20.0
"""Seconds after which a test gives up."""
GET = b"GET /ready HTTP/1.1\r\nhost: here\r\n"


@contextmanager
def running(app: Any) -> Iterator[tuple[int, uvicorn.Server]]:
    """The application behind the service's own server; its port, and the server."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configured(app))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        end = time.monotonic() + PATIENCE
        while not server.started:
            assert time.monotonic() < end and thread.is_alive()
            time.sleep(0.01)
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
    assert not thread.is_alive()


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    with running(create_app(service(tmp_path))) as (port, _):
        yield port


def client(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def rest(connection: socket.socket) -> bytes:
    """Everything that comes until the server ends the connection, which it does by its own will and without a reset."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def answers(content: bytes) -> list[tuple[int, Any]]:
    """(status, document) of each answer."""
    found = []
    while content:
        head, _, content = content.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        found.append((int(head.split()[1]), from_json(content[:length])))
        content = content[length:]
    return found


def posted(body: bytes, length: int | None = None) -> bytes:
    announced = len(body) if length is None else length
    return b"POST /rank HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % announced + body


# ------------------------------------------------------------------------------------------------------ size of a head

LONG: dict[str, Callable[[], bytes]] = {
    "one header": lambda: GET + b"long: " + b"x" * MAX_HEAD_BYTES,
    "one header of 8 MiB": lambda: GET + b"long: " + b"x" * (8 << 20),
    "many headers": lambda: GET + b"one: of many\r\n" * (MAX_HEAD_BYTES // 10),
    "the path": lambda: b"GET /" + b"x" * MAX_HEAD_BYTES,
    "complete": lambda: GET + b"long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
    "after another request": lambda: posted(to_json(request(1))) + GET + b"long: " + b"x" * 2 * MAX_HEAD_BYTES,
}


@pytest.mark.parametrize("size", [1000, 1 << 30])
@pytest.mark.parametrize("what", LONG)
def test_a_head_over_the_limit_is_refused_and_the_client_can_read_it(port: int, what: str, size: int) -> None:
    content = LONG[what]()
    with client(port) as connection:
        for at in range(0, len(content), size):
            connection.sendall(content[at : at + size])
        found = answers(rest(connection))
    if what == "after another request":
        assert found.pop(0)[0] == 200
    ((status, document),) = found
    assert status == 431 and f"over {MAX_HEAD_BYTES} bytes" in document["error"]


def test_a_head_within_the_limit_is_answered(port: int) -> None:
    head = GET + b"connection: close\r\nlong: "
    longest = head + b"x" * (MAX_HEAD_BYTES - len(head) - 4) + b"\r\n\r\n"
    assert len(longest) == MAX_HEAD_BYTES
    with client(port) as connection:
        connection.sendall(longest)
        assert [status for status, _ in answers(rest(connection))] == [200]
    longer = longest.replace(b"x\r\n\r\n", b"xy\r\n\r\n")
    with client(port) as connection:
        connection.sendall(longer)
        assert [status for status, _ in answers(rest(connection))] == [431]


def test_heads_are_counted_one_by_one_and_bodies_are_not(port: int) -> None:
    """A kept connection on which far more than the limit comes, all of it in good requests."""
    one = to_json([request(number, 300) for number in range(15)])
    assert MAX_HEAD_BYTES < len(one) < body_limit.MAX_BODY_BYTES
    with client(port) as connection:
        for _ in range(4):
            connection.sendall(GET + b"some: " + b"x" * (MAX_HEAD_BYTES // 3) + b"\r\n\r\n" + posted(one))
        connection.sendall(GET + b"connection: close\r\n\r\n")
        found = answers(rest(connection))
    assert [status for status, _ in found] == [200] * 9
    assert len(found[1][1]) == 15


def test_trailers_are_held_to_the_limit_of_a_head(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "DRAIN_SECONDS", SHORT)
    chunked = b"POST /rank HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    begun = time.monotonic()
    with client(port) as connection:
        connection.sendall(chunked + b"one: of many\r\n" * (MAX_HEAD_BYTES // 5))
        assert rest(connection) == b""
    assert time.monotonic() - begun < BODY_SECONDS


# --------------------------------------------------------------------------------------------------------------- time

SLOW: dict[str, tuple[bytes, bytes, int | None]] = {
    # what: at once, then byte by byte, the answer's status
    "nothing": (b"", b"", None),
    "half a head": (GET, b"", 408),
    "a head that never ends": (GET, b"slow: " + b"x" * 1000, 408),
    "line breaks before a head": (b"\r\n", b"\r\n" * 1000, 408),
}


@pytest.mark.parametrize("what", SLOW)
def test_whoever_does_not_send_a_head_is_ended(port: int, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", SHORT)
    monkeypatch.setattr(connections, "DRAIN_SECONDS", SHORT)
    at_once, trickle, expected = SLOW[what]
    begun = time.monotonic()
    with client(port) as connection:
        connection.sendall(at_once)
        sent = threading.Thread(target=trickled, args=(connection, trickle, 0.02))
        sent.start()
        found = answers(rest(connection))
        assert SHORT <= time.monotonic() - begun < 10 * SHORT
        connection.shutdown(socket.SHUT_RDWR) if trickle else None
        sent.join(PATIENCE)
    assert [status for status, _ in found] == ([] if expected is None else [expected])


def trickled(connection: socket.socket, content: bytes, seconds: float) -> None:
    for at in range(len(content)):
        try:
            connection.sendall(content[at : at + 1])
        except OSError:
            return
        time.sleep(seconds)


def test_a_kept_connection_may_be_idle_as_long_as_uvicorn_says(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", SHORT)
    monkeypatch.setattr(connections, "WHOLE_BODY_SECONDS", SHORT)
    with client(port) as connection:
        for _ in range(2):
            connection.sendall(GET + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(2 * SHORT)
        connection.sendall(GET + b"connection: close\r\n\r\n")
        assert answers(rest(connection))[0][0] == 200


def test_half_a_body_is_refused_by_the_service(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "BODY_SECONDS", SHORT)
    monkeypatch.setattr(body_limit, "DRAIN_SECONDS", SHORT)
    with client(port) as connection:
        connection.sendall(posted(b'{"user', 1000))
        ((status, document),) = answers(rest(connection))
    assert status == 408 and "did not come within" in document["error"]
    assert BODY_SECONDS + DRAIN_SECONDS < WHOLE_BODY_SECONDS, "the service refuses before the connection is ended"


@pytest.mark.parametrize("all_of_it", [True, False])
def test_a_body_that_nobody_waits_for_does_not_hold_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch, all_of_it: bool
) -> None:
    """Its bytes put off the keep-alive timeout, also those that come after the answer."""
    monkeypatch.setattr(connections, "WHOLE_BODY_SECONDS", SHORT)
    monkeypatch.setattr(connections, "HEAD_SECONDS", SHORT)
    with client(port) as connection:
        connection.sendall(GET + b"content-length: 4\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"body" if all_of_it else b"bod")
        begun = time.monotonic()
        assert rest(connection) == b""
    assert time.monotonic() - begun < uvicorn.Config(None).timeout_keep_alive


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", SHORT)
    size = 32 << 20  # more than the sockets hold

    async def much(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    with running(much) as (port, server), client(port) as connection:
        connection.sendall(GET + b"\r\n")
        end = time.monotonic() + PATIENCE
        while not server.server_state.connections:
            assert time.monotonic() < end
        while server.server_state.connections:
            assert time.monotonic() < end, "the connection is still held"
            time.sleep(0.02)


def test_more_requests_than_are_answered_do_not_pile_up(port: int) -> None:
    with client(port) as connection, pytest.raises(OSError):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            connection.sendall((GET + b"\r\n") * 2 * MAX_PIPELINED)


def test_after_an_upgrade_that_is_not_made_the_connection_ends(port: int) -> None:
    """What follows would be the other protocol's to the parser, and nobody would answer it."""
    with client(port) as connection:
        connection.sendall(GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n" + GET + b"\r\n")
        assert [status for status, _ in answers(rest(connection))] == [200]


# -------------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_all_of_a_body_that_is_too_large_can_read_why(port: int, chunked: bool) -> None:
    """8 MiB, more than the sockets hold: closed at the limit, the connection would be reset under the client."""
    size = DRAIN_BYTES // 2
    head, part = posted(b"", size), b" " * 65536
    if chunked:
        head = b"POST /rank HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
        part = b"10000\r\n" + part + b"\r\n"
    with client(port) as connection:
        connection.sendall(head)
        for _ in range(size // 65536):
            connection.sendall(part)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        ((status, document),) = answers(rest(connection))
    assert status == 413 and "is over" in document["error"]


@pytest.mark.parametrize("limit", ["DRAIN_BYTES", "DRAIN_SECONDS"])
def test_nobody_sends_for_ever(port: int, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(body_limit, limit, {"DRAIN_BYTES": 1 << 20, "DRAIN_SECONDS": SHORT}[limit])
    begun = time.monotonic()
    with client(port) as connection, pytest.raises(OSError):
        connection.sendall(posted(b"", 1 << 40))
        while time.monotonic() < begun + PATIENCE:
            connection.sendall(b" " * 65536)
            time.sleep(0.001 if limit == "DRAIN_BYTES" else 0.05)
    assert time.monotonic() - begun < DRAIN_SECONDS


# ------------------------------------------------------------------------------------------------------------- the end


def test_what_the_end_of_the_server_cancels_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SHUTDOWN_SECONDS", 1.0)
    ours = service(tmp_path)
    waiting = threading.Event()

    async def never(*args: object, **kwargs: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ours._batches, "ask", never)
    with running(create_app(ours)) as (port, server), client(port) as connection:
        connection.sendall(posted(to_json(request(1))))
        assert waiting.wait(PATIENCE)
        server.should_exit = True
        ((status, document),) = answers(rest(connection))
    assert status == 503 and "is ending" in document["error"]


def test_a_server_that_ends_waits_longer_than_for_the_slowest_body() -> None:
    assert configured(None).timeout_graceful_shutdown == SHUTDOWN_SECONDS > BODY_SECONDS + 1.0
