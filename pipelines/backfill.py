"""Nights by their date: one now, or many in order, each finished before the next begins.

What a date has come to is read from the cluster's own list of runs, scheduled ones included, so nothing is kept here
and a backfill that was interrupted goes on from what it finds: a date that ended well is passed over, a night that
still runs is waited for. Snapshots are built on one another, so a night that fails ends the backfill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any

from components.the_night import newest_closed_day
from goalrank import naming
from goalrank.errors import GoalRankError, TryAgain, UsageError
from pipelines.kubeflow import Kubeflow
from pipelines.recurring import NAME, upload

WELL = "SUCCEEDED"
OVER = (WELL, "FAILED", "CANCELED", "SKIPPED")

POLL_SECONDS = 30.0
AWAY_SECONDS = 900.0
"""How long Kubeflow Pipelines may not answer before a backfill gives up waiting; the night goes on without it."""

LONGEST_DAYS = 366


class NightFailed(GoalRankError):
    """A night on the cluster ended without success; its report says why (goalrank/errors.py, exit 1)."""


@dataclass(frozen=True)
class NightRun:
    """One run of the night on the cluster; date is None where its parameters name no day."""

    id: str
    date: str | None
    state: str

    @property
    def active(self) -> bool:
        return self.state not in OVER


@dataclass(frozen=True)
class Order:
    """What is submitted: the compiled night, the name of its version, and its parameters but for the date.

    runs_uri is the folder of all run folders; a date's own is named by `mark`, so that the same night of the same date,
    submitted again, goes on in its folder and another one does not.
    """

    package: Path
    version: str
    parameters: dict[str, Any]
    runs_uri: str
    mark: str
    service_account: str = ""

    def of(self, day: str) -> dict[str, Any]:
        return self.parameters | {"date": day, "run_uri": f"{self.runs_uri}/{day}/{self.mark}"}


def require_closed(what: str, day: str) -> str:
    """An arrival day that is over; another's partition still grows, or is not there yet.

    Raises:
        UsageError: it is no day, or today or later in UTC.
    """
    newest = newest_closed_day()
    if naming.require_day(what, day) > newest:
        raise UsageError(
            f"{what} {day} found, expected a day that is over: {newest} is the newest, arrival days are those of UTC; "
            "give it or an earlier one, or wait until the day is over"
        )
    return day


def days_between(first: str, last: str) -> list[str]:
    """Every day from first to last, both included.

    Raises:
        UsageError: one is no day, the last comes before the first or is not over, or there are more than LONGEST_DAYS.
    """
    begin = date.fromisoformat(naming.require_day("--from", first))
    end = date.fromisoformat(naming.require_day("--to", last))
    count = (end - begin).days + 1
    if not 1 <= count <= LONGEST_DAYS:
        raise UsageError(f"--from {first} --to {last} found, expected 1 to {LONGEST_DAYS} days in order")
    require_closed("--to", last)
    return [(begin + timedelta(ahead)).isoformat() for ahead in range(count)]


def runs(kubeflow: Kubeflow, experiment: str) -> Iterator[NightRun]:
    """The nights the cluster knows, newest first."""
    listing = kubeflow.client.list_runs
    for run in kubeflow.pages(listing, "runs", experiment_id=experiment, sort_by="created_at desc"):
        yield _night(run)


def submit(kubeflow: Kubeflow, order: Order, day: str) -> dict[str, Any]:
    """Start the night of one date now: {"date", "run", "run_uri"}.

    Raises:
        UsageError: the day is not over, or the server refuses it.
        TryAgain: a night is running, or the server is away.
    """
    require_closed("--date", day)
    experiment = kubeflow.experiment(NAME)
    for run in runs(kubeflow, experiment):
        if run.active:
            raise TryAgain(
                f"the night of {run.date or 'an unknown date'} is {run.state.lower()} (run {run.id}); one runs at a "
                "time: wait for it, or end it in Kubeflow Pipelines"
            )
    return _start(kubeflow, order, day, experiment)


def backfill(
    kubeflow: Kubeflow,
    order: Order,
    days: list[str],
    said: Callable[[str], None],
    poll_seconds: float = POLL_SECONDS,
) -> dict[str, Any]:
    """Run the nights of `days` one after the other: {"done": [...], "skipped": [...]}.

    Raises:
        NightFailed: one did not end well; those after it were not started.
        UsageError, TryAgain: as submit.
    """
    experiment = kubeflow.experiment(NAME)
    done: list[str] = []
    skipped: list[str] = []
    for number, day in enumerate(days, start=1):
        head = f"{number}/{len(days)} {day}"
        known = list(runs(kubeflow, experiment))
        if any(run.date == day and run.state == WELL for run in known):
            said(f"{head}: ended well before")
            skipped.append(day)
            continue
        ended = None
        for run in [run for run in known if run.active]:
            said(f"{head}: waiting for the night of {run.date or 'an unknown date'}, which runs (run {run.id})")
            state = _wait(kubeflow, run.id, said, poll_seconds)
            if run.date == day:
                ended = (run.id, state)
        if ended is None:
            started = _start(kubeflow, order, day, experiment)["run"]
            said(f"{head}: started (run {started})")
            ended = (started, _wait(kubeflow, started, said, poll_seconds))
        if ended[1] != WELL:
            raise NightFailed(
                f"the night of {day} ended {ended[1].lower()} (run {ended[0]}); its report under "
                f"{order.runs_uri}/{day} says why. Mend it and type the same command again: "
                f"{len(done) + len(skipped)} of {len(days)} days are done and will be passed over"
            )
        said(f"{head}: ended well")
        done.append(day)
    return {"done": done, "skipped": skipped}


def _start(kubeflow: Kubeflow, order: Order, day: str, experiment: str) -> dict[str, Any]:
    pipeline, version = upload(kubeflow, order.package, order.version)
    parameters = order.of(day)
    made = kubeflow.once(
        kubeflow.client.run_pipeline,
        experiment_id=experiment,
        job_name=f"{NAME} {day}",
        params=parameters,
        pipeline_id=pipeline,
        version_id=version,
        service_account=order.service_account or None,
    )
    return {"date": day, "run": str(made.run_id), "run_uri": parameters["run_uri"]}


def _wait(kubeflow: Kubeflow, run: str, said: Callable[[str], None], poll_seconds: float) -> str:
    """Wait until a night is over; its state."""
    heard, state = time.monotonic(), ""
    while True:
        try:
            now = str(kubeflow.call(kubeflow.client.get_run, run).state)
            heard = time.monotonic()
            if now in OVER:
                return now
            if now != state:
                said(f"run {run}: {now.lower()}")
                state = now
        except TryAgain as error:
            if time.monotonic() - heard > AWAY_SECONDS:
                raise
            said(f"run {run}: {error}")
        time.sleep(poll_seconds)


def _night(run: Any) -> NightRun:
    """The date is in the parameters; a scheduled night's (`auto`) is the day before the one on which it was made, in
    UTC, as its first step has it too unless the pod waited beyond midnight."""
    given = (run.runtime_config.parameters or {}).get("date") if run.runtime_config else None
    try:
        if given == naming.AUTO and run.created_at is not None:
            day = (run.created_at.astimezone(UTC) - timedelta(days=1)).date().isoformat()
        else:
            day = naming.arrival_day("date", given)
    except UsageError:
        day = None
    return NightRun(str(run.run_id), day, str(run.state))
