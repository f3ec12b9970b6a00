"""Reading a request's body: bounded in size and in time, and whoever breaks the bounds can still read why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from pydantic_core import to_json

from components.serve_model.bodies import MAX_BODY_BYTES
from components.serve_model.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 10.0
"""In which a body must have come, once its headers have: whoever sends half of one holds a connection no longer."""
DRAIN_SECONDS = 4.0
"""How long what is still under way of a refused body is read and thrown away. A connection closed on bytes that nobody
has read is reset, and a reset takes the answer with it before a client that is still sending has read it."""
DRAIN_BYTES = 64 * MAX_BODY_BYTES
"""How much of it: 16 MiB, more than a mistaken client sends and too little to keep anybody busy."""


class BodyLimit:
    """Reads bodies into scope["body"]; those over MAX_BODY_BYTES are refused with 413, announced or not, those that do
    not come within BODY_SECONDS with 408. Both are counted as invalid."""

    def __init__(self, app: App, metrics: Metrics, endpoint_of: Callable[[str], str | None]) -> None:
        """`endpoint_of` a path that is posted to, as the metrics call it; None where nothing is counted."""
        self.app, self.metrics, self.endpoint_of = app, metrics, endpoint_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                scope["body"] = await _read(receive)
        except TimeoutError:
            reason = f"the body did not come within {BODY_SECONDS:g} s; send it again"
            await self._refuse(408, reason, scope, receive, send, more=True)
        except _TooLargeError as error:
            reason = f"the body is over {MAX_BODY_BYTES} bytes; send fewer candidates or requests"
            await self._refuse(413, reason, scope, receive, send, more=error.more)
        else:
            if scope["body"] is not None:
                await self.app(scope, receive, send)

    async def _refuse(
        self, status: int, reason: str, scope: Scope, receive: Receive, send: Send, *, more: bool
    ) -> None:
        endpoint = self.endpoint_of(scope["path"]) if scope["method"] == "POST" else None
        if endpoint is not None:
            self.metrics.requests.labels(endpoint, "invalid").inc()
        content = to_json({"error": reason})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            # What is still under way of the body would be taken for the next request.
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        # The client has all of the answer; the server closes only once it is told that the answer is over.
        await send({"type": "http.response.body", "body": content, "more_body": True})
        try:
            if more:
                await _drain(receive)
        finally:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _TooLargeError(Exception):
    """The body is over the limit."""

    def __init__(self, more: bool) -> None:
        """`more` of it is still to come."""
        super().__init__()
        self.more = more


async def _read(receive: Receive) -> bytes | None:
    """The body, None where the client went away.

    Raises:
        _TooLargeError: it is over MAX_BODY_BYTES.
    """
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            raise _TooLargeError(more)
    return b"".join(parts)


async def _drain(receive: Receive) -> None:
    """Throw away what still comes, until the client has sent all of it or gone, or the bounds are met."""
    left = DRAIN_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
