"""Connections that ask too much, or nothing: a request's head is bounded in size and in time, its body in time.

uvicorn's protocol keeps whatever headers come, however long they take, and waits for ever on a silent client. Here:

    a head over MAX_HEAD_BYTES                      431, and the connection ends; trailers after a body are held to it
    a head not complete after HEAD_SECONDS          408, and it ends; where nothing was said at all it just ends
    a body not complete after WHOLE_BODY_SECONDS    it ends; the service itself refuses with 408 before (body_limit.py)
    an answer not read after UNREAD_SECONDS, or over MAX_PIPELINED requests that wait for theirs: it ends

A connection idle between two requests is ended by uvicorn's own keep-alive timeout (5 s).
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from components.serve_model.body_limit import BODY_SECONDS, DRAIN_BYTES, DRAIN_SECONDS

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together. Common proxies stop at 8 to 32 KiB, so nobody behind one meets this."""
MAX_PIPELINED = 64
"""Requests sent before the answer to the first: a client can send small ones faster than anybody answers them."""
HEAD_SECONDS = 10.0
"""From the connection, or from the first byte after an answer, to the head's end. An honest head comes in one go."""
WHOLE_BODY_SECONDS = BODY_SECONDS + DRAIN_SECONDS + 1.0
"""From the head's end to the body's: what is left to do then, the service has done. For bodies that nobody waits for,
as that of a GET."""
UNREAD_SECONDS = 30.0
"""In which a client must have taken its answer: some 100 kB, so even a telephone on a train is done."""
LOOK_SECONDS = 1.0
"""How often a connection is looked at: the times above hold to within this, and a thousand looks take milliseconds."""
SHUTDOWN_SECONDS = BODY_SECONDS + 2.0
"""How long a server that ends waits for what is under way: the slowest body that is still accepted, and its answer."""


def configured(app: Any) -> uvicorn.Config:
    """How the service's application is served."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=round(SHUTDOWN_SECONDS),
    )


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with the bounds above; the constants are read when they are needed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        """Since a head began, or since the last byte of a body."""
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._unread_since: float | None = None
        self._refused_since: float | None = None
        self._refusal: tuple[int, str] | None = None
        """Status and reason that are still to be told: the answers under way come first."""
        self._thrown_away = 0
        self._next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since = self.loop.time()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_since is None and self._body_since is None:
            self._head_since = self.loop.time()
        # In pieces, so that nothing is parsed that a head may not be long.
        while data and not self.transport.is_closing():
            if self._refused_since is not None:
                self._throw_away(data)
                return
            room = MAX_HEAD_BYTES - self._head_bytes
            if room <= 0:
                self._refuse(431, f"the request's head is over {MAX_HEAD_BYTES} bytes; send fewer or shorter headers")
                continue
            piece, data = (data, b"") if len(data) <= room else (data[:room], data[room:])
            self._head_bytes += len(piece)
            super().data_received(piece)

    # ---------------------------------------------------------------------------------------- what the parser found

    def on_message_begin(self) -> None:
        if self._head_since is None:  # else its clock runs already: line breaks may come before it
            self._head_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes, self._head_since, self._body_since = 0, None, self.loop.time()
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.close()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows is in the other protocol for the parser, and not read

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes, self._body_since = 0, None
        if self.cycle.response_complete:  # its last bytes put off the keep-alive timeout, and no answer sets it again
            self._head_since = self.loop.time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refusal is not None and self.cycle.response_complete:  # the newest: so all that were pipelined
            self._tell(*self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """Such a request is answered as it is; it is not worth a line of the log."""

    # -------------------------------------------------------------------------------------------------------- its end

    def look(self) -> None:
        """End the connection if it has taken too long over something."""
        now = self.loop.time()
        if self.flow.read_paused:  # it waits for us
            self._head_since = None if self._head_since is None else now
            self._body_since = None if self._body_since is None else now
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        if _over(self._unread_since, UNREAD_SECONDS, now):
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif _over(self._body_since, WHOLE_BODY_SECONDS, now) or (
            self._refusal is None and _over(self._refused_since, DRAIN_SECONDS, now)
        ):
            self.transport.close()
        elif self._refused_since is None and _over(self._head_since, HEAD_SECONDS, now):
            if self._head_bytes:
                self._refuse(408, f"the request's head did not come within {HEAD_SECONDS:g} s; send it again")
            else:
                self.transport.close()

    def _look_later(self) -> None:
        def look() -> None:
            self._look_later()
            self.look()

        self._next_look = self.loop.call_later(LOOK_SECONDS, look)

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what is no request yet, and end; from here on nothing is read, only thrown away."""
        self._refused_since = self.loop.time()
        under_way = self.cycle is not None and not self.cycle.response_complete
        if self._body_since is not None:  # it was the end of a body, which now never comes
            if not under_way:  # answered already
                self.transport.close()
            else:
                self.cycle.keep_alive = False
        elif under_way:
            self._refusal = status, reason
        else:
            self._tell(status, reason)

    def _tell(self, status: int, reason: str) -> None:
        self._refused_since, self._refusal = self.loop.time(), None
        if self.transport.is_closing():
            return
        content = to_json({"error": reason})
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + content)
        # Not closed yet: a client that is still sending would be reset before it has read this.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _throw_away(self, data: bytes) -> None:
        self._thrown_away += len(data)
        if self._thrown_away > DRAIN_BYTES:
            self.transport.close()


def _over(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since >= seconds
