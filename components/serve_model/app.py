"""The HTTP face of the ranking service.

    POST /rank      {request_id?, user_id, candidates: [{item_id, score}, ...], list_length?}
                    -> {request_id, model_name, model_version, items, fallback, explored}
    POST /feedback  {request_id, position, click?, like?, watch_seconds?} -> {request_id, position}
    GET  /health    the process lives          GET /ready    it answers with this model version

What is wrong with a request is said in {"error": ...} with a 4xx.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from components.serve_model.bodies import MAX_BODY_BYTES, FeedbackBody, RankBody, reason_of
from components.serve_model.ranking import Ranking
from components.serve_model.served_log import RepeatedRequestError, ServedLog, UnknownRequestError
from goalrank import __version__

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BodyLimit:
    """Refuses bodies over MAX_BODY_BYTES with 413, announced or not, before anything parses them."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY_BYTES:
                reason = f"the body is over {MAX_BODY_BYTES} bytes; send fewer candidates"
                await JSONResponse({"error": reason}, 413)(scope, receive, send)
                return
        sent = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)


def create_app(ranking: Ranking, log: ServedLog) -> FastAPI:
    """The ASGI application; it writes out the log when it is shut down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log.start()
        try:
            yield
        finally:
            log.close()

    # Without the interactive pages: they load scripts from elsewhere.
    app = FastAPI(
        title="GoalRank ranking service", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.add_middleware(BodyLimit)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": reason_of(list(error.errors()))}, 422)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @app.exception_handler(UnknownRequestError)
    def unknown(request: Request, error: UnknownRequestError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 404)

    @app.exception_handler(RepeatedRequestError)
    def repeated(request: Request, error: RepeatedRequestError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    # Plain functions: they run on threads, so that a slow store does not hold up /health.
    @app.post("/rank")
    def rank(body: RankBody) -> dict[str, Any]:
        ranked = ranking.rank(body)
        return {
            "request_id": log.record(body, ranked),
            "model_name": ranked.model_name,
            "model_version": ranked.model_version,
            "items": ranked.items,
            "fallback": ranked.fallback,
            "explored": ranked.explored,
        }

    @app.post("/feedback")
    def feedback(body: FeedbackBody) -> dict[str, Any]:
        try:
            log.feedback(body)
        except OSError as error:
            raise HTTPException(503, f"the feedback could not be kept ({error}); send it again later") from error
        return {"request_id": body.request_id, "position": body.position}

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "unlogged_requests": log.unlogged}

    @app.get("/ready")
    def ready() -> dict[str, Any]:
        version = ranking.champion.version
        return {"status": "ready", "model_name": version.name, "model_version": version.version}

    return app
