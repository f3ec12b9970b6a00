"""The replay's life: night, day, night, day.

Night n learns from the days before it, through the very pipeline of `goalrank nightly`, every gate included; day n is
served by whatever champion it left; what was shown and how users took it arrives as the next night's logs. The first
FIRST_NIGHT_DAYS days are the world's own logging policy's.

Where a night was refused because its day arrived damaged, the day is delivered again in the course of the next one, and
the next night runs that date first, then its own. A night refused for its model is left behind: the champion serves on.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.publish_report.result import FAILED, summarise
from components.publish_report.result import read_outcomes as outcomes_of
from console import night
from console.replay.faults import Fault, bad_release, damage, deliver_again, schedule
from console.replay.ledger import Ledger, Plan
from console.replay.world import FIRST_NIGHT_DAYS
from console.settings import Settings
from console.workspace import RUNNING, Workspace
from goalrank.errors import EXIT_DATA_REFUSED, EXIT_TRY_AGAIN, GoalRankError, ModelRefused, TryAgain, UsageError
from goalrank.simulator import Requests, WorldConfig, write_day

if TYPE_CHECKING:
    from components.serve_model.champion import Champion

RunNight = Callable[[Settings, str | None, str | None, bool, Console], dict[str, Any]]
"""console.night.start"""


def live(
    settings: Settings, world: WorldConfig, nights: int, console: Console, run_night: RunNight = night.start
) -> Ledger:
    """Live `nights` nights, each followed by the day its champion serves, or what is left of them.

    Args:
        settings: of the workspace; its preset and seed are the nights'.
        world: which to live in.
        console: told of each night in a line.
        run_night: console.night.start, but for tests of the bookkeeping.

    Raises:
        GoalRankError: a night failed (neither promoted, kept nor refused) or was interrupted: the same command goes on
            from there. UsageError: the workspace is another replay's, or no replay's.
    """
    workspace = Workspace(settings.workspace)
    plan = Plan(nights, settings.preset, settings.seed, world.to_json())
    ledger = Ledger.open(settings.workspace, plan)
    workspace.logs(str(settings.workspace / "replay" / "logs"))  # refuses the workspace of other logs
    with _alone(settings.workspace):
        life = Life(settings, world, ledger, console, run_night)
        ledger.write()
        life.begin()
        for number in range(len(ledger.days) + 1, nights + 1):
            life.night(number)
            life.day(number)
    return ledger


class Life:
    """One replay under way."""

    def __init__(
        self, settings: Settings, world: WorldConfig, ledger: Ledger, console: Console, run_night: RunNight
    ) -> None:
        self.settings, self.world, self.ledger, self.console = settings, world, ledger, console
        self.run_night = run_night
        self.folder = settings.workspace / "replay"
        self.logs, self.days, self.aside = self.folder / "logs", self.folder / "days", self.folder / "aside"
        self.faults = schedule(ledger.plan.nights)
        self._happened = lru_cache(maxsize=2)(self._remembered)

    def date(self, number: int) -> str:
        """The day whose logs night `number` learns from; served after night `number - 1`."""
        return self.world.date_of(FIRST_NIGHT_DAYS + number - 2).isoformat()

    def begin(self) -> None:
        """The days before the first night."""
        for day in range(FIRST_NIGHT_DAYS):
            write_day(self.world, day, str(self.logs))

    def night(self, number: int) -> None:
        """Run what is due: a day delivered again, then the newest."""
        fault, date = self.faults.get(number), self.date(number)
        for run in [run for run in self.ledger.runs if run["night"] == number - 1]:
            if run["exit_code"] == EXIT_DATA_REFUSED and run["fault"]:
                deliver_again(self.logs, run["date"], self.aside)
                self._run(number, run["date"], None)
        if fault and not self.ledger.ran(number, date):
            damage(fault, self.logs, date, self.aside)
        self._run(number, date, fault)

    def _run(self, number: int, date: str, fault: Fault | None) -> None:
        """One run of the pipeline, or the rest of one that was interrupted; nothing if the ledger has it."""
        if self.ledger.ran(number, date):
            return
        workspace = Workspace(self.settings.workspace)
        known = {run["run"] for run in self.ledger.runs}
        newest = workspace.newest_night()
        with bad_release(self.folder / "bad_release") if fault is Fault.broken else nullcontext(), self._said(number):
            quiet = Console(quiet=True)
            if newest is None or f"{newest.date}/{newest.folder.name}" in known:
                result = self.run_night(self.settings, str(self.logs), date, False, quiet)
            elif newest.date != date:
                raise UsageError(
                    f"the night {newest.date}/{newest.folder.name} of {self.settings.workspace} was not started by the "
                    "replay; start over in another --workspace, and leave that one to the replay"
                )
            elif newest.verdict in (RUNNING, FAILED):
                result = night.resume(self.settings, quiet)
            else:  # it ended, and we were ended before we wrote so
                result = {"run_id": f"{newest.date}/{newest.folder.name}"}
        folder = self.settings.workspace / "nights" / result["run_id"]
        ended = json.loads((folder / "night.json").read_text(encoding="utf-8"))
        if ended["verdict"] in (RUNNING, FAILED):
            raise _not_ended(number, result, folder)
        self.ledger.runs.append(
            {
                "night": number,
                "date": date,
                "run": result["run_id"],
                "fault": fault.value if fault else None,
                "again": date != self.date(number),
                **{name: ended[name] for name in ("verdict", "exit_code", "reason", "model_version", "seconds")},
                **_figures(folder),
            }
        )
        self.ledger.write()
        said = f" [{fault.value}]" if fault else " [delivered again]" if date != self.date(number) else ""
        self.console.print(
            f"night {number:>2} of {self.ledger.plan.nights}  {date}{said}: {ended['verdict']}, exit "
            f"{ended['exit_code']}, {ended['seconds']['wall']:.0f} s",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def day(self, number: int) -> None:
        """Serve the day after night `number` and log it."""
        from console.replay import traffic
        from goalrank.simulator import day_requests

        day = FIRST_NIGHT_DAYS + number - 1
        date = self.world.date_of(day).isoformat()
        champion = _champion(self.settings.tracking_uri)
        if champion is not None and self.ledger.frozen is None:
            self._freeze(champion)
        file = self.days / f"{date}.parquet"
        if not file.exists():
            store = _store(self.settings.feast_uri) if champion is not None else None
            served = traffic.serve(day_requests(self.world, day), champion, self._frozen(), store)
            traffic.keep(served, file)
        self._happened.cache_clear()
        write_day(self.world, day, str(self.logs), happened=self._happened)
        version = None if champion is None else champion.version.version
        self.ledger.days.append({"night": number, "date": date, "champion": version})
        self.ledger.write()

    def _remembered(self, world: WorldConfig, day: int) -> Requests:
        from console.replay.traffic import remembered

        return remembered(world, day, self.days)

    def _freeze(self, champion: Champion) -> None:
        """Keep the first champion for good, whatever the registry's retention does."""
        from components.serve_model.champion import champion_model

        target = self.folder / "frozen"
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            version, directory = champion_model(self.settings.tracking_uri, aside)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(directory, target)
        self.ledger.frozen = {"version": version.version, "model": str(target)}
        self.ledger.write()

    def _frozen(self) -> tuple[str, Any] | None:
        from goalrank.checkpoint import load_model

        frozen = self.ledger.frozen
        return None if frozen is None else (frozen["version"], load_model(frozen["model"]))

    @contextmanager
    def _said(self, number: int) -> Iterator[None]:
        """On a terminal, that something is under way."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(f"night {number} of {self.ledger.plan.nights}"):
            yield


def _champion(tracking_uri: str) -> Champion | None:
    """Who serves now; None before the first promotion."""
    from components.serve_model.champion import load_champion

    try:
        return load_champion(tracking_uri)
    except ModelRefused as error:
        if "has the alias" in str(error):
            return None
        raise


def _store(feast_uri: str) -> Any:
    from components.feature_store import open_store

    return open_store(feast_uri)


def _figures(folder: Path) -> dict[str, Any]:
    """What the night's own documents say of challenger, champion and drift."""
    outcomes = outcomes_of(folder)
    checks = outcomes.get("check_features", {}).get("figures", {})
    drift = checks.get("drift") or {}
    most = max(drift, key=lambda column: drift[column], default=None)
    return {
        "metrics": summarise(folder)["metrics"],
        "largest_drift": None if most is None else {"column": most, "psi": drift[most]},
        "drift_warnings": [text for text in checks.get("warnings", []) if text.startswith("drift")],
    }


def _not_ended(number: int, result: dict[str, Any], folder: Path) -> GoalRankError:
    again = "type the same command again: the replay goes on from there"
    if result.get("exit_code") == EXIT_TRY_AGAIN:
        return TryAgain(f"night {number} did not end: {result.get('reason')}; {again}")
    return GoalRankError(
        f"night {number} failed: {result.get('reason')}; look at {folder / 'pipeline.log'}, then {again}"
    )


@contextmanager
def _alone(workspace: Path) -> Iterator[None]:
    """One replay at a time in a workspace.

    Raises:
        TryAgain: another one is under way.
    """
    folder = workspace / "replay"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryAgain(f"another replay is under way in {workspace}; wait for it to end") from error
        yield
