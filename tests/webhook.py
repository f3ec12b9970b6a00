"""A webhook on loopback that keeps what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "T0K3N-in-the-path"


class Webhook(ThreadingHTTPServer):
    """Answers with the next of `answers`, then with 200; keeps what was posted."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Post)
        self.answers: list[int] = []
        self.asked = 0
        self.posted: list[dict[str, object]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{TOKEN}"


class Post(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.posted.append(json.loads(body))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        raise AssertionError("a redirect was followed")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def listening() -> Iterator[Webhook]:
    """One that takes posts while inside."""
    with Webhook() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
