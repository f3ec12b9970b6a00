"""A user's id in texts: rows that refusals quoted, and the lines of the service's journal."""

from __future__ import annotations

import fcntl
import html
import json
import re
from contextlib import suppress
from pathlib import Path

from markupsafe import escape

from components.extract_features.erasures import NOBODY
from components.publish_report.page import quoted
from components.serve_model.journal import DAMAGED, SUFFIX
from components.serve_model.served_log import JOURNAL
from components.step import write_atomic

QUOTING = (".json", ".jsonl", ".html", ".log", ".md")
"""Texts of a night that may quote rows: outcomes, progress, report, what the pipeline said."""

ERASED = "erased"


def redact(folder: Path, user_id: int, requests: set[str], dry_run: bool) -> list[Path]:
    """Put NOBODY where texts below a folder name the user (user_id=7, "user_id": 7, user_id 7), ERASED where one of the
    user's requests; the files that did."""
    named = re.compile(rf"(user_id(?:&#34;|&quot;|[\\\"'\s:=])+){user_id}(?!\d)")
    # As check_features told unknown users until it named the column: for_example=5 7 9.
    listed = re.compile(rf"(reference=users [\w=. ]*?for_example=(?:\d+ )*?){user_id}(?!\d)")
    spelt = {spelling for one in requests for spelling in _spellings(one)}
    asked = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(spelt)))})(?![\w-])") if spelt else None
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in QUOTING and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            redacted = listed.sub(rf"\g<1>{NOBODY}", named.sub(rf"\g<1>{NOBODY}", text))
            if asked:
                redacted = asked.sub(ERASED, redacted)
            if redacted != text:
                found.append(path)
                if not dry_run:
                    write_atomic(path, redacted)
    return found


def _spellings(request_id: str) -> tuple[str, ...]:
    """How an id reads in plain text, JSON, pages (an older release's too) and model cards."""
    return (
        request_id,
        json.dumps(request_id)[1:-1],
        html.escape(request_id),
        str(escape(request_id)),
        quoted(request_id),
    )


def journal(served: Path, user_id: int, requests: set[str], dry_run: bool) -> tuple[int, int]:
    """Take the user's lines out of the journals of services that are gone, and out of what was set aside as damaged.

    Args:
        served: folder of the served logs.
        user_id: who is erased.
        requests: ids of the user's requests, as far as they are known already.
        dry_run: count, change nothing.

    Returns:
        lines taken out, and how many journals of running services hold lines of the user.
    """
    gone = held = 0
    files = {path: _lines(path) for suffix in (SUFFIX, DAMAGED) for path in (served / JOURNAL).glob(f"*{suffix}")}
    events = [event for lines in files.values() for event in map(_event, lines)]
    asked = {event.get("request_id") for event in events if event.get("user_id") == user_id}
    theirs = requests | {one for one in asked if isinstance(one, str)}
    # What is damaged says nothing reliably: there a line goes where the id stands as a number of its own, whatever of.
    spelt = [str(user_id), *map(re.escape, sorted(theirs))]
    named = re.compile(rf"(?<![\w.-])(?:{'|'.join(spelt)})(?![\w.-])".encode())
    for path, seen in sorted(files.items()):
        damaged = path.suffix == DAMAGED
        if not any(_is_of(line, user_id, theirs, named, damaged) for line in seen):
            continue
        with suppress(FileNotFoundError), open(path, "rb") as file:  # gone: its service wrote it to the logs meanwhile
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held += 1
                continue
            lines = list(file)  # anew: its service may have written on until it ended
            kept = [line for line in lines if not _is_of(line, user_id, theirs, named, damaged)]
            gone += len(lines) - len(kept)
            if not dry_run:
                write_atomic(path, b"".join(kept))
    return gone, held


def _lines(path: Path) -> list[bytes]:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return list(file)
    return []


def _is_of(line: bytes, user_id: int, requests: set[str], named: re.Pattern[bytes], damaged: bool) -> bool:
    event = _event(line)
    told = event.get("request_id", event.get("feedback_on"))
    if event.get("user_id") == user_id or (isinstance(told, str) and told in requests):
        return True
    whole = isinstance(told, str) and ("feedback_on" in event or isinstance(event.get("user_id"), int))
    return (damaged or not whole) and named.search(line) is not None


def _event(line: bytes) -> dict[str, object]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
