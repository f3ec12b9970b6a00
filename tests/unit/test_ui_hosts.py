"""By which Host headers `goalrank ui` may be called."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from console.ui.app import LOOPBACK, OnlyOurHosts


def status(*hosts: str) -> int:
    """Of the answer to a request with these Host headers."""
    said: list[MutableMapping[str, Any]] = []

    async def let_in(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "headers": [(b"host", host.encode("latin-1")) for host in hosts]}
    asyncio.run(OnlyOurHosts(let_in, LOOPBACK)(scope, receive, send))
    return int(said[0]["status"])


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]", "[::1]:65535"])
def test_our_own_names_are_let_in(host: str) -> None:
    assert status(host) == 200


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("",),
        ("rebound.example",),
        ("localhost:rebound.example",),
        ("localhost:",),
        ("localhost:80\n",),
        ("localhost:80:80",),
        ("[::1]rebound.example",),
        ("[::1]:rebound.example",),
        ("[localhost]",),
        ("::1",),
        ("localhost", "rebound.example"),
        ("rebound.example", "localhost"),
        ("localhost", "localhost"),
    ],
)
def test_all_else_is_refused(hosts: tuple[str, ...]) -> None:
    assert status(*hosts) == 403
