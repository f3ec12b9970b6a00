"""`goalrank collect`: what the service has logged arrives in the logs a night reads, each row exactly once.

A closed partition never changes, so served rows may only arrive on a day that is over and that no night has read. A
served day D is closed once it is over (the service writes to today's partition only) and arrives in the logs as day T:
D itself, or the day after the newest night if a night has read D already. It waits while T is not over, or while T has
not arrived from whoever else writes these logs. Then its requests move in, then its impressions, file by file under
names that are never used twice: a collection that was interrupted is finished by the next one.

A client that tries again may reach another process of the service with the same request id, and each process knows
only its own. They meet here: the first to arrive stays, later ones and their impressions are left out, since a log with
an id twice would be refused by the night.

    WORKSPACE/served/collected.json     {served day: day of the logs it arrives as}, written before the first file
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from components.serve_model.bodies import ISSUED_PREFIX
from components.step import write_atomic
from console.workspace import Workspace, arrival_days, day_after
from goalrank.errors import UsageError
from goalrank.schema import DAILY_TABLES, LATENESS_DAYS

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
        collected: {served day: day of arrival} that moved in now, rows: how many of each table, left_out: how many of
        each table were not taken, their request's id being in the logs already, waiting: served days that could not
        move in yet, with the reason.

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
    foreign, last_good = _foreign_days(logs), workspace.last_good_date()
    nothing = dict.fromkeys(DAILY_TABLES, 0)
    done: dict[str, Any] = {"collected": {}, "rows": dict(nothing), "left_out": dict(nothing), "waiting": {}}
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
            repeated = _repeated_ids(left["requests"], logs, _compared_since(arrival, last_good))
            for table in DAILY_TABLES:
                for file in left[table]:
                    without = repeated[file.name] if table == "requests" else _left_out_ids(served, logs, file.name)
                    rows, dropped = _move_in(file, logs, table, arrival, without)
                    done["rows"][table] += rows
                    done["left_out"][table] += dropped
            done["collected"][day] = arrival
    return done


def said_of_repeats(done: dict[str, Any]) -> str | None:
    """A line on what was left out; None if nothing was."""
    requests, impressions = (done["left_out"][table] for table in DAILY_TABLES)
    if not requests and not impressions:
        return None
    return (
        f"Left out: {requests} requests whose id another request had before, and {impressions} of their impressions; "
        "clients that try again should do so without a request_id, or with a new one"
    )


def _foreign_days(logs: Path) -> list[str]:
    """Days on which somebody other than the service wrote requests."""
    files = (logs / "requests").glob("dt=*/*.parquet")
    return sorted({file.parent.name.removeprefix("dt=") for file in files if not file.name.startswith(SERVED)})


def _left(served: Path, logs: Path, table: str, day: str) -> list[Path]:
    """Files of a served day that are not in the logs yet."""
    files = sorted((served / table / f"dt={day}").glob(f"{SERVED}*.parquet"))
    return [file for file in files if not any((logs / table).glob(f"dt=*/{file.name}"))]


def _compared_since(arrival: str, last_good: str | None) -> str:
    """The first day on which the gate that reads `arrival` would still find an id's other use.

    It reads the days after the last good night, and LATENESS_DAYS before them; all there are, if no night was good.
    """
    if last_good is None:
        return ""
    first = min(arrival, day_after(last_good))
    return (date.fromisoformat(first) - timedelta(days=LATENESS_DAYS)).isoformat()


def _repeated_ids(files: list[Path], logs: Path, since: str) -> dict[str, set[str]]:
    """Of each file of requests the ids that the logs have already, or a file before it."""
    chosen = {file.name: _client_ids(file) for file in files}
    there = _ids_among(logs, since, set().union(*chosen.values()))
    repeated = {}
    for name, ids in chosen.items():
        repeated[name] = ids & there
        there |= ids
    return repeated


def _left_out_ids(served: Path, logs: Path, name: str) -> set[str]:
    """Requests of a served file that were left out when it moved in, now or before an interruption."""
    asked, arrived = (
        {one for file in (folder / "requests").glob(f"dt=*/{name}") for one in _client_ids(file)}
        for folder in (served, logs)
    )
    return asked - arrived


def _client_ids(file: Path) -> set[str]:
    """The ids in a file of requests that clients chose. Those made by the service are unique; nor does a file, written
    by one process, hold one twice."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    ids = pq.ParquetFile(file).read(columns=["request_id"])["request_id"]
    return set(ids.filter(pc.invert(pc.starts_with(ids, ISSUED_PREFIX))).to_pylist())


def _ids_among(logs: Path, since: str, wanted: set[str]) -> set[str]:
    """Those of the wanted ids that requests of the logs have which arrived on `since` or later."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: set[str] = set()
    if not wanted:
        return found
    values = pa.array(sorted(wanted), pa.string())
    for file in sorted((logs / "requests").glob("dt=*/*.parquet")):
        if file.parent.name >= f"dt={since}":
            try:
                ids = pq.ParquetFile(file).read(columns=["request_id"])["request_id"].cast(pa.string())
            except (pa.ArrowException, OSError, KeyError, ValueError):
                continue  # another writer's, and the gate's to name
            found.update(ids.filter(pc.is_in(ids, value_set=values)).to_pylist())
    return found


def _move_in(file: Path, logs: Path, table: str, arrival: str, without: set[str]) -> tuple[int, int]:
    """Copy a file into the logs, whole or not at all, without requests of these ids; rows that came, rows left out."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    aside = logs / ASIDE / f"{table}-{file.name}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    dropped = 0
    if without:
        rows = pq.ParquetFile(file).read()
        kept = rows.filter(pc.invert(pc.is_in(rows["request_id"], value_set=pa.array(sorted(without), pa.string()))))
        dropped = rows.num_rows - kept.num_rows
        pq.write_table(kept, aside)
    else:
        shutil.copyfile(file, aside)
    with open(aside, "rb") as copied:
        os.fsync(copied.fileno())
    target = logs / table / f"dt={arrival}" / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(aside, target)
    return int(pq.read_metadata(target).num_rows), dropped
