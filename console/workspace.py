"""The workspace of one machine: which logs it belongs to, which nights it has seen, and one night at a time.

WORKSPACE/
  workspace.json     release format and the logs this workspace learns from
  logs/              simulated logs (only without --logs)
  snapshots/ feast/ mlflow/ journal/ served/
  nights/<date>/<n>/ one try of one night: night.json, progress.jsonl, pipeline.log, outcomes/, artifacts/, report.html
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import night_card
from components.night_card import FORMAT, KEPT_BY, LONGEST_HOURS, NIGHT, RUNNING, STEPS, WORKSPACE, heard_of, held
from components.step import write_atomic
from goalrank.errors import DataRefused, TryAgain, UsageError

ENDED_WELL = ("promoted", "kept")


@dataclass(frozen=True)
class Night:
    """One try of one night, as its night.json keeps it."""

    folder: Path
    date: str
    verdict: str
    parameters: dict[str, object]
    started_at: float
    kept_by_steps: bool = False
    """On a cluster: nobody holds the workspace's lock while it runs."""

    @classmethod
    def read(cls, folder: Path) -> Night:
        """The night of a folder.

        Raises:
            UsageError: its card is damaged.
        """
        try:
            document = night_card.read_night(folder / NIGHT)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return cls(
            folder,
            document["date"],
            document["verdict"],
            document["parameters"],
            document["started_at"],
            kept_by_steps=document.get(KEPT_BY) == STEPS,
        )

    @property
    def heard_of(self) -> float:
        """When it last said something, Unix time."""
        return max(self.started_at, heard_of(self.folder))

    def write(self, **result: object) -> None:
        """Keep how the night stands; whole or not at all."""
        document = {
            "date": self.date,
            "verdict": self.verdict,
            "started_at": self.started_at,
            "parameters": self.parameters,
            **result,
        }
        write_atomic(self.folder / NIGHT, json.dumps(document, indent=1, default=str))


