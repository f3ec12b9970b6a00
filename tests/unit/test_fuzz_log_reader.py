"""Thousands of broken log files: what reads them before Spark starts names the fault, and takes none of another shape.

GOALRANK_FUZZ_EXAMPLES=20000 makes a longer run with other inputs each time; by default they are always the same.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.check_logs import partitions
from components.extract_features import day_decisions
from components.extract_features.log_partitions import LogPartitions
from goalrank import schema
from goalrank.errors import DataRefused
from tests.components.log_samples import random_logs

DAY = "2026-01-01"
ASKED = os.environ.get("GOALRANK_FUZZ_EXAMPLES")
FUZZ = settings(
    max_examples=int(ASKED or 800),
    derandomize=ASKED is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)


def _written(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


_SAMPLE = random_logs(seed=1, first=DAY, days=1, requests=4)
SOUND = {
    name: pa.Table.from_pylist(_SAMPLE.rows[name][DAY], schema=columns) for name, columns in schema.LOG_TABLES.items()
}
FILES = {name: _written(table) for name, table in SOUND.items()}
"""A sound file of each table."""


@dataclass(frozen=True)
class Judged:
    """What the gate's file checks say of one file."""

    unreadable: str | None
    rows: int
    wrong: dict[str, str]
    """Column -> what was found, of columns that are not the contract's."""

    @property
    def taken(self) -> bool:
        return self.unreadable is None and not self.wrong


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "logs"


def judge(logs: Path, table: str, content: bytes) -> Judged:
    """One file through what check_logs does before Spark starts. Any error at all fails the test."""
    file = logs / table / f"dt={DAY}" / "part-0.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    reading = partitions.Reading((DAY,), DAY, (partitions.Partition(table, DAY, (file,)),), ())
    (row,) = partitions.survey(reading, {}).itertuples()
    columns = partitions.columns(reading)
    wrong = {found.column: found.found for found in columns.itertuples() if found.found != found.expected}
    if row.unreadable:
        assert "part-0.parquet" in row.unreadable and len(columns) == 0
    return Judged(row.unreadable, row.rows, wrong)


def assert_extraction_agrees(logs: Path, table: str, judged: Judged) -> None:
    """What the gate takes, extraction's own reader must take; what extraction refuses, it refuses in its own words."""
    try:
        LogPartitions(logs)._check_columns(table, DAY)
    except DataRefused as refused:
        assert not judged.taken, f"the gate took what extraction refuses: {refused}"
        assert "part-0.parquet" in str(refused)


# ------------------------------------------------------------------------------------------------------- broken bytes


