"""Tell a webhook how the night went: a small JSON POST. A night never fails because nobody could be told.

The address comes from the environment (GOALRANK_NOTIFY_URL, a Kubernetes secret on a cluster), since chat services put
their token into it; it is in no outcome, no report and no log.
"""

from __future__ import annotations

import json
import os
import re
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from components.step import FOR_EXAMPLE

ADDRESS = "GOALRANK_NOTIFY_URL"
TRIES = 3
ANSWER_SECONDS = 10.0
PAUSE_SECONDS = 2.0

_USER = re.compile(r"(user_id[\s=:]+)\d+(?:\.\d+)?")

TOLD = ("date", "verdict", "exit_code", "reason", "model_version", "snapshot_id", "state")


class _NoRedirects(HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body, and be taken for delivered."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def notify(result: dict[str, Any], report: str, address: str | None = None, pause: float = PAUSE_SECONDS) -> str:
    """Post the night's result, tried again where that may help; what became of it, in words without the address.

    Args:
        result: of the night (components/publish_report/result.py), with date and state.
        report: where the page lies.
        address: http or https; None: from the environment, and where that is empty nobody is told.
        pause: seconds before the second try, doubled for the third.
    """
    address = os.environ.get(ADDRESS, "") if address is None else address
    if not address.strip():
        return f"nobody: {ADDRESS} is not set"
    try:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            return f"nobody: {ADDRESS} is no http or https address"
        body = json.dumps(_message(result, report), default=str).encode()
        request = Request(address, data=body, headers={"Content-Type": "application/json", "User-Agent": "goalrank"})
    except ValueError as error:
        return f"nobody: {ADDRESS} is no http or https address ({type(error).__name__})"
    said = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            with build_opener(_NoRedirects).open(request, timeout=ANSWER_SECONDS) as answer:
                return f"the webhook, which answered {answer.status}"
        except HTTPError as error:
            said = f"it answered {error.code}"
            if error.code < 500 and error.code != 429:
                break  # it will say so again
        except (OSError, ValueError, HTTPException) as error:
            # Its text may quote the address.
            said = type(error).__name__
    return f"nobody: the webhook was not reached ({said})"


def without_rows(reason: object) -> str:
    """A reason without the rows that a refusal quotes, and without the ids of users: only a night's own folder has
    them, where whoever is erased is erased too."""
    told, quotes, _ = str(reason).partition(FOR_EXAMPLE)
    return _USER.sub(r"\1(see the report)", told) + (" (rows are quoted in the report)" if quotes else "")


def _message(result: dict[str, Any], report: str) -> dict[str, Any]:
    """What is posted; `text` is the line that chat services show."""
    reason = without_rows(result.get("reason"))
    text = f"GoalRank, night of {result.get('date')}: {result.get('verdict')}. {reason}"
    return {"text": text} | {name: result.get(name) for name in TOLD} | {"reason": reason, "report": report}
