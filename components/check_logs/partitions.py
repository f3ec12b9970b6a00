"""Which log partitions tonight's extraction reads, and their files against the contract, before Spark starts.

Looks at names and Parquet footers only: a missing day, an empty one, a file that is no Parquet, a column that is
absent, renamed, re-typed or one too many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import timedelta
from pathlib import Path
from statistics import median

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank import schema
from goalrank.errors import DataRefused

ABSENT = "absent"
"""Stands for a type where a column is not there."""

TRAILING_DAYS = 7
"""A day's volume is compared with the median of this many days before it: one of each weekday."""

FEWEST_TRAILING_DAYS = 3
"""With fewer known days than this there is no usual volume."""

_NAME = re.compile(r"dt=(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class Partition:
    """One table's files of one arrival day (none if the folder is not there)."""

    table: str
    dt: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Reading:
    """What tonight's extraction reads, and the days before it that late rows may belong to."""

    days: tuple[str, ...]
    chain_first: str
    """First arrival day of the logs that tonight's rows rest on, `days` or earlier nights' own."""
    partitions: tuple[Partition, ...]
    """Of `days`, all tables; items and users only where a folder exists (on a first night at least one entry each)."""
    recent: tuple[Partition, ...]
    """Requests and impressions of the LATENESS_DAYS before `days`, where still kept."""

    @property
    def excused_before(self) -> str:
        """Impressions that arrive before this day may belong to a request from before the logs begin."""
        return plus_days(self.chain_first, schema.LATENESS_DAYS)

    def files(self, table: str, recent: bool = False) -> list[Path]:
        """Paths of one table's files, oldest day first."""
        among = self.recent + self.partitions if recent else self.partitions
        return [file for part in among if part.table == table for file in part.files]


def plus_days(dt: str, days: int) -> str:
    """The day `days` after `dt` (both YYYY-MM-DD)."""
    return (calendar_date.fromisoformat(dt) + timedelta(days=days)).isoformat()


def tonights(logs: Path, date: str, after: str | None, chain_first: str | None = None) -> Reading:
    """Partitions with arrival days after `after` (None: all there are) up to `date`, gaps between them included.

    `chain_first` is the first day that earlier nights read; None where tonight's first day is.

    Raises:
        DataRefused: a partition folder is not named dt=YYYY-MM-DD.
    """
    kept = {table: _days(logs / table) for table in schema.LOG_TABLES}
    known = sorted(dt for table in schema.DAILY_TABLES for dt in kept[table] if dt <= date)
    first = plus_days(after, 1) if after else (known[0] if known else date)
    count = (calendar_date.fromisoformat(date) - calendar_date.fromisoformat(first)).days + 1
    days = tuple(plus_days(first, number) for number in range(count))
    wanted: list[Partition] = []
    for table in schema.LOG_TABLES:
        daily = table in schema.DAILY_TABLES
        chosen = [dt for dt in days if daily or dt in kept[table]]
        if not daily and after is None:
            chosen = [dt for dt in kept[table] if dt <= date] or [days[0]]
        wanted += [Partition(table, dt, _files(logs, table, dt)) for dt in chosen]
    before = [plus_days(first, -back) for back in range(schema.LATENESS_DAYS, 0, -1)]
    recent = [Partition(table, dt, _files(logs, table, dt)) for table in schema.DAILY_TABLES for dt in before]
    return Reading(days, chain_first or days[0], tuple(wanted), tuple(part for part in recent if part.files))


def survey(reading: Reading, earlier_rows: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """One row a partition: table, dt, files, unreadable (file names), rows, usual_rows and rows_against_usual.

    `earlier_rows` is table -> dt -> rows of days that earlier nights read. rows_against_usual is this day's rows
    divided by the median of the TRAILING_DAYS before it, null for tables without a daily volume or too few days.
    """
    rows = []
    volumes = {table: dict(earlier_rows.get(table, {})) for table in schema.DAILY_TABLES}
    for part in reading.partitions:
        counts, unreadable = [], []
        for file in part.files:
            try:
                counts.append(pq.read_metadata(file).num_rows)
            except (pa.ArrowException, OSError) as error:
                unreadable.append(f"{file.name} ({error})")
        usual = None
        if part.table in volumes:
            seen = volumes[part.table]
            trailing = [seen[dt] for dt in sorted(seen) if plus_days(part.dt, -TRAILING_DAYS) <= dt < part.dt]
            usual = float(median(trailing)) if len(trailing) >= FEWEST_TRAILING_DAYS else None
            seen[part.dt] = sum(counts)
        rows.append(
            {
                "table": part.table,
                "dt": part.dt,
                "files": len(part.files),
                "unreadable": "; ".join(unreadable) or None,
                "rows": sum(counts),
                "usual_rows": usual,
                "rows_against_usual": sum(counts) / usual if usual else None,
            }
        )
    frame = pd.DataFrame(rows)
    return frame.astype({"usual_rows": float, "rows_against_usual": float, "unreadable": object})


def columns(reading: Reading) -> pd.DataFrame:
    """One row for each distinct (table, column, expected, found): with the first dt and file that has it.

    Types are named as pyarrow names them; `found` or `expected` is ABSENT for a missing or an extra column.
    """
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for part in reading.recent + reading.partitions:
        expected = {field.name: str(_plain(field.type)) for field in schema.LOG_TABLES[part.table]}
        for file in part.files:
            try:
                stored = pq.read_schema(file)
            except (pa.ArrowException, OSError):
                continue  # named by `survey`
            found = {field.name: str(_plain(field.type)) for field in stored}
            extra = sorted(set(found) - set(expected))
            for name in (*expected, *extra):
                wanted, actual = expected.get(name, ABSENT), found.get(name, ABSENT)
                renamed = [other for other in extra if actual == ABSENT and found[other] == wanted]
                hint = f" (renamed to {' or '.join(renamed)}?)" if renamed else ""
                rows.setdefault(
                    (part.table, name, wanted, actual),
                    {
                        "table": part.table,
                        "dt": part.dt,
                        "file": file.name,
                        "column": name,
                        "expected": wanted,
                        "found": actual + hint,
                    },
                )
    return pd.DataFrame(list(rows.values()), columns=["table", "dt", "file", "column", "expected", "found"])


def _days(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    days = []
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith((".", "_")):
            continue
        named = _NAME.fullmatch(entry.name)
        try:
            days.append(calendar_date.fromisoformat(named[1]).isoformat() if named else "")
        except ValueError:
            days.append("")
        if not days[-1]:
            raise DataRefused(
                f"{entry} found among the partitions of {folder.name}, expected folders named dt=YYYY-MM-DD; "
                "rename it to its arrival day or move it out of the logs"
            )
    return days


def _files(logs: Path, table: str, dt: str) -> tuple[Path, ...]:
    folder = logs / table / f"dt={dt}"
    return tuple(file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith((".", "_")))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without what writers vary and Parquet does not store: offset width, dictionaries, list field names."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, tz="UTC")
    return kind
