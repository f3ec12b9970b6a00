"""What a day's rows are, as one digest: the same rows in another order, file or compression give the same digest.

Every row is hashed with two seeds; a day's table is its row count and the two sums. Not meant against forgery.
"""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa

from goalrank import schema

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_SEEDS = (1, 2)


def day_contents(logs: dict[str, DataFrame], days: list[str]) -> dict[str, tuple[str, dict[str, int]]]:
    """For each day its digest (16 hex digits) and its rows per log table, in one Spark action.

    `logs` holds a frame a log table with the contract's columns and `day`.
    """
    sums = []
    for table, frame in logs.items():
        sums.append(_table_sums(table, frame))
    found: dict[str, dict[str, list[str]]] = {day: {} for day in days}
    for row in reduce(lambda left, right: left.unionByName(right), sums).collect():
        found[str(row["day"])][row["table"]] = [str(row["rows"]), *(str(row[f"sum_{seed}"]) for seed in _SEEDS)]
    return {
        day: (
            hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16],
            {table: int(tables.get(table, ["0"])[0]) for table in logs},
        )
        for day, tables in found.items()
    }


def _table_sums(table: str, frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F  # noqa: N812

    parts = [part for field in schema.LOG_TABLES[table] for part in _hashed(field)]
    # Sums of 64-bit hashes as decimals: a plain sum overflows, which Spark 4 refuses.
    hashes = [F.sum(F.xxhash64(F.lit(seed), *parts).cast("decimal(20,0)")).alias(f"sum_{seed}") for seed in _SEEDS]
    return frame.groupBy("day").agg(F.count("*").alias("rows"), *hashes).withColumn("table", F.lit(table))


def _hashed(field: pa.Field) -> list[Column]:
    """The columns that pin one field's value: xxhash64 alone skips nulls and runs neighbouring lists together."""
    from pyspark.sql import functions as F  # noqa: N812

    column = F.col(field.name)
    parts = [column.isNull(), column]
    if pa.types.is_list(field.type):
        nulls = F.when(
            F.exists(column, lambda value: value.isNull()), F.transform(column, lambda value: value.isNull())
        )
        parts += [F.size(column), nulls]
    return parts
