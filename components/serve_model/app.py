"""The HTTP face of the ranking service.

    POST /rank      {request_id?, user_id, candidates: [{item_id, score}, ...], list_length?}
                    -> {request_id, model_name, model_version, items, fallback, explored}
                    [such a body, ...], at most MAX_BATCH -> [such an answer or {error, status}, ...], in their order
    POST /feedback  {request_id, position, click?, like?, watch_seconds?} -> {request_id, position}
    GET  /health    the process lives          GET /ready    it answers with this model version
    GET  /metrics   for Prometheus             /v2/...       the Open Inference Protocol (inference.py)

What is wrong with a request is said in {"error": ...} with a 4xx.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from components.serve_model import inference
from components.serve_model.batching import OverloadedError
from components.serve_model.bodies import FeedbackBody, RankBody, Refused, read_rank, reason_of
from components.serve_model.body_limit import App, BodyLimit, Receive, Scope, Send
from components.serve_model.metrics import OUTCOMES
from components.serve_model.served_log import RepeatedRequestError, UnknownRequestError
from components.serve_model.service import Answer, Service
from goalrank.errors import UsageError


class AnswersAtTheEnd:
    """Answers 503 where the end of the server cancels a request that has no answer yet; nothing else cancels one."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except asyncio.CancelledError:
            if scope["type"] != "http" or begun:
                raise
            reason = "this server is ending and could not answer in time; send it again, another one will"
            await _json({"error": reason}, 503, {"connection": "close", "retry-after": "1"})(scope, receive, send)


def create_app(service: Service) -> Starlette:
    """The ASGI application; it writes out the log when it is shut down."""
    metrics = service.metrics

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    def counted(endpoint: str, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Any]:
        seconds = metrics.seconds.labels(endpoint)
        outcomes = {name: metrics.requests.labels(endpoint, name) for name in OUTCOMES}

        async def answer(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                response = await handler(request)
            except HTTPException as refusal:
                outcomes[_OUTCOMES.get(refusal.status_code, "invalid")].inc()
                raise
            except OverloadedError:
                outcomes["overloaded"].inc()
                raise
            except BaseException:
                outcomes["failed"].inc()
                raise
            outcomes[_OUTCOMES.get(response.status_code, "invalid")].inc()
            seconds.observe(time.perf_counter() - begun)
            return response

        return answer

    async def rank(request: Request) -> Response:
        try:
            asked = read_rank(request.scope["body"])
        except UsageError as error:
            return _json({"error": str(error)}, 422)
        if isinstance(asked, RankBody):
            (answer,) = await service.rank([asked])
            if isinstance(answer, RepeatedRequestError):
                return _json({"error": str(answer)}, 409)
            return _json(_document(answer))
        good = [one for one in asked if isinstance(one, RankBody)]
        answers = iter(await service.rank(good) if good else [])
        return _json([_document(one if isinstance(one, Refused) else next(answers)) for one in asked])

    async def feedback(request: Request) -> Response:
        try:
            body = FeedbackBody.model_validate_json(request.scope["body"])
        except ValidationError as error:
            return _json({"error": reason_of(error.errors())}, 422)
        try:
            await run_in_threadpool(service.log.feedback, body)
        except UnknownRequestError as error:
            return _json({"error": str(error)}, 404)
        except OSError as error:
            return _json({"error": f"the feedback could not be kept ({error}); send it again later"}, 503)
        return _json({"request_id": body.request_id, "position": body.position})

    async def health(request: Request) -> Response:
        return _json({"status": "ok", "unlogged_requests": service.log.unlogged})

    async def ready(request: Request) -> Response:
        models = service.ranking.models
        version = models.champion.version
        document: dict[str, Any] = {
            "status": "no_champion" if models.withdrawn else "ready",
            "model_name": version.name,
            "model_version": version.version,
            "previous_version": models.previous.version.version if models.previous else None,
        }
        return _json(document) if service.ready else _json(document | {"status": "not answering"}, 503)

    async def told(request: Request) -> Response:
        return Response(await run_in_threadpool(metrics.text), media_type=CONTENT_TYPE_LATEST)

    app = Starlette(
        routes=[
            Route("/rank", counted("rank", rank), methods=["POST"]),
            Route("/feedback", counted("feedback", feedback), methods=["POST"]),
            *inference.routes(service, counted),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", told),
        ],
        middleware=[
            Middleware(AnswersAtTheEnd),
            Middleware(BodyLimit, metrics=metrics, endpoint_of=_endpoint_of),
        ],
        exception_handlers={HTTPException: _refused, OverloadedError: _overloaded, Exception: _failed},
        lifespan=lifespan,
    )
    # /rank/ is no path of ours; a redirect would send the client to whatever Host it named itself.
    app.router.redirect_slashes = False
    return app


_ENDPOINTS = {"/rank": "rank", "/feedback": "feedback"}
_OUTCOMES = {200: "answered", 503: "not_kept"}
"""What an answer's status says; any other one is "invalid". Too many requests are an exception, not an answer."""


def _endpoint_of(path: str) -> str | None:
    """What the metrics call a path that is posted to; None where there is nothing."""
    return "infer" if inference.INFER.fullmatch(path) else _ENDPOINTS.get(path)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(document), status, headers, "application/json")


def _document(answer: Answer | Refused | RepeatedRequestError) -> dict[str, Any]:
    if isinstance(answer, Refused):
        return {"error": answer.reason, "status": answer.status}
    if isinstance(answer, RepeatedRequestError):
        return {"error": str(answer), "status": 409}
    ranked = answer.ranked
    return {
        "request_id": answer.request_id,
        "model_name": ranked.model_name,
        "model_version": ranked.model_version,
        "items": ranked.items,
        "fallback": ranked.fallback,
        "explored": ranked.explored,
    }


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    reason = error.detail if isinstance(error, HTTPException) else str(error)
    return _json({"error": reason}, status, dict(getattr(error, "headers", None) or {}))


async def _overloaded(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 503, {"retry-after": "1"})


async def _failed(request: Request, error: Exception) -> Response:
    return _json({"error": "the service failed on this request; its log says why"}, 500)