@st.composite
def broken_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sound file cut, flipped, spliced with another table's, or given another footer length."""
    table = draw(st.sampled_from(sorted(FILES)))
    content = bytearray(FILES[table])
    footer = struct.unpack("<I", content[-8:-4])[0]
    for _ in range(draw(st.integers(1, 4))):
        # Half of all places in the footer: it is small, and all that is read before Spark.
        first = len(content) - 8 - footer if draw(st.booleans()) else 0
        at = draw(st.integers(max(min(first, len(content) - 1), 0), max(len(content) - 1, 0)))
        change = draw(st.sampled_from(["flip", "flip", "put", "cut", "remove", "insert", "length", "other"]))
        if change == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "put" and content:
            content[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del content[at:]
        elif change == "remove":
            del content[at : at + draw(st.integers(1, 20))]
        elif change == "insert":
            content[at:at] = draw(st.binary(max_size=12))
        elif change == "length" and len(content) > 8:
            content[-8:-4] = struct.pack("<I", draw(st.integers(0, 2**32 - 1)))
        elif change == "other":
            other = FILES[draw(st.sampled_from(sorted(FILES)))]
            content[at:] = other[len(other) // 2 :]
    return table, bytes(content)


@FUZZ
@given(broken_files())
def test_a_broken_file_is_refused_or_still_of_the_contracts_shape(logs: Path, case: tuple[str, bytes]) -> None:
    table, content = case
    judged = judge(logs, table, content)
    assert_extraction_agrees(logs, table, judged)
    if judged.taken:
        assert_shape(content, table, judged.rows)


def assert_shape(content: bytes, table: str, rows: int) -> None:
    """The file's columns are the contract's, said by Arrow's own reader."""
    file = pq.ParquetFile(io.BytesIO(content))
    assert sorted(file.schema_arrow.names) == sorted(schema.LOG_TABLES[table].names)
    for field in schema.LOG_TABLES[table]:
        assert same_kind(file.schema_arrow.field(field.name).type, field.type), field.name
    assert sum(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)) == rows


def same_kind(found: pa.DataType, expected: pa.DataType) -> bool:
    """Types that Spark reads alike."""
    if isinstance(found, pa.DictionaryType):
        return same_kind(found.value_type, expected)
    if pa.types.is_list(expected):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and same_kind(found.value_type, expected.value_type)
    if pa.types.is_string(expected):
        return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    if pa.types.is_timestamp(expected):
        return pa.types.is_timestamp(found) and found.unit == expected.unit and found.tz is not None
    return bool(found.equals(expected))


@FUZZ
@given(st.sampled_from(sorted(FILES)), st.binary(max_size=300), st.sampled_from([b"", b"PAR1"]))
def test_random_bytes_are_refused(logs: Path, table: str, content: bytes, magic: bytes) -> None:
    judged = judge(logs, table, magic + content + magic)
    assert judged.unreadable
    assert_extraction_agrees(logs, table, judged)


@pytest.mark.parametrize("table", sorted(FILES))
def test_every_truncation_is_refused(logs: Path, table: str) -> None:
    whole = FILES[table]
    for length in range(0, len(whole), 23):
        assert judge(logs, table, whole[:length]).unreadable
    assert judge(logs, table, whole).taken


# ------------------------------------------------------------------------------------------------------ random schemas

TYPES = st.deferred(
    lambda: st.one_of(
        st.sampled_from(
            [
                *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64()),
                *(pa.string(), pa.large_string(), pa.binary(), pa.bool_(), pa.date32(), pa.time64("us")),
                *(pa.timestamp("us"), pa.timestamp("ms", "UTC"), pa.timestamp("ns", "UTC"), schema.TIMESTAMP),
                *(pa.timestamp("us", "Europe/Berlin"), pa.decimal128(20, 2), pa.dictionary(pa.int32(), pa.string())),
            ]
        ),
        TYPES.map(pa.list_),
        TYPES.map(pa.large_list),
        TYPES.map(lambda kind: pa.struct([("inner", kind)])),
    )
)
HARMLESS = {
    pa.string(): [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()],
    pa.list_(pa.int64()): [pa.large_list(pa.int64())],
    pa.list_(pa.int32()): [pa.large_list(pa.int32())],
    pa.list_(pa.float64()): [pa.large_list(pa.float64())],
    pa.list_(pa.string()): [pa.large_list(pa.string()), pa.list_(pa.large_string())],
    schema.TIMESTAMP: [pa.timestamp("us", "Europe/Berlin")],
}
"""Other Arrow types of the same Parquet type."""


@st.composite
def schemas(draw: st.DrawFn) -> tuple[str, pa.Schema, set[str]]:
    """A table, columns for it, and the names that break the contract."""
    table = draw(st.sampled_from(sorted(FILES)))
    expected = {field.name: field.type for field in schema.LOG_TABLES[table]}
    fields = list(expected.items())
    for _ in range(draw(st.integers(0, 3))):
        change = draw(st.sampled_from(["drop", "rename", "retype", "flavour", "extra", "double", "shuffle"]))
        at = draw(st.integers(0, len(fields) - 1)) if fields else 0
        if change == "drop" and fields:
            del fields[at]
        elif change == "rename" and fields:
            fields[at] = (draw(st.text(min_size=1, max_size=8) | st.just(fields[at][0].upper())), fields[at][1])
        elif change == "retype" and fields:
            fields[at] = (fields[at][0], draw(TYPES))
        elif change == "flavour" and fields:
            fields[at] = (fields[at][0], draw(st.sampled_from(HARMLESS.get(fields[at][1], [fields[at][1]]))))
        elif change == "extra":
            fields.insert(at, (draw(st.text(max_size=8)), draw(TYPES)))
        elif change == "double" and fields:
            fields.append(fields[at])
        elif change == "shuffle":
            fields = draw(st.permutations(fields))
    names = [name for name, _ in fields]
    wrong = set(expected) ^ set(names) | {name for name in names if names.count(name) > 1}
    wrong |= {name for name, kind in fields if name in expected and not same_kind(kind, expected[name])}
    return table, pa.schema(fields), wrong


@FUZZ
@given(schemas())
def test_columns_are_taken_exactly_where_they_are_the_contracts(
    logs: Path, case: tuple[str, pa.Schema, set[str]]
) -> None:
    """Every column that is wrong is named, and no other."""
    table, columns, wrong = case
    try:
        content = _written(columns.empty_table())
    except (pa.ArrowException, UnicodeError):
        return  # no file can have such columns
    judged = judge(logs, table, content)
    assert judged.unreadable is None and set(judged.wrong) == wrong
    assert_extraction_agrees(logs, table, judged)