class Workspace:
    """A workspace folder, created on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._card = folder / WORKSPACE

    def logs(self, logs: str | None = None) -> Path:
        """The logs this workspace learns from: those of its first night, else `logs`, else its own simulated ones.

        Raises:
            UsageError: other logs than the recorded ones are given; the workspace was moved, or is of another release;
                its card is damaged.
        """
        card = self.card()
        if card is not None and card.get("format") != FORMAT:
            raise UsageError(_other_format(self.folder, card.get("format")))
        if card and card.get("folder") != str(self.folder):
            raise UsageError(
                f"{self.folder} was made as {card.get('folder')}, which its stores point to; move it back there, or "
                "use a new --workspace"
            )
        if card is not None and not (isinstance(card.get("logs"), str) and card["logs"]):
            raise UsageError(
                f"{self._card} names no logs ({card.get('logs')!r} found, expected the folder this workspace learns "
                'from); restore it, or add "logs", or use a new --workspace'
            )
        given = str(Path(logs).resolve()) if logs else None
        if card and given and card["logs"] != given:
            raise UsageError(
                f"workspace {self.folder} learns from {card['logs']}, but --logs gave {given}; "
                "features of two sources must not mix: use another --workspace"
            )
        return Path(card["logs"] if card else given or str(self.simulated_logs))

    def card(self) -> dict[str, Any] | None:
        """What workspace.json says; None before the first night.

        Raises:
            UsageError: it is damaged, or the workspace is no folder.
        """
        try:
            card = json.loads(self._card.read_text(encoding="utf-8"))
            if not isinstance(card, dict):
                raise ValueError(f"a {type(card).__name__}")
        except FileNotFoundError:
            return None
        except OSError as error:
            if self.folder.exists() and not self.folder.is_dir():
                raise UsageError(
                    f"--workspace {self.folder} found to be a file, expected a folder; choose another"
                ) from None
            raise UsageError(
                f"{self._card} cannot be read ({error}), expected a file; give leave to read it, restore it, or use a "
                "new --workspace"
            ) from None
        except ValueError as error:
            raise UsageError(
                f"{self._card} is no JSON object ({error}); restore it, or use a new --workspace"
            ) from None
        return card

    def require_used(self) -> None:
        """Refuse a folder that is no workspace yet, for commands that have nothing to do in a new one.

        Raises:
            UsageError: there is no workspace.json.
        """
        if self.card() is None:
            raise UsageError(f"{self.folder} holds no workspace; expected one that a night has run in")

    def record_logs(self, logs: Path) -> None:
        """Keep which logs this workspace learns from, once they are known to hold something."""
        if not self._card.exists():
            self.write_card({"format": FORMAT, "folder": str(self.folder), "logs": str(logs)})

    def write_card(self, card: dict[str, Any]) -> None:
        """Keep workspace.json, whole or not at all."""
        write_atomic(self._card, json.dumps(card, indent=1))

    @property
    def simulated_logs(self) -> Path:
        """Where the workspace's own world writes its logs."""
        return self.folder / "logs"

    @contextmanager
    def one_at_a_time(self) -> Iterator[int]:
        """Hold the workspace while a night runs; gives the lock's descriptor, for the night's own process to hold too.

        Raises:
            UsageError: there can be no such folder.
            TryAgain: another night of this workspace is running, here or on the cluster.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--workspace {self.folder} cannot be a folder ({error}); choose another") from error
        with held(self.folder) as lock:
            self._require_quiet_cluster()
            yield lock

    def _require_quiet_cluster(self) -> None:
        """Refuse while a night of the cluster is under way: its steps do not hold the lock.

        Raises:
            TryAgain: one is, or has been heard of less than the longest time that one try of a step may take ago.
        """
        try:
            nights = self.nights()
        except UsageError:
            return  # whoever has to read the damaged card says so
        for night in nights:
            silent = (time.time() - night.heard_of) / 3600
            if night.kept_by_steps and night.verdict == RUNNING and silent < LONGEST_HOURS:
                raise TryAgain(
                    f"the night of {night.date} is under way on the cluster ({night.folder}); wait for it to end. One "
                    f"that was ended by hand is taken for gone once nothing was heard of it for {LONGEST_HOURS} hours"
                )

    def nights(self) -> list[Night]:
        """Every try of every night, oldest date first, within a date in the order they were tried.

        Raises:
            UsageError: a night's card is damaged.
        """
        found = [Night.read(card.parent) for card in self.folder.glob(f"nights/*/*/{NIGHT}")]
        return sorted(found, key=lambda night: (night.date, night.started_at))

    def last_good_date(self) -> str | None:
        """The newest date whose night ended well (promoted or kept)."""
        return max((night.date for night in self.nights() if night.verdict in ENDED_WELL), default=None)

    def newest_night(self) -> Night | None:
        """The night that was started last."""
        return max(self.nights(), key=lambda night: night.started_at, default=None)

    def new_night(self, date: str, parameters: dict[str, object]) -> Night:
        """A folder for one more try of `date`."""
        day = self.folder / "nights" / date
        tried = [int(folder.name) for folder in day.glob("*") if folder.name.isdigit()]
        folder = day / str(max(tried, default=0) + 1)
        folder.mkdir(parents=True)
        night = Night(folder, date, RUNNING, parameters | {"date": date, "run_uri": str(folder)}, time.time())
        night.write()
        return night


def _other_format(folder: Path, found: object) -> str:
    if isinstance(found, int) and 0 < found < FORMAT:
        return (
            f"{folder} has format {found}, an older release's; this one reads {FORMAT}. Run `goalrank migrate "
            f"--workspace {folder}` once (--dry-run says what it would do), or go back to the release that wrote it"
        )
    newer = isinstance(found, int) and found > FORMAT
    return (
        f"{folder} has format {found!r}, expected {FORMAT}; "
        + ("a newer release wrote it: install that one, or" if newer else "restore its workspace.json, or")
        + " use a new --workspace"
    )


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


def next_date(logs: Path, last_good: str | None, last_tried: str | None = None, skipped: Collection[str] = ()) -> str:
    """The night to run when no --date is given: the day after the last good night; if none was good yet, the date last
    tried, or else the newest day of the logs. Days that were `skipped` (console/days.py) have no night.

    Raises:
        DataRefused: there are no logs at all.
        TryAgain: that day has not arrived yet.
    """
    days = arrival_days(logs)
    if not days:
        raise DataRefused(f"no partition found under {logs / 'requests'}, expected folders dt=YYYY-MM-DD")
    if last_good is None:
        return _first_date(days, last_tried, skipped)
    wanted = day_after(last_good)
    while wanted in skipped:
        wanted = day_after(wanted)
    if wanted > days[-1]:
        raise TryAgain(f"the day {wanted} has not arrived in {logs} yet (newest: {days[-1]}); try again when it has")
    return wanted


def _first_date(days: list[str], last_tried: str | None, skipped: Collection[str]) -> str:
    wanted = last_tried or days[-1]
    if wanted not in skipped:
        return wanted
    left = [day for day in days if day not in skipped]
    if not left:
        raise DataRefused(f"every day of the logs is skipped ({days[0]} to {days[-1]}); let a day arrive")
    return next((day for day in left if day > wanted), left[-1])
