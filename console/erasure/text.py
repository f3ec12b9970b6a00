"""A user's id in texts: rows that refusals quoted, and the lines of the service's journal."""

from __future__ import annotations

import fcntl
import html
import json
import re
from pathlib import Path

from components.extract_features.erasures import NOBODY
from components.serve_model.journal import SUFFIX
from components.serve_model.served_log import JOURNAL
from components.step import write_atomic

QUOTING = (".json", ".jsonl", ".html", ".log")
"""Texts of a night that may quote rows: outcomes, progress, report, what the pipeline said."""

ERASED = "erased"


def redact(folder: Path, user_id: int, requests: set[str], dry_run: bool) -> list[Path]:
    """Put NOBODY where texts below a folder name the user (user_id=7, "user_id": 7, user_id 7), ERASED where one of the
    user's requests; the files that did."""
    named = re.compile(rf"(user_id(?:&#34;|&quot;|[\\\"'\s:=])+){user_id}(?!\d)")
    # As check_features told unknown users until it named the column: for_example=5 7 9.
    listed = re.compile(rf"(reference=users [\w=. ]*?for_example=(?:\d+ )*?){user_id}(?!\d)")
    spelt = {spelling for one in requests for spelling in (one, html.escape(one), json.dumps(one)[1:-1])}
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


def journal(served: Path, user_id: int, dry_run: bool) -> tuple[int, int]:
    """Take the user's lines out of the journals of services that are gone.

    Returns:
        lines taken out, and how many journals of running services hold lines of the user.
    """
    gone = held = 0
    for path in sorted((served / JOURNAL).glob(f"*{SUFFIX}")):
        with open(path, "rb") as file:
            lines = file.read().splitlines(keepends=True)
            events = [_event(line) for line in lines]
            theirs = {event.get("request_id") for event in events if event.get("user_id") == user_id}
            kept = [
                line
                for line, event in zip(lines, events, strict=True)
                if event.get("request_id", event.get("feedback_on")) not in theirs
            ]
            if not theirs:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held += 1
                continue
            gone += len(lines) - len(kept)
            if not dry_run:
                write_atomic(path, b"".join(kept).decode())
    return gone, held


def _event(line: bytes) -> dict[str, object]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
