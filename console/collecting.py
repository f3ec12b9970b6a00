"""`goalrank collect`: what the service has logged arrives in the logs a night reads, each row exactly once.

A closed partition never changes, so served rows may only arrive on a day that is over and that no night has read. A
served day D is closed once it is over (the service writes to today's partition only) and arrives in the logs as day T:
D itself, or the day after the newest night if a night has read D already. It waits while T is not over, or while T has
not arrived from whoever else writes these logs. Then its requests move in, then its impressions, file by file under
names that are never used twice: a collection that was interrupted is finished by the next one.

    WORKSPACE/served/collected.json     {served day: day of the logs it arrives as}, written before the first file
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.step import write_atomic
from console.workspace import Workspace, arrival_days, day_after
from goalrank.errors import UsageError
from goalrank.schema import DAILY_TABLES

GRACE = timedelta(minutes=10)
"""After midnight, before yesterday's partition counts as closed: a file may just be moving in."""
SERVED = "served-"
"""Beginning of the names of the service's files (components/serve_model/served_log.py)."""
ASIDE = ".collecting"


def collect(workspace: Workspace, logs: Path, now: datetime | None = None) -> dict[str, Any]:
    """Bring closed served days into `logs`; the workspace must be held by the caller (one_at_a_time).

    Args:
        workspace: whose service served, and whose nights have read what they have read.
        logs: the folder its nights read.
        now: UTC, for tests.

    Returns:
        collected: {served day: day of arrival} that moved in now, rows: how many of each table, waiting: served days
        that could not yet, with the reason.

    Raises:
        UsageError: the logs are those of a simulated world, whose users never saw what was served.
    """
    if (logs / "world.json").exists():
        raise UsageError(
            f"{logs} is a simulated world; what the service served was not shown to its users. Use a workspace with "
            "--logs, or `goalrank replay`, in which simulated users do see it"
        )
    now = now or datetime.now(UTC)
    today, closed_before = now.date().isoformat(), (now - GRACE).date().isoformat()
    served = workspace.folder / "served"
    record = served / "collected.json"
    arrivals: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    newest = max((night.date for night in workspace.nights()), default=None)
    foreign = _foreign_days(logs)
    done: dict[str, Any] = {"collected": {}, "rows": dict.fromkeys(DAILY_TABLES, 0), "waiting": {}}
    for day in arrival_days(served):
        left = {table: _left(served, logs, table, day) for table in DAILY_TABLES}
        if not any(left.values()):
            continue
        arrival = arrivals.get(day, day)
        if newest is not None and arrival <= newest:
            arrival = day_after(newest)
        if day >= closed_before:
            done["waiting"][day] = "the service still writes to it"
        elif arrival >= today:
            done["waiting"][day] = f"it arrives as {arrival}, which is not over"
        elif foreign and arrival > max(foreign):
            done["waiting"][day] = f"it arrives as {arrival}, which has not arrived in {logs} yet"
        else:
            arrivals[day] = arrival
            write_atomic(record, json.dumps(arrivals, indent=1))
            for table in DAILY_TABLES:
                for file in left[table]:
                    done["rows"][table] += _move_in(file, logs, table, arrival)
            done["collected"][day] = arrival
    return done


def _foreign_days(logs: Path) -> list[str]:
    """Days on which somebody other than the service wrote requests."""
    files = (logs / "requests").glob("dt=*/*.parquet")
    return sorted({file.parent.name.removeprefix("dt=") for file in files if not file.name.startswith(SERVED)})


def _left(served: Path, logs: Path, table: str, day: str) -> list[Path]:
    """Files of a served day that are not in the logs yet."""
    files = sorted((served / table / f"dt={day}").glob(f"{SERVED}*.parquet"))
    return [file for file in files if not any((logs / table).glob(f"dt=*/{file.name}"))]


def _move_in(file: Path, logs: Path, table: str, arrival: str) -> int:
    """Copy a file into the logs, whole or not at all; its rows."""
    import pyarrow.parquet as pq

    aside = logs / ASIDE / f"{table}-{file.name}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, aside)
    with open(aside, "rb") as copied:
        os.fsync(copied.fileno())
    target = logs / table / f"dt={arrival}" / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(aside, target)
    return int(pq.read_metadata(target).num_rows)
