"""Asking a server whether it is there: one request, seconds at most, no client of its own imported."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from goalrank import naming

SECONDS = 3.0


def connects(host: str, port: int) -> str:
    """Why nothing listens there; empty if something does."""
    try:
        with socket.create_connection((host, port), SECONDS):
            return ""
    except OSError as error:
        return _short(error)


def answers(address: str) -> tuple[int, bytes] | str:
    """Status and the first bytes of an HTTP answer, whatever its status; or why there was none.

    A user and password in the address are left out: to be asked for them is an answer too.
    """
    try:
        with _opener().open(urllib.request.Request(naming.without_password(address)), timeout=SECONDS) as answer:
            return answer.status, answer.read(4096)
    except urllib.error.HTTPError as error:
        return error.code, b""
    except urllib.error.URLError as error:
        return _short(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
    except Exception as error:  # a time-out, an address that is none, http.client's own for what is no HTTP
        return _short(error)


def place_of(uri: str, default_port: int) -> tuple[str, int]:
    """Host and port of a URI, or of plain HOST:PORT.

    Raises:
        ValueError: it names none.
    """
    parts = urlsplit(uri if "://" in uri else f"//{uri}")
    if not parts.hostname:
        raise ValueError("no host in the address")
    return parts.hostname, parts.port or default_port


def redis_answers(host: str, port: int) -> str:
    """Why no Redis answers there; empty if one does, whether it lets us in or not."""
    try:
        with socket.create_connection((host, port), SECONDS) as connection:
            connection.settimeout(SECONDS)
            connection.sendall(b"PING\r\n")
            said = connection.recv(64)
    except OSError as error:
        return _short(error)
    return "" if said.startswith((b"+PONG", b"-NOAUTH", b"-DENIED")) else f"it says {said[:30]!r}, not PONG"


def _opener() -> urllib.request.OpenerDirector:
    """Without the environment's proxy: the stores are near."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:160]
