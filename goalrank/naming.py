"""What names and addresses from outside may look like: no way out of a folder, nothing that reads as something else.

A name ends up in paths (a version's folder, a date's partition) and in URIs (models:/NAME/VERSION, sqlite:///FILE).
There `..` climbs, `#` and `?` cut off the rest, `%2e` becomes a dot after the check, a newline starts a second line.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from goalrank.errors import GoalRankError, UsageError

BEFORE = "before "
AUTO = "auto"
"""Of a run that finds out by itself which night it is (components/the_night.py)."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,127})")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENCODED = re.compile(r"%(?:2e|2f|5c|23|3f|25|0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]*@")
_USER = re.compile(r"(?<=//)\S*@|^(?![/.]|\S*//)\S*@")
_SECRET = re.compile(r"([?&;][^=&;\s]*(?:pass|pwd|token|secret|key|sig|cred)[^=&;\s]*=)[^&;\s]+", re.IGNORECASE)


def require_name(what: str, text: Any, error: type[GoalRankError] = UsageError) -> str:
    """A registered model's name or a run's id: letters, digits, '.', '_', '-', no '..', at most 128.

    Raises:
        UsageError: it is anything else (or `error`, where the name comes from a document).
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text) or ".." in text:
        raise error(f"{what} {_shown(text)} found, expected letters, digits, '.', '_' and '-', without '..'")
    return text


def require_version(what: str, text: Any, error: type[GoalRankError] = UsageError) -> str:
    """A registered version's number, as text.

    Raises:
        UsageError: it is no whole number from 1 (or `error`).
    """
    if not isinstance(text, str) or not _VERSION.fullmatch(text):
        raise error(f"{what} {_shown(text)} found, expected a version number such as 7")
    return text


def require_day(what: str, text: Any, error: type[GoalRankError] = UsageError) -> str:
    """A calendar day, YYYY-MM-DD and no other spelling.

    Raises:
        UsageError: it is no such day (or `error`).
    """
    try:
        if isinstance(text, str) and _DAY.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise error(f"{what} {_shown(text)} found, expected a day such as 2026-01-31")


def arrival_day(what: str, text: Any, error: type[GoalRankError] = UsageError) -> str:
    """The arrival day that is meant: a day as it is, or `before DAY` for the day before it.

    For schedulers that know on which day they start a night, but not how to subtract one; both days are in UTC.

    Raises:
        UsageError: it is neither (or `error`).
    """
    if isinstance(text, str) and text.startswith(BEFORE):
        return (date.fromisoformat(require_day(what, text.removeprefix(BEFORE), error)) - timedelta(1)).isoformat()
    return require_day(what, text, error)


def require_address(what: str, text: Any, error: type[GoalRankError] = UsageError) -> str:
    """A URI or a folder as it is given to the system: no '..' step, no '#', no encoded dots, slashes or controls.

    User name and password of a URI may hold encoded characters; they never become a path.

    Raises:
        UsageError: one of these is in it, or it is empty (or `error`).
    """
    if not isinstance(text, str) or not text.strip():
        raise error(f"{what} {_shown(text)} found, expected a folder or a URI")
    rest = without_password(text)
    if _CONTROL.search(text):
        raise error(f"{what} {_shown(rest)} holds a line break or another control character; expected plain text")
    if ".." in re.split(r"[/\\:]", rest):
        raise error(f"{what} {_shown(rest)} climbs with '..'; give the place's own path")
    if "#" in rest or _ENCODED.search(rest):
        raise error(f"{what} {_shown(rest)} holds '#' or an encoded dot, slash or control; choose a plain name")
    return text


def without_password(text: str) -> str:
    """An address, or a text with addresses, without users and passwords: it can still be asked for."""
    return _CREDENTIALS.sub("", text)


def masked(text: str) -> str:
    """An address, or a text with addresses, as it may be shown: `...` for users, passwords and what is called a secret.

    Rather too much than too little: a password may hold a slash or an at sign.
    """
    return _SECRET.sub(r"\1...", _USER.sub("...@", text))


def require_no_password(what: str, text: str) -> str:
    """An address that others get to see: a parameter of a run, a variable in a pod's description.

    Raises:
        UsageError: a user, a password or a secret is in it; the message has it not.
    """
    if masked(text) != text:
        raise UsageError(
            f"{what} {_shown(masked(text))} found with a user or password in it, expected the address alone: it stands "
            "in clear in the run's parameters and pods, for whoever may look at them. Keep the password in a Secret "
            "that the server itself reads (docs/deploy.md, step 3)"
        )
    return text


def require_folder(what: str, folder: Path | str, error: type[GoalRankError] = UsageError) -> Path:
    """A folder that URIs are made from (sqlite:///FOLDER/...): as :func:`require_address`, and no '%' or '?'.

    Raises:
        UsageError: as above (or `error`).
    """
    text = require_address(what, str(folder), error)
    if "%" in text or "?" in text:
        raise error(f"{what} {_shown(text)} holds '%' or '?', which mean something else in a URI; choose a plain name")
    return Path(text)


def require_workspace_named(text: str) -> None:
    """Refuse an empty --workspace: a path made of it would be the current folder.

    Raises:
        UsageError: it is empty.
    """
    if not text.strip():
        raise UsageError(
            f"--workspace (or GOALRANK_WORKSPACE) {text!r} found, expected a folder; is a shell variable not set? Give "
            "'.' for the current folder, or leave it out"
        )


def _shown(text: Any) -> str:
    return repr(text if len(str(text)) <= 80 else f"{str(text)[:77]}...")