# ------------------------------------------------------------------------------------------------------- random values

_TIMES = st.datetimes(datetime(1678, 1, 1), datetime(2262, 1, 1)).map(lambda when: when.replace(tzinfo=UTC))


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of an Arrow type, null among them."""
    if pa.types.is_list(kind):
        found: st.SearchStrategy[Any] = st.lists(values(kind.value_type), max_size=4)
    elif pa.types.is_integer(kind):
        found = st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    elif pa.types.is_floating(kind):
        found = st.floats()
    elif pa.types.is_timestamp(kind):
        found = _TIMES
    else:
        found = st.text(st.characters(codec="utf-8"), max_size=12)
    return st.none() | found


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    name = draw(st.sampled_from(sorted(FILES)))
    row = st.fixed_dictionaries({field.name: values(field.type) for field in schema.LOG_TABLES[name]})
    options = {
        "compression": draw(st.sampled_from(["none", "snappy", "gzip", "zstd"])),
        "version": draw(st.sampled_from(["1.0", "2.4", "2.6"])),
        "row_group_size": draw(st.sampled_from([1, 2, 100])),
        "use_dictionary": draw(st.booleans()),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "store_schema": draw(st.booleans()),
    }
    return name, draw(st.lists(row, max_size=4)), options


@settings(FUZZ, max_examples=max(FUZZ.max_examples // 3, 1))
@given(tables())
def test_any_rows_in_the_contracts_columns_are_read(
    logs: Path, case: tuple[str, list[dict[str, Any]], dict[str, Any]]
) -> None:
    """Whatever stands in the rows, the files are sound: it is for the row checks to judge them."""
    name, rows, options = case
    columns = pa.schema([field.with_nullable(True) for field in schema.LOG_TABLES[name]])
    judged = judge(logs, name, _written(pa.Table.from_pylist(rows, schema=columns), **options))
    assert judged == Judged(None, len(rows), {})
    assert_extraction_agrees(logs, name, judged)


# --------------------------------------------------------------------------------------------------- names, decisions

FOLDER_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=14
).filter(lambda name: name not in (".", ".."))


@settings(FUZZ, max_examples=max(FUZZ.max_examples // 3, 1))
@given(name=FOLDER_NAMES | st.from_regex(r"dt=\d{4}-\d{2}-\d{2}", fullmatch=True))
def test_folders_are_days_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    logs = tmp_path_factory.mktemp("names")
    try:
        (logs / "requests" / name).mkdir(parents=True)
    except (OSError, UnicodeError):
        return  # no such folder can be
    try:
        reading = partitions.tonights(logs, "9999-12-30", "9999-12-28")
    except DataRefused as refused:
        assert name in str(refused) and "dt=YYYY-MM-DD" in str(refused)
        assert not name.startswith((".", "_"))
    else:
        assert reading.days == ("9999-12-29", "9999-12-30")
        hidden = name.startswith((".", "_"))
        assert hidden or datetime.strptime(name, "dt=%Y-%m-%d")


@pytest.mark.parametrize("name", ["part-{0}.parquet", "part-*.parquet", "part-[1].parquet", "part-?.parquet"])
def test_a_file_name_that_spark_reads_as_a_pattern_is_refused(logs: Path, name: str) -> None:
    file = logs / "requests" / f"dt={DAY}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(FILES["requests"])
    part = partitions.Partition("requests", DAY, (file,))
    (row,) = partitions.survey(partitions.Reading((DAY,), DAY, (part,), ()), {}).itertuples()
    assert "which Spark reads as a pattern" in row.unreadable
    file.unlink()


@settings(FUZZ, max_examples=max(FUZZ.max_examples // 3, 1))
@given(junk=st.binary(max_size=60), at=st.integers(0, 200))
def test_a_damaged_file_of_decisions_is_refused_or_still_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    root = tmp_path_factory.mktemp("decisions")
    day_decisions.record(root, DAY, day_decisions.SKIP, "broken")
    file = root / day_decisions.FILE
    content = file.read_bytes()
    file.write_bytes(content[:at] + junk + content[at:])
    try:
        found = day_decisions.read(root)
    except DataRefused as refused:
        assert "no decision about a day" in str(refused)
    else:
        inside = 0 < at < len(content) and junk
        assert set(found.skipped) == {DAY} or inside, "a skipped day came back"
