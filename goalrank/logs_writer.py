"""Log partitions of the data contract, written whole or not at all.

LOGS/<table>/dt=YYYY-MM-DD/part-00000.parquet     one file a table and arrival day (goalrank.schema.LOG_TABLES)
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from goalrank.errors import UsageError
from goalrank.schema import LOG_TABLES


def partition(logs: Path, table: str, day: date) -> Path:
    """The folder of one table's rows that arrived on one day."""
    return logs / table / f"dt={day.isoformat()}"


def write_partition(logs: Path, table: str, day: date, columns: dict[str, object]) -> int:
    """Write one day's rows of one table and return how many there are.

    Args:
        logs: the logs' root.
        table: a key of LOG_TABLES.
        day: the arrival day.
        columns: one array (numpy, pyarrow or list) for every column of the table's schema, without dt.
    """
    schema = LOG_TABLES[table]
    rows = pa.table([pa.array(columns[field.name], type=field.type) for field in schema], schema=schema)
    folder = partition(logs, table, day)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / "part-00000.parquet", compression="zstd")
    return rows.num_rows


def refuse_occupied(out: str | Path) -> None:
    """Raises UsageError where ``out`` already holds something: an import never mixes with older logs."""
    target = Path(out)
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        found = "a folder that is not empty" if target.is_dir() else "a file"
        raise UsageError(
            f"{target} is {found}, expected a folder that is empty or does not exist yet; name another one"
        )


@contextmanager
def written_aside(out: str | Path) -> Iterator[Path]:
    """A folder beside ``out`` to write in; it becomes ``out`` on leaving, or goes if anything was raised.

    Raises:
        UsageError: ``out`` exists and is not an empty folder.
    """
    refuse_occupied(out)
    target = Path(os.path.abspath(out))
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{target.name}.partial-{uuid.uuid4().hex[:8]}")
    aside.mkdir()
    try:
        yield aside
        os.replace(aside, target)  # an empty folder at the target is replaced; anything else stops it
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
