"""Which log partitions tonight's extraction reads, and their files against the contract, before Spark starts.

Looks at names and Parquet footers only: a missing day, an empty one, a file that is no Parquet, a column that is
absent, renamed, re-typed or one too many.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.extract_features.log_partitions import incomplete_days
from components.trailing_volume import against_usual
from goalrank import schema
from goalrank.errors import DataRefused

ABSENT = "absent"
"""Stands for a type where a column is not there."""

PATTERN_CHARACTERS = frozenset("*?[]{}\\")
"""What Spark reads as a pattern in a path: a file with one of these in its name would be passed over or stop it."""

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
    skipped: tuple[str, ...] = ()
    """Days that somebody decided to leave out (day_decisions.py); none of them is among the others."""

    @property
    def incomplete(self) -> list[str]:
        """Days on which impressions may arrive whose request lies before the logs or on a skipped day."""
        return incomplete_days(self.days, self.chain_first, self.skipped)

    @property
    def gaps(self) -> list[str]:
        """Skipped days on which a part of a list that arrives tonight may have arrived."""
        return [day for day in self.skipped if day >= plus_days(self.days[0], -schema.LATENESS_DAYS)]

    def files(self, table: str, recent: bool = False) -> list[Path]:
        """Paths of one table's files, oldest day first."""
        among = self.recent + self.partitions if recent else self.partitions
        return [file for part in among if part.table == table for file in part.files]


def plus_days(dt: str, days: int) -> str:
    """The day `days` after `dt` (both YYYY-MM-DD)."""
    return (calendar_date.fromisoformat(dt) + timedelta(days=days)).isoformat()


def tonights(
    logs: Path, date: str, after: str | None, chain_first: str | None = None, skipped: Collection[str] = ()
) -> Reading:
    """Partitions with arrival days after `after` (None: all there are) up to `date`, gaps between them included.

    `chain_first` is the first day that earlier nights read; None where tonight's first day is. `skipped` days are not
    read.

    Raises:
        DataRefused: a partition folder is not named dt=YYYY-MM-DD.
    """
    kept = {table: _days(logs / table) for table in schema.LOG_TABLES}
    known = sorted(dt for table in schema.DAILY_TABLES for dt in kept[table] if dt <= date and dt not in skipped)
    first = plus_days(after, 1) if after else (known[0] if known else date)
    count = (calendar_date.fromisoformat(date) - calendar_date.fromisoformat(first)).days + 1
    days = tuple(day for day in (plus_days(first, number) for number in range(count)) if day not in skipped)
    wanted: list[Partition] = []
    for table in schema.LOG_TABLES:
        daily = table in schema.DAILY_TABLES
        chosen = [dt for dt in days if daily or dt in kept[table]]
        if not daily and after is None:
            chosen = [dt for dt in kept[table] if dt <= date and dt not in skipped] or [days[0]]
        wanted += [Partition(table, dt, _files(logs, table, dt)) for dt in chosen]
    before = [plus_days(days[0], -back) for back in range(schema.LATENESS_DAYS, 0, -1)]
    recent = [
        Partition(table, dt, _files(logs, table, dt))
        for table in schema.DAILY_TABLES
        for dt in before
        if dt not in skipped
    ]
    return Reading(
        days,
        chain_first or days[0],
        tuple(wanted),
        tuple(part for part in recent if part.files),
        tuple(sorted(day for day in skipped if day <= date)),
    )


def survey(reading: Reading, earlier_rows: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """One row a partition: table, dt, files, unreadable (file names), rows, usual_rows, times_usual.

    `earlier_rows` is table -> dt -> rows of days that earlier nights read. times_usual is how many times more or fewer
    rows than usual the day has (at least 1), null for tables without a daily volume or with too few days before.
    """
    rows = []
    volumes = {table: dict(earlier_rows.get(table, {})) for table in schema.DAILY_TABLES}
    for part in reading.partitions:
        counts, unreadable = [], []
        for file in part.files:
            try:
                counts.append(_footer(file).rows)
            except _UNREADABLE as error:
                unreadable.append(f"{file.name} ({error})")
        row = {
            "table": part.table,
            "dt": part.dt,
            "files": len(part.files),
            "unreadable": "; ".join(unreadable) or None,
            "rows": sum(counts),
            "usual_rows": None,
            "times_usual": None,
        }
        if part.table in volumes:
            seen = volumes[part.table]
            seen[part.dt] = sum(counts)
            volume = against_usual(seen, part.dt)
            row |= {"usual_rows": volume.usual, "times_usual": volume.either_way}
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.astype({"usual_rows": float, "times_usual": float, "unreadable": object})


def columns(reading: Reading) -> pd.DataFrame:
    """One row for each distinct (table, column, expected, found): with the first dt and file that has it.

    Types are named as pyarrow names them; `found` or `expected` is ABSENT for a missing or an extra column.
    """
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for part in reading.recent + reading.partitions:
        expected = {field.name: str(_plain(field.type)) for field in schema.LOG_TABLES[part.table]}
        for file in part.files:
            try:
                found = _footer(file).columns
            except _UNREADABLE:
                continue  # named by `survey`
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


_UNREADABLE = (pa.ArrowException, OSError, ValueError)
"""What reading a damaged footer raises: Arrow's own errors, the system's, and UnicodeDecodeError for names."""


@dataclass(frozen=True)
class _Footer:
    rows: int
    columns: dict[str, str]


def _footer(file: Path) -> _Footer:
    """What a file's footer says: its rows, and the type of each column by name.

    Raises:
        ArrowException, OSError, ValueError: the file is no whole Parquet, or Spark could not be told of it.
    """
    if strange := sorted(PATTERN_CHARACTERS & set(file.name)):
        raise ValueError(f"its name holds {' '.join(strange)}, which Spark reads as a pattern")
    metadata = pq.read_metadata(file)
    rows = sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    if rows != metadata.num_rows or rows < 0:
        raise ValueError(f"its footer says {metadata.num_rows} rows, its row groups {rows}")
    return _Footer(rows, _types(metadata.schema.to_arrow_schema()))


def _types(stored: pa.Schema) -> dict[str, str]:
    """Type of each column; a name that stands twice has both."""
    found: dict[str, str] = {}
    for field in stored:
        kind = str(_plain(field.type))
        found[field.name] = f"{found[field.name]} and {kind}" if field.name in found else kind
    return found


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
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, tz="UTC")
    return kind
