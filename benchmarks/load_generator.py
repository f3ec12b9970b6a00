"""An open-loop HTTP client: requests leave when their time has come, whether or not earlier ones were answered.

Latency counts from the time a request was due, not from when a connection was free for it, so a server that stalls
cannot slow the measurement down to its own pace (coordinated omission). Connections are kept alive; one request at a
time on each.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONNECTIONS = 256
PATIENCE = 30.0
"""Seconds after the last request was due: what is unanswered by then has failed."""


@dataclass(slots=True)
class Shot:
    """One request: which one it was, when it was due, and what came back (status 0: nothing)."""

    number: int
    due: float
    seconds: float = float("nan")
    status: int = 0
    body: bytes = b""


class _Connection(asyncio.Protocol):
    """A kept-alive connection that carries one request at a time."""

    def __init__(self, pool: _Pool) -> None:
        self.pool = pool
        self.shot: Shot | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, shot: Shot) -> None:
        self.shot = shot
        self.transport.write(self.pool.requests[shot.number])  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.received += data
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return
        header = self.received[:head].lower()
        at = header.find(b"content-length:")
        length = int(header[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.received) < head + 4 + length:
            return
        shot, self.shot = self.shot, None
        body, self.received = self.received[head + 4 :], b""
        if shot is not None:
            shot.seconds = time.perf_counter() - shot.due
            shot.status = int(header[9:12])
            shot.body = body
            self.pool.done += 1
        if b"connection: close" in header:
            self.transport.close()  # type: ignore[attr-defined]
            self.pool.open -= 1
        else:
            self.pool.free.append(self)
        self.pool.push()

    def connection_lost(self, error: Exception | None) -> None:
        if self.shot is not None:  # cut off in the middle: it stays without a status
            self.shot = None
            self.pool.done += 1
            self.pool.open -= 1
        elif self in self.pool.free:
            self.pool.free.remove(self)
            self.pool.open -= 1


class _Pool:
    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        self.host, self.port, self.requests = host, port, requests
        self.free: deque[_Connection] = deque()
        self.waiting: deque[Shot] = deque()
        self.open = self.done = 0
        self._opening: set[asyncio.Task[None]] = set()

    def push(self) -> None:
        """Send what is due on the connections that are free."""
        while self.waiting and self.free:
            self.free.popleft().send(self.waiting.popleft())
        while len(self.waiting) > len(self._opening) and self.open < CONNECTIONS:
            self.open += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), self.host, self.port
            )
        except OSError:
            self.open -= 1
            if self.waiting:  # nobody listens: it has failed
                self.waiting.popleft()
                self.done += 1
            return
        self.free.append(connection)
        self.push()


def http_request(path: str, body: bytes) -> bytes:
    """A POST of JSON as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def fire(
    port: int,
    requests: Sequence[bytes],
    rate: float,
    seconds: float,
    seed: int,
    give_up_behind: float = float("inf"),
) -> list[Shot]:
    """Send requests at Poisson times of that rate and wait for the answers.

    Args:
        port: on loopback.
        requests: drawn from in turn, beginning anywhere.
        rate: requests a second.
        seconds: how long.
        seed: of the times.
        give_up_behind: end early once so many seconds' worth of requests are unanswered; the rest stays unanswered.

    Returns:
        every request that was due, in order.
    """
    random = np.random.default_rng(seed)
    gaps = random.exponential(1.0 / rate, max(1, round(rate * seconds)))
    first = int(random.integers(len(requests)))
    due = np.cumsum(gaps)
    gc.collect()
    gc.disable()
    try:
        try:
            import uvloop

            run = uvloop.run
        except ImportError:
            run = asyncio.run
        return run(_fire(_Pool("127.0.0.1", port, requests), due, first, rate * give_up_behind))
    finally:
        gc.enable()


async def _fire(pool: _Pool, due: np.ndarray, first: int, behind: float) -> list[Shot]:
    begun = time.perf_counter() + 0.05
    shots = [Shot((first + at) % len(pool.requests), begun + gap) for at, gap in enumerate(due.tolist())]
    sent = 0
    while sent < len(shots):
        now = time.perf_counter()
        while sent < len(shots) and shots[sent].due <= now:
            pool.waiting.append(shots[sent])
            sent += 1
        pool.push()
        if sent - pool.done > behind:
            break
        if sent < len(shots):
            await asyncio.sleep(max(0.0, shots[sent].due - time.perf_counter()))
    waited = time.perf_counter()
    patience = PATIENCE if sent == len(shots) else 1.0
    while pool.done < sent and time.perf_counter() - waited < patience:
        await asyncio.sleep(0.01)
    for connection in list(pool.free):
        connection.transport.close()  # type: ignore[attr-defined]
    return shots
