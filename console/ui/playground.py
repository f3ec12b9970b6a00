"""What the playground's page asks for. Models and features are loaded in the background: other pages need not wait."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from console.settings import Settings
from goalrank.errors import GoalRankError, TryAgain, UsageError

if TYPE_CHECKING:
    from console.ui.lists import Lists
    from console.ui.requests import Logged, LoggedRequests

LOADING, READY, UNAVAILABLE = "loading", "ready", "unavailable"
LOOK_SECONDS = 5.0
LONGEST_BODY = 16 * 1024
_ID = re.compile(r"[0-9]{1,19}")

_log = logging.getLogger("goalrank.ui")


class Playground:
    """The requests and models, once they are loaded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.state, self.reason = LOADING, ""
        self.lists: Lists | None = None
        self.logged: LoggedRequests | None = None
        self._loaded: tuple[object, ...] | None = None
        self._looked = 0.0

    def start(self) -> None:
        """Load in the background."""
        self.state = LOADING
        threading.Thread(target=self.load, daemon=True, name="playground").start()

    def renew(self) -> None:
        """Load anew if a night or a roll-back has changed what there is to show; looks every few seconds at most."""
        now = time.monotonic()
        if self.state == LOADING or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            changed = self._standing() != self._loaded
        except GoalRankError:
            return  # away for now: what is loaded stays
        if changed:
            self.start()

    def load(self) -> None:
        """Load; what goes wrong is the page's to say."""
        try:
            import torch

            from components.feature_store import OnlineReader
            from console.ui.lists import Lists, Models
            from console.ui.requests import LoggedRequests

            torch.set_num_threads(1)
            self._loaded = self._standing()
            self.logged = LoggedRequests.newest(self._settings.snapshots_uri)
            models = Models.load(self._settings.tracking_uri)
            self.lists = Lists(models, OnlineReader(self._settings.feast_uri))
            self.state, self.reason = READY, ""
        except GoalRankError as error:
            self.state, self.reason = UNAVAILABLE, str(error)
        except Exception as error:
            _log.exception("the playground could not be loaded")
            self.state, self.reason = UNAVAILABLE, f"{type(error).__name__}: {error}"

    def _standing(self) -> tuple[object, ...]:
        """What is loaded follows from this: the newest snapshot and the versions with an alias."""
        from components import registry
        from components.extract_features import locations, snapshots

        dates = snapshots.dates(locations.folder(self._settings.snapshots_uri))
        uri = self._settings.tracking_uri
        if not registry.exists(uri):
            return (dates[-1:],)
        client = registry.connect(uri)
        with registry.reaching(uri):
            versions = [
                registry.by_alias(client, name, alias)
                for name in (registry.RANKER, registry.REWARD)
                for alias in (registry.CHAMPION, registry.CHALLENGER)
            ]
        return (dates[-1:], *(version and str(version.version) for version in versions))

    def about(self) -> dict[str, Any]:
        """state, and once it is ready who takes part and whose requests there are."""
        document: dict[str, Any] = {"state": self.state, "reason": self.reason}
        if self.lists is None or self.logged is None:
            return document
        models = self.lists.models
        return document | {
            "champion": models.champion.version.version,
            "challenger": models.challenger and models.challenger.version.version,
            "reward_model": models.reward_version.version,
            "date": self.logged.date,
            "snapshot_id": self.logged.snapshot_id,
            "requests": len(self.logged),
        }


def routes(playground: Playground) -> list[Route]:
    """/api/..."""

    async def state(request: Request) -> Response:
        await run_in_threadpool(playground.renew)
        return JSONResponse(playground.about())

    async def users(request: Request) -> Response:
        logged, _ = _ready(playground)
        typed = request.query_params.get("q", "").strip()
        if typed and not _ID.fullmatch(typed):
            raise UsageError(f"{typed[:40]!r} found, expected the beginning of a user id: digits")
        return JSONResponse(logged.users(typed))

    async def requests(request: Request) -> Response:
        logged, _ = _ready(playground)
        return JSONResponse(await run_in_threadpool(logged.of_user, request.path_params["user_id"]))

    async def lists(request: Request) -> Response:
        logged, made = _ready(playground)
        one = _found(logged, request.path_params["request_id"])
        described = await run_in_threadpool(made.describe, one)
        about = {"request_id": one.request_id, "user_id": str(one.user_id), "event_time": one.event_time}
        clicked = [str(item) for item, click in zip(one.shown, one.clicked, strict=False) if click]
        return JSONResponse(about | {"clicked": clicked} | described)

    async def opinion(request: Request) -> Response:
        logged, made = _ready(playground)
        body = await _body(request)
        one = _found(logged, body.get("request_id"))
        items = body.get("items")
        if not isinstance(items, list) or not all(isinstance(item, str) and _ID.fullmatch(item) for item in items):
            raise UsageError("no list of item ids, as texts, found in `items`")
        return JSONResponse(await run_in_threadpool(made.opinion, one, [int(item) for item in items]))

    return [
        Route("/api/state", state),
        Route("/api/users", users),
        Route("/api/users/{user_id:int}/requests", requests),
        Route("/api/requests/{request_id}", lists),
        Route("/api/opinion", opinion, methods=["POST"]),
    ]


def refused(request: Request, error: Exception) -> Response:
    """What our errors are answered with."""
    status = 404 if isinstance(error, UnknownRequestError) else 422 if isinstance(error, UsageError) else 503
    return JSONResponse({"error": str(error)}, status)


class UnknownRequestError(UsageError):
    """No logged request has this id."""


def _ready(playground: Playground) -> tuple[LoggedRequests, Lists]:
    if playground.state != READY or playground.lists is None or playground.logged is None:
        raise TryAgain(playground.reason or "models and features are being loaded; ask again in a moment")
    return playground.logged, playground.lists


def _found(logged: LoggedRequests, request_id: object) -> Logged:
    found = logged.find(request_id) if isinstance(request_id, str) else None
    if found is None:
        raise UnknownRequestError(f"no request {str(request_id)[:64]!r} was logged on {logged.date}")
    return found


async def _body(request: Request) -> dict[str, Any]:
    """A small JSON object; anything but JSON is refused, so that no form of another site can post here."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UsageError("expected content-type application/json")
    text = b""
    async for piece in request.stream():
        text += piece
        if len(text) > LONGEST_BODY:
            raise UsageError(f"more than {LONGEST_BODY} bytes found")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise UsageError("the body is no JSON object")
    return body
