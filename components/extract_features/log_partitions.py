"""The logs' arrival-day partitions: which days there are, whether their columns are the contract's, Spark frames.

Partitions are read by explicit path, never by a pattern over the window, so a night touches the days it names only.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date as calendar_date
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from components.extract_features.locations import for_spark
from goalrank import schema
from goalrank.errors import DataRefused

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SPARK_TYPES = {
    pa.string(): "string",
    pa.int8(): "tinyint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    schema.TIMESTAMP: "timestamp",
}


class LogPartitions:
    """The partitions under one LOGS folder."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs

    def days(self, table: str) -> list[str]:
        """Days with a partition of `table`, oldest first (by folder name only; nothing is opened)."""
        return sorted(path.name.removeprefix("dt=") for path in (self.logs / table).glob("dt=*") if path.is_dir())

    def to_read(self, table: str, first: str | None, last: str, skipped: Collection[str] = ()) -> list[str]:
        """Days of `table` from `first` (None: from the oldest) to `last`, but for the `skipped`."""
        inside = [day for day in self.days(table) if (first is None or day >= first) and day <= last]
        return [day for day in inside if day not in skipped]

    def arrival_days(self, first: str | None, last: str, skipped: Collection[str] = ()) -> list[str]:
        """Every day from `first` (None: the oldest with requests or impressions) to `last`; all must be there.

        `skipped` days are among the answer, as days on which nothing arrived, but need not be there.

        Raises:
            DataRefused: a daily table has no partition on one of them.
        """
        found = {table: self.days(table) for table in schema.DAILY_TABLES}
        for table, days in found.items():
            if last not in days:
                shown = f"{days[0]} to {days[-1]} ({len(days)} days)" if days else "no day at all"
                raise DataRefused(
                    f"no partition {self.logs / table / f'dt={last}'}, found {shown}; "
                    "let the day arrive, or run an earlier date"
                )
        begin = first or min(day for days in found.values() for day in days if day not in skipped)
        wanted = _calendar(begin, last)
        gaps = [
            f"{table}/dt={day}"
            for table in schema.DAILY_TABLES
            for day in wanted
            if day not in {*found[table], *skipped}
        ]
        if gaps:
            shown = ", ".join(gaps[:10]) + (f" and {len(gaps) - 10} more" if len(gaps) > 10 else "")
            raise DataRefused(
                f"the logs have a gap: {shown} missing under {self.logs}, expected every day from {begin} to {last}; "
                "bring the days back, or move the logs after the gap into a folder of their own"
            )
        return wanted

    def read(self, spark: SparkSession, table: str, days: list[str], first: str) -> DataFrame:
        """Rows of the partitions `days`, the contract's columns plus `arrived` and `day` (dates).

        `day` is `arrived`, but not before `first`: items and users may have arrived before the first request did.

        Raises:
            DataRefused: a column is missing or has another type.
        """
        from pyspark.sql import functions as F  # noqa: N812  (PySpark's own convention)

        fields = schema.LOG_TABLES[table]
        columns = spark_columns(fields) + ", dt date"
        for day in days:
            self._check_columns(table, day)
        if days:
            paths = [for_spark(self.logs / table / f"dt={day}") for day in days]
            base = for_spark(self.logs / table)
            rows = spark.read.schema(columns).option("basePath", base).option("pathGlobFilter", "*.parquet")
            frame = rows.parquet(*paths)
        else:
            frame = spark.createDataFrame([], columns)
        counted = F.greatest(F.col("dt"), F.lit(calendar_date.fromisoformat(first)))
        return frame.select(*fields.names, F.col("dt").alias("arrived"), counted.alias("day"))

    def _check_columns(self, table: str, day: str) -> None:
        folder = self.logs / table / f"dt={day}"
        files = sorted(folder.glob("*.parquet"))
        if not files:
            raise DataRefused(f"{folder} holds no Parquet file, expected at least one (it may have no rows)")
        for file in files:
            try:
                found = pq.read_schema(file)
                names = found.names
            except (pa.ArrowException, OSError, ValueError) as error:
                raise DataRefused(f"{file} cannot be read as Parquet: {error}") from error
            for field in schema.LOG_TABLES[table]:
                if names.count(field.name) > 1:
                    raise DataRefused(f"{file}: column {field.name} stands twice, expected once")
                if field.name not in names:
                    raise DataRefused(
                        f"{file}: column {field.name} is missing, found {', '.join(names)}; "
                        f"expected {field.name}: {field.type}"
                    )
                kind = found.field(field.name).type
                if _canonical(kind) != field.type:
                    raise DataRefused(
                        f"{file}: column {field.name} has type {kind}, expected {field.type}; "
                        "write it so (nothing is cast silently)"
                    )


def incomplete_days(days: Collection[str], chain_first: str, skipped: Collection[str]) -> list[str]:
    """Those of `days` on which impressions may arrive whose request nobody has read; such impressions are left out.

    Their request may have arrived before the logs begin (`chain_first` is their first day) or on a skipped day, within
    the LATENESS_DAYS that the contract allows.
    """
    begin = calendar_date.fromisoformat(chain_first)
    gone = [calendar_date.fromisoformat(day) for day in skipped]
    found = []
    for text in days:
        day = calendar_date.fromisoformat(text)
        early = (day - begin).days < schema.LATENESS_DAYS
        if early or any(0 < (day - other).days <= schema.LATENESS_DAYS for other in gone):
            found.append(text)
    return found


def _calendar(first: str, last: str) -> list[str]:
    begin, end = calendar_date.fromisoformat(first), calendar_date.fromisoformat(last)
    return [str(begin + timedelta(days=offset)) for offset in range((end - begin).days + 1)]


def spark_columns(columns: pa.Schema) -> str:
    """The columns of a contract as Spark writes them."""
    return ", ".join(f"`{field.name}` {_spark_type(field.type)}" for field in columns)


def _spark_type(kind: pa.DataType) -> str:
    return f"array<{_spark_type(kind.value_type)}>" if pa.types.is_list(kind) else _SPARK_TYPES[kind]


def _canonical(kind: pa.DataType) -> pa.DataType:
    """Arrow flavours that are one and the same Parquet type."""
    if pa.types.is_dictionary(kind):
        return _canonical(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_canonical(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz is not None:
        return schema.TIMESTAMP
    return kind
