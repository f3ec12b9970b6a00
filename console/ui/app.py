"""The pages' ASGI application: its routes, the headers of each kind of page, and the hosts it may be called by.

    /                    the nights         /nights/...        a report, a page of Data Docs
    /playground          the playground     /api/...           what it asks for (playground.py)
    /comparisons/...     two nights side by side
    /static/...          its script and style

A page may load nothing from elsewhere. A request that names another host than ours comes from a page of somebody else's
that had its name point here (DNS rebinding): refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from console.report.pairs import FOLDER
from console.settings import Settings
from console.ui import nights, playground
from console.ui.files import TYPES, compared, servable
from goalrank.errors import GoalRankError

STATIC = Path(__file__).with_name("static")
FILES = {"style.css", "playground.js"}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
EVERYWHERE = {"0.0.0.0", "::", ""}

OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Of our own pages."""
THEIRS = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of reports, comparisons and Data Docs: no script at all runs in them."""
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class OnlyOurHosts:
    """Refuses requests that name another host, and puts the headers on every answer."""

    def __init__(self, app: App, hosts: set[str] | None) -> None:
        """
        Args:
            hosts: names we may be called by; None: any.
        """
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in HEADERS.items() if pair[0] not in given)]
            await send(message)

        if scope["type"] == "http" and self.hosts is not None and _host(scope) not in self.hosts:
            await PlainTextResponse("this is another host's page; call it by the address that was printed", 403)(
                scope, receive, sending
            )
            return
        await self.app(scope, receive, sending)


def create_app(settings: Settings, played: playground.Playground, host: str = "127.0.0.1") -> Starlette:
    """The application for a workspace."""

    async def front(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(nights.page, settings), headers={"content-security-policy": OURS})

    async def play(request: Request) -> Response:
        return FileResponse(STATIC / "playground.html", headers={"content-security-policy": OURS})

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise HTTPException(404)
        return FileResponse(STATIC / name)

    async def icon(request: Request) -> Response:
        return Response(status_code=204)  # browsers ask for it wherever a page names none

    async def of_night(request: Request) -> Response:
        return _their_page(
            await run_in_threadpool(servable, settings.workspace / "nights", request.path_params["path"])
        )

    async def of_two(request: Request) -> Response:
        return _their_page(await run_in_threadpool(compared, settings.workspace / FOLDER, request.path_params["name"]))

    async def failed(request: Request, error: Exception) -> Response:
        return PlainTextResponse("this page could not be made; the terminal says why", 500)

    app = Starlette(
        routes=[
            Route("/", front),
            Route("/playground", play),
            Route("/static/{name}", static),
            Route("/favicon.ico", icon),
            Route("/nights/{path:path}", of_night),
            Route("/comparisons/{name}", of_two),
            *playground.routes(played),
        ],
        middleware=[Middleware(OnlyOurHosts, hosts=None if host in EVERYWHERE else LOOPBACK | {host})],
        exception_handlers={GoalRankError: playground.refused, Exception: failed},
    )
    app.router.redirect_slashes = False
    return app


def _their_page(file: Path | None) -> Response:
    if file is None:
        raise HTTPException(404)
    return FileResponse(file, media_type=TYPES[file.suffix], headers={"content-security-policy": THEIRS})


_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?")


def _host(scope: Scope) -> str | None:
    """The name in the Host header, without port and brackets; None: there is not one such header of that form."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    named = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    return (named[1] or named[2]) if named else None
