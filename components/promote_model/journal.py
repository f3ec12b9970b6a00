"""The promotions' journal: what was about to happen, written before any alias moves, and what became of it.

One JSON object a line in JOURNAL/promotions.jsonl, appended and synced:

    {"format": 1, "event": "intent", "id": 7, "at", "kind": "promotion" or "rollback", "by": "night", "hand" or "watch",
     "reason", "date", "snapshot_id", "run_uri",
     "moves": [{"name", "from": version or null, "to": version or null, "previous": version or null}, ...]}
    {"format": 1, "event": "done" or "abandoned", "id": 7, "at", "note"}

An intent without an end is a crash in between. Its moves say where every alias was and must go, so replaying them
is safe any number of times: that is the repair. JOURNAL/lock is held (flock) by whoever moves aliases. What the
journal says about who was champion when is read in lineage.py.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import registry
from components.promote_model.lineage import follow
from goalrank import naming
from goalrank.errors import ModelRefused, TryAgain, UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

FORMAT = 1
FILE = "promotions.jsonl"
LOCK = "lock"
TRIAL = "trial.lock"
"""Held by whoever drives a canary, for hours: roll-backs need the other one meanwhile."""


@contextmanager
def lock(journal_uri: str, who: str, name: str = LOCK) -> Iterator[None]:
    """Be the only one that moves aliases, or with TRIAL drives a canary; it goes with the process, however that ends.

    Raises:
        UsageError: the folder's name has a trap in it.
        TryAgain: somebody else holds it; the message says who.
    """
    folder = folder_of(journal_uri)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise TryAgain(
                f"another promotion or roll-back is under way ({holder}); wait for it to end, then run the same "
                "command again"
            ) from None
        file.truncate(0)
        file.write(f"{who}, process {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def folder_of(journal_uri: str) -> Path:
    """The journal's folder. One that all who move aliases share, since the lock is the file system's.

    Raises:
        UsageError: it is no folder, or its name has a trap in it.
    """
    naming.require_address("journal URI", journal_uri)
    if "://" in journal_uri:
        raise UsageError(
            f"journal URI {journal_uri!r} found, expected a folder: its lock is the file system's, and an object store "
            "has none; give a folder (a shared volume) that every promoter sees"
        )
    return Path(journal_uri)


def read(journal_uri: str) -> list[dict[str, Any]]:
    """All events, oldest first. A last line cut short by a crash never took effect and is left out.

    Raises:
        ModelRefused: a line before the last is damaged, or of a format this release does not know.
        UsageError: the journal URI is no folder.
    """
    path = folder_of(journal_uri) / FILE
    if not path.exists():
        return []
    *lines, torn = path.read_bytes().split(b"\n")  # each line decoded on its own, so that a damaged one is named
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line.decode("utf-8"))
            known = event["format"] == FORMAT and event["event"] in ("intent", "done", "abandoned")
            known = known and isinstance(event["id"], int)
            known = known and (event["event"] != "intent" or _is_intent(event))
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise ModelRefused(
                f"{path} line {number} is no event of format {FORMAT}: {line[:80]!r}; restore the journal from a "
                "backup, or move it away if the aliases in MLflow are right as they are"
            )
        events.append(event)
    return events


def open_intent(journal_uri: str) -> dict[str, Any] | None:
    """The intent that never came to an end, or None. Needs no MLflow: cheap enough to ask on every start."""
    events = read(journal_uri)
    ended = {event["id"] for event in events if event["event"] != "intent"}
    waiting = [event for event in events if event["event"] == "intent" and event["id"] not in ended]
    return waiting[-1] if waiting else None


def begin(journal_uri: str, **details: Any) -> int:
    """Write an intent (under the lock) and return its id."""
    intents = [event["id"] for event in read(journal_uri) if event["event"] == "intent"]
    number = max(intents, default=0) + 1
    _append(journal_uri, {"event": "intent", "id": number, **details})
    return number


def end(journal_uri: str, number: int, event: str = "done", note: str = "") -> None:
    """Write that intent `number` is done, or was abandoned."""
    _append(journal_uri, {"event": event, "id": number, "note": note})


def apply(client: MlflowClient, moves: list[dict[str, Any]]) -> None:
    """Move the aliases as an intent says. Doing it twice, or again after half of it, ends the same."""
    for move in moves:
        registry.point(client, move["name"], registry.PREVIOUS, move["previous"])
        registry.point(client, move["name"], registry.CHAMPION, move["to"])


def repair(tracking_uri: str, journal_uri: str, who: str = "repair") -> str | None:
    """Finish what a crash left half done, and say so; None where nothing was open.

    The intent was written after every verdict had been checked, so it is carried through. It is abandoned where an
    alias has meanwhile gone somewhere the intent does not know (moved by hand; aliases left as found), and where the
    version it leads to has been deleted (what had moved is put back).

    Raises:
        TryAgain: another promoter is at work, or MLflow is away.
    """
    if open_intent(journal_uri) is None:
        return None
    with lock(journal_uri, who):
        return repair_locked(registry.connect(tracking_uri), tracking_uri, journal_uri)


def repair_locked(client: MlflowClient, tracking_uri: str, journal_uri: str) -> str | None:
    """:func:`repair` for one that holds the lock and a client already."""
    intent = open_intent(journal_uri)
    if intent is None:
        return None
    with registry.reaching(tracking_uri):
        for move in intent["moves"]:
            now = registry.by_alias(client, move["name"], registry.CHAMPION)
            found = None if now is None else str(now.version)
            # An alias goes with the version it points to, so where one of the two was deleted it may point nowhere.
            lost = found is None and not all(_there(client, move["name"], move[place]) for place in ("from", "to"))
            if found not in (move["from"], move["to"]) and not lost:
                note = (
                    f"{intent['kind']} {intent['id']} abandoned: champion of {move['name']} is version {found}, "
                    f"expected {move['from']} or {move['to']}; aliases left as found"
                )
                end(journal_uri, intent["id"], "abandoned", note)
                return note
        if gone := [move for move in intent["moves"] if not _there(client, move["name"], move["to"])]:
            _put_back(client, journal_uri, intent["moves"])
            versions = ", ".join(f"{move['name']} version {move['to']}" for move in gone)
            note = (
                f"{intent['kind']} {intent['id']} abandoned: {versions} is not in the registry any more; "
                "what had moved was put back"
            )
            end(journal_uri, intent["id"], "abandoned", note)
            return note
        moves = [
            move if _there(client, move["name"], move["previous"]) else move | {"previous": None}
            for move in intent["moves"]
        ]
        apply(client, moves)
    versions = ", ".join(f"{move['name']} version {move['to'] or 'none'}" for move in intent["moves"])
    note = f"{intent['kind']} {intent['id']} of {intent['date']} was interrupted and is now complete: {versions}"
    end(journal_uri, intent["id"], note="repaired")
    return note


def _there(client: MlflowClient, name: str, version: str | None) -> bool:
    """Whether an alias can be pointed there; nowhere is always there."""
    return version is None or registry.registered(client, name, version) is not None


def _put_back(client: MlflowClient, journal_uri: str, moves: list[dict[str, Any]]) -> None:
    """Undo what was moved of these: champion to where it was, previous to the one before it in the line."""
    lineage = follow(read(journal_uri))
    for move in moves:
        name, champion = move["name"], move["from"]
        before = lineage.before(champion)
        if name != registry.RANKER:
            before = lineage.rewards.get(lineage.before(lineage.ranker_beside(champion)) or "")
        for alias, version in ((registry.CHAMPION, champion), (registry.PREVIOUS, before)):
            registry.point(client, name, alias, version if _there(client, name, version) else None)


def _is_intent(event: dict[str, Any]) -> bool:
    """Has an intent what the repair acts on? An alias moved on a damaged line's word would be worse than a refusal."""
    return isinstance(event["kind"], str) and all(
        isinstance(move["name"], str) and all(move[key] is None or isinstance(move[key], str) for key in _PLACES)
        for move in event["moves"]
    )


_PLACES = ("from", "to", "previous")


def _append(journal_uri: str, event: dict[str, Any]) -> None:
    path = Path(journal_uri) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"format": FORMAT, "at": datetime.now(UTC).isoformat(timespec="seconds"), **event})
    with open(path, "a+b") as file:
        _drop_torn_end(file)
        file.write(line.encode("utf-8") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the file's very name must survive a power cut too
    finally:
        os.close(folder)


def _drop_torn_end(file: Any) -> None:
    """Take away what a crash left of a line, so that the next one starts on its own."""
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)
