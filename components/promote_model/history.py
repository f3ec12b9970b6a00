"""What became of every night, and every move of the aliases: the nights' own cards joined with the journal.

promoted      the night's version became champion (by: night or hand)
kept          the champion was kept
refused       data, model or serving were refused
failed        a bug, an interruption, something away
running       not over yet
rolled back   the champion was taken back (by: hand or watch)
interrupted   a move was begun and not finished: the next promotion or roll-back finishes it
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components import night_card, registry
from components.promote_model import journal, lineage


@dataclass(frozen=True)
class Entry:
    """One line of the history."""

    date: str
    """The night it belongs to; of a roll-back the night that had registered the version rolled back from."""
    at: str
    """When, UTC, ISO 8601."""
    what: str
    version: str | None
    """The version registered that night, or rolled back from."""
    champion: str | None
    """The champion after a move; None where nothing moved, or nobody is."""
    by: str | None
    run: str | None
    reason: str


def read(nights: Path, journal_uri: str) -> list[Entry]:
    """All entries, in the order in which they happened.

    Args:
        nights: WORKSPACE/nights, with <date>/<n>/night.json in it; it need not exist.
        journal_uri: folder of promotions.jsonl.

    Raises:
        ModelRefused: the journal is damaged. A damaged night card is an entry that says so.
    """
    events = journal.read(journal_uri)
    ends = {event["id"]: event for event in events if event["event"] != "intent"}
    entries = [_moved(event, ends.get(event["id"])) for event in events if event["event"] == "intent"]
    told = {entry.run for entry in entries if entry.what == "promoted"}
    for card in nights.glob("*/*/night.json"):
        entry = _night(card)
        if entry.what != "promoted" or entry.run not in told:  # its promotion is in the list already
            entries.append(entry)
    return sorted(entries, key=lambda entry: (entry.at, entry.date))


def as_rows(entries: list[Entry]) -> list[dict[str, Any]]:
    """The entries as plain objects, for JSON."""
    return [asdict(entry) for entry in entries]


def _moved(intent: dict[str, Any], end: dict[str, Any] | None) -> Entry:
    ranker: dict[str, Any] = next((move for move in intent["moves"] if move["name"] == registry.RANKER), {})
    forwards = intent["kind"] == lineage.PROMOTION
    what = "promoted" if forwards else "rolled back"
    reason, champion = str(intent.get("reason", "")), ranker.get("to")
    if end is None:
        what, champion = "interrupted", None
        reason = f"{intent['kind']} {intent['id']} is not finished; the next promotion or roll-back finishes it"
    elif end["event"] == "abandoned":
        what, champion, reason = "failed", None, str(end.get("note", ""))
    run_uri = str(intent.get("run_uri") or "")
    return Entry(
        date=str(intent.get("date", "")),
        at=str(intent.get("at", "")),
        what=what,
        version=ranker.get("to" if forwards else "from"),
        champion=champion,
        by=str(intent.get("by", "night")),
        run=_run(Path(run_uri)) if run_uri else None,
        reason=reason,
    )


def _night(card: Path) -> Entry:
    try:
        document = night_card.read_night(card)
        at = datetime.fromtimestamp(document.get("ended_at") or document["started_at"], UTC)
        what, version = str(document["verdict"]), document.get("model_version")
        reason, date = str(document.get("reason") or ""), str(document["date"])
    except (OSError, ValueError, TypeError, OverflowError) as error:
        at = datetime.fromtimestamp(card.stat().st_mtime, UTC)
        what, version, reason, date = "failed", None, str(error), card.parts[-3]
    return Entry(
        date=date,
        at=at.isoformat(timespec="seconds"),
        what=what,
        version=None if version is None else str(version),
        champion=None,
        by=None,
        run=_run(card.parent),
        reason=reason,
    )


def _run(folder: Path) -> str:
    """A night's run as people name it: DATE/N, on a cluster DATE/MARK or scheduled/RUN."""
    return "/".join(folder.parts[-2:])
