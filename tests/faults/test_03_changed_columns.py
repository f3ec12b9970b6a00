"""3. A missing, renamed or re-typed column -> a refusal that names it, what was expected and what was found."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from goalrank import schema
from goalrank.errors import EXIT_DATA_REFUSED, DataRefused
from tests.components.test_check_logs import DAYS, clean_logs, night, outcome_of
from tests.faults.conftest import Seen

COLUMNS = [(table, field) for table, columns in schema.LOG_TABLES.items() for field in columns]


def other_type(kind: pa.DataType) -> pa.DataType:
    """A type that a careless writer might use instead."""
    if pa.types.is_list(kind):
        return pa.list_(other_type(kind.value_type))
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")  # without a zone
    return {pa.int64(): pa.int32(), pa.int32(): pa.int64(), pa.int8(): pa.bool_(), pa.float64(): pa.float32()}.get(
        kind, pa.binary()
    )


def spoil(table: pa.Table, name: str, change: str) -> pa.Table:
    place = table.column_names.index(name)
    if change == "missing":
        return table.drop_columns([name])
    if change == "renamed":
        return table.rename_columns([f"{column}_x" if column == name else column for column in table.column_names])
    kind = other_type(table.schema.field(name).type)
    return table.set_column(place, pa.field(name, kind), pa.nulls(table.num_rows, kind))


@pytest.mark.parametrize("change", ["missing", "renamed", "re-typed"])
def test_every_column_of_every_table_is_named(tmp_path: Path, seen: Seen, change: str) -> None:
    """Each column is spoilt in a file of its own; one refusal names them all."""
    clean_logs(tmp_path / "logs", DAYS[:2])
    for table, field in COLUMNS:
        folder = tmp_path / "logs" / table / f"dt={DAYS[0]}"
        whole = pq.read_table(folder / "part-0.parquet", partitioning=None)
        pq.write_table(spoil(whole, field.name, change), folder / f"part-{field.name}.parquet")
    with pytest.raises(DataRefused) as refused:
        night(tmp_path, DAYS[1])
    for table, field in COLUMNS:
        found = str(other_type(field.type)) if change == "re-typed" else "absent"
        place = f"table={table} dt={DAYS[0]} file=part-{field.name}.parquet column={field.name}"
        kind = field.type if not pa.types.is_list(field.type) else pa.list_(field.type.value_type)
        assert f"{place} expected={kind} found={found}" in str(refused.value), place
        if change == "renamed":
            assert f"{field.name}_x" in str(refused.value)
    outcome = outcome_of(tmp_path)
    assert (outcome["exit_code"], "pyspark" in outcome["tool_seconds"]) == (EXIT_DATA_REFUSED, False)
    seen(f"{len(COLUMNS)} columns {change}, one a file", "exit 3 before Spark starts, each named with both types")


def test_pages_that_cannot_be_read_under_a_sound_footer(tmp_path: Path, seen: Seen) -> None:
    """The footer promises the contract's columns; Spark meets garbage behind it."""
    clean_logs(tmp_path / "logs", DAYS[:2])
    file = tmp_path / "logs" / "impressions" / f"dt={DAYS[1]}" / "part-0.parquet"
    content = bytearray(file.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[4:footer] = b"\xff" * (footer - 4)
    file.write_bytes(content)
    with pytest.raises(DataRefused) as refused:
        night(tmp_path, DAYS[1])
    assert "impressions: expected" in str(refused.value) and "crashed" in str(refused.value)
    assert outcome_of(tmp_path)["exit_code"] == EXIT_DATA_REFUSED
    seen("pages overwritten under a sound footer", f"exit {EXIT_DATA_REFUSED}, table named, no crash")
