"""The workspace of one machine: which logs it belongs to, which nights it has seen, and one night at a time.

WORKSPACE/
  workspace.json     release format and the logs this workspace learns from
  logs/              simulated logs (only without --logs)
  snapshots/ feast/ mlflow/ journal/ served/
  nights/<date>/<n>/ one try of one night: night.json, progress.jsonl, pipeline.log, outcomes/, artifacts/, report.html
"""

from __future__ import annotations

import datetime
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.step import write_atomic
from goalrank.errors import DataRefused, TryAgain, UsageError

FORMAT = 1
ENDED_WELL = ("promoted", "kept")
RUNNING = "running"


@dataclass(frozen=True)
class Night:
    """One try of one night, as its night.json keeps it."""

    folder: Path
    date: str
    verdict: str
    parameters: dict[str, object]

    @classmethod
    def read(cls, folder: Path) -> Night:
        document = json.loads((folder / "night.json").read_text(encoding="utf-8"))
        return cls(folder, document["date"], document["verdict"], document["parameters"])

    def write(self, **result: object) -> None:
        """Keep how the night stands; whole or not at all."""
        document = {"date": self.date, "verdict": self.verdict, "parameters": self.parameters, **result}
        write_atomic(self.folder / "night.json", json.dumps(document, indent=1, default=str))


class Workspace:
    """A workspace folder, created on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._card = folder / "workspace.json"

    def claim_logs(self, logs: str | None) -> Path:
        """The logs this workspace learns from: recorded on the first night, checked on every later one.

        Raises:
            UsageError: other logs than the recorded ones are given, or the workspace is of another release.
        """
        card = json.loads(self._card.read_text(encoding="utf-8")) if self._card.exists() else None
        if card and card.get("format") != FORMAT:
            raise UsageError(
                f"{self.folder} has format {card.get('format')!r}, expected {FORMAT}; use a new --workspace"
            )
        given = str(Path(logs).resolve()) if logs else None
        if card and given and card["logs"] != given:
            raise UsageError(
                f"workspace {self.folder} learns from {card['logs']}, but --logs gave {given}; "
                "features of two sources must not mix: use another --workspace"
            )
        recorded = card["logs"] if card else given or str(self.folder / "logs")
        if not card:
            write_atomic(self._card, json.dumps({"format": FORMAT, "logs": recorded}, indent=1))
        return Path(recorded)

    @property
    def simulated_logs(self) -> Path:
        """Where the workspace's own world writes its logs."""
        return self.folder / "logs"

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Hold the workspace while a night runs.

        Raises:
            TryAgain: another night of this workspace is running.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TryAgain(f"another night runs in {self.folder}; wait for it to end") from error
            yield

    def nights(self) -> list[Night]:
        """Every try of every night, oldest date first, within a date in the order they were tried."""
        cards = self.folder.glob("nights/*/*/night.json")
        return [Night.read(card.parent) for card in sorted(cards, key=lambda c: (c.parts[-3], int(c.parts[-2])))]

    def last_good_date(self) -> str | None:
        """The newest date whose night ended well (promoted or kept)."""
        return max((night.date for night in self.nights() if night.verdict in ENDED_WELL), default=None)

    def new_night(self, date: str, parameters: dict[str, object]) -> Night:
        """A folder for one more try of `date`."""
        day = self.folder / "nights" / date
        tried = [int(folder.name) for folder in day.glob("*") if folder.name.isdigit()]
        folder = day / str(max(tried, default=0) + 1)
        folder.mkdir(parents=True)
        night = Night(folder, date, RUNNING, parameters | {"date": date, "run_uri": str(folder)})
        night.write()
        return night


def arrival_days(logs: Path) -> list[str]:
    """The days on which requests arrived, oldest first."""
    return sorted(folder.name.removeprefix("dt=") for folder in (logs / "requests").glob("dt=*") if folder.is_dir())


def parse_date(text: str) -> str:
    """Check a --date.

    Raises:
        UsageError: it is not a date.
    """
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"--date {text!r} found, expected a day such as 2026-01-31") from None


def day_after(day: str) -> str:
    """The next calendar day."""
    return (datetime.date.fromisoformat(day) + datetime.timedelta(days=1)).isoformat()


def next_date(logs: Path, last_good: str | None) -> str:
    """The night to run when no --date is given: the day after the last good night, or the newest day of the logs.

    Raises:
        DataRefused: there are no logs at all.
        TryAgain: that day has not arrived yet.
    """
    days = arrival_days(logs)
    if not days:
        raise DataRefused(f"no partition found under {logs / 'requests'}, expected folders dt=YYYY-MM-DD")
    if last_good is None:
        return days[-1]
    wanted = day_after(last_good)
    if wanted > days[-1]:
        raise TryAgain(f"the day {wanted} has not arrived in {logs} yet (newest: {days[-1]}); try again when it has")
    return wanted
