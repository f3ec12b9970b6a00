"""Any file of ratings (user, item, rating, time) as logs of the data contract, by the offline protocol (method.md).

CSV with or without a header, TSV, or Parquet; gzip and the like are read through. Amazon's public rating files are
among them: `user,item,rating,seconds` without a header (2014), with a header and milliseconds (2023).
"""

from __future__ import annotations

import csv as rows_of_text
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from goalrank.errors import DataRefused, UsageError
from goalrank.importing import Progress, Source, kinds_of, write_import
from goalrank.logs_writer import refuse_occupied
from goalrank.offline_protocol import Ratings
from goalrank.rating_files import (
    PLAIN_INTEGER,
    Columns,
    decoded,
    first_line_of,
    hashed_id,
    lines_of,
    named,
    present,
    refusal,
)
from goalrank.schema import LIST_LENGTH

CORE = 2 * LIST_LENGTH
"""Default core filter: the shortest sequence whose second half surely holds a slate."""

SCALE = (0.5, 5.0)
CLICK_FROM = 4.0

ROLES = ("user", "item", "rating", "time")
KNOWN_NAMES = {
    "user": ("user_id", "user", "userid", "reviewerid", "uid"),
    "item": ("parent_asin", "item_id", "item", "itemid", "movieid", "asin", "iid"),
    "rating": ("rating", "ratings", "overall", "stars", "score"),
    "time": ("timestamp", "time", "unixreviewtime", "ts"),
}
"""Header names that are understood without being told, in order of preference; case does not matter."""

TIME_UNITS = ("auto", "s", "ms")
_PARQUET = (".parquet", ".pq")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def import_ratings(
    path: str,
    out: str,
    *,
    columns: Sequence[str | int] | None = None,
    core: int = CORE,
    scale: tuple[float, float] = SCALE,
    click_from: float = CLICK_FROM,
    like_from: float | None = None,
    time_unit: str = "auto",
    candidates: str = "matched",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Turn a ratings file into logs.

    Args:
        path: the file.
        out: the logs' folder, empty or not there yet; with "both" it gets two of them, matched/ and retrieved/.
        columns: the user, item, rating and time column, in this order: names, or places from 0 where the file has no
            header. Default: a header's usual names; without one the first four in the order user, item, rating, time.
        core: every user and every item keeps at least this many ratings, or goes.
        scale: the lowest and highest rating there can be.
        click_from: a rating from here up is a click.
        like_from: a rating from here up is a like; default the highest of the scale.
        time_unit: "s" or "ms" since 1970, or "auto": the one in which the first row lies between 1990 and 2100.
        candidates: "matched", "retrieved" or "both" (goalrank.candidates).
        seed: of candidates, their order, and the times of day.
        progress: called with done, total and a note.

    Returns:
        Counts, splits, days and sanity figures: what OUT/import.json holds; for "both" one of each. Ids that are not
        plain integers become the first 63 bits of their SHA-1, so an id keeps its number in every import;
        OUT/user_ids.parquet and OUT/item_ids.parquet hold the mapping.

    Raises:
        UsageError: ``out`` is occupied, or an argument makes no sense.
        DataRefused: the file is missing, bad (the message names the line) or too small.
    """
    kinds_of(candidates)
    refuse_occupied(out)
    if core < 1:
        raise UsageError(f"core {core} found, expected at least 1, the smallest number of ratings a user may have")
    if time_unit not in TIME_UNITS:
        raise UsageError(f"time unit {time_unit!r} found, expected one of {', '.join(TIME_UNITS)}")
    if columns is not None and len(columns) != len(ROLES):
        raise UsageError(f"columns {named(columns)} found, expected four: the {', '.join(ROLES)} column, in this order")
    file = present(Path(path))
    table, first_line, word = _read_parquet(file, columns) if _is_parquet(file) else _read_text(file, columns)
    checked = Columns(file, table["rating"].to_numpy(), table["time"].to_numpy(), first_line, word)
    checked.check_ratings(*scale)
    checked.check_times(time_unit)
    user_id_R, mapped_users = _ids(table["user"], file, "user", first_line, word)
    item_id_R, mapped_items = _ids(table["item"], file, "item", first_line, word)
    ratings, dropped = _first_of_each_pair(Ratings(user_id_R, item_id_R, checked.rating_R, checked.time_R))
    titles = mapped_items or {item: str(item) for item in np.unique(item_id_R).tolist()}
    source = Source(
        kind="ratings",
        files=(file,),
        ratings=ratings,
        core=core,
        click_from=click_from,
        like_from=scale[1] if like_from is None else like_from,
        titles=titles,
        mapped_users=mapped_users,
        mapped_items=mapped_items,
        notes={"repeated_ratings_dropped": dropped},
    )
    return write_import(source, out, candidates, seed, progress)


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in _PARQUET


# ------------------------------------------------------------------------------------------------------------ text


def _read_text(file: Path, columns: Sequence[str | int] | None) -> tuple[pa.Table, int, str]:
    head = first_line_of(file)
    delimiter = max("\t,;", key=lambda mark: (head.count(mark), mark == ","))
    first = next(rows_of_text.reader([head], delimiter=delimiter), [])
    has_header = not any(_NUMBER.fullmatch(field.strip()) for field in first)
    names = (
        [field.strip().removeprefix("\ufeff") for field in first] if has_header else [str(i) for i in range(len(first))]
    )
    chosen = _chosen(file, names, columns, has_header)
    types = dict(zip(chosen, (_TEXT, _TEXT, pa.float64(), pa.int64()), strict=True))
    first_line = 1 + has_header
    try:
        with pa.input_stream(str(file)) as stream:
            table = csv.read_csv(
                stream,
                read_options=csv.ReadOptions(column_names=names, skip_rows=int(has_header)),
                parse_options=csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
                convert_options=csv.ConvertOptions(
                    column_types=types, include_columns=chosen, null_values=[], strings_can_be_null=False
                ),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise _first_bad_row(file, delimiter, names, chosen, first_line, error) from None
    if not table.num_rows:
        raise refusal(file, None, "a header and no rows", "one row a rating", "download it again")
    return table.rename_columns(list(ROLES)), first_line, "line"


_TEXT = pa.dictionary(pa.int32(), pa.string())


def _chosen(file: Path, names: list[str], columns: Sequence[str | int] | None, has_header: bool) -> list[str]:
    """Names of the user, item, rating and time column."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refusal(file, None, f"column {twice[0]!r} twice", "each name once", "rename one of them")
    if columns is not None:
        return [_named_column(file, names, str(column), role) for column, role in zip(columns, ROLES, strict=True)]
    if has_header:
        return [_known_column(file, names, role) for role in ROLES]
    if len(names) < len(ROLES):
        found = f"{len(names)} field{'s' * (len(names) != 1)}"
        raise refusal(file, 1, found, "at least 4: user, item, rating, time", "bring a file with all four")
    return names[: len(ROLES)]


def _named_column(file: Path, names: list[str], column: str, role: str) -> str:
    if column not in names:
        raise refusal(file, None, f"columns {named(names)}", f"{column!r} for the {role}", "name another column")
    return column


def _known_column(file: Path, names: list[str], role: str) -> str:
    by_lower = {name.lower(): name for name in names}
    for known in KNOWN_NAMES[role]:
        if known in by_lower:
            return by_lower[known]
    expected = f"one for the {role} ({', '.join(KNOWN_NAMES[role])})"
    raise refusal(file, None, f"columns {named(names)}", expected, "say which with columns=user,item,rating,time")


def _first_bad_row(
    file: Path, delimiter: str, names: list[str], chosen: list[str], first_line: int, error: Exception
) -> DataRefused:
    """The slow way, once the fast one has failed: line by line to the first that does not parse."""
    user, item, rating, time = (names.index(column) for column in chosen)
    with pa.input_stream(str(file)) as stream:
        for line, raw in enumerate(lines_of(stream), start=1):
            if line < first_line:
                continue
            text = decoded(file, line, raw.removesuffix(b"\r"))
            fields = next(rows_of_text.reader([text], delimiter=delimiter), [])
            if len(fields) != len(names):
                found = f"{len(fields)} field{'s' * (len(fields) != 1)}"
                return refusal(file, line, found, f"{len(names)}, as in the first line", "correct the line")
            if not _NUMBER.fullmatch(fields[rating].strip()):
                return refusal(file, line, f"rating {fields[rating]!r}", "a number", "correct the line")
            if not re.fullmatch(r"-?[0-9]{1,18}", fields[time].strip()):
                expected = "a whole number of seconds or milliseconds since 1970"
                return refusal(file, line, f"time {fields[time]!r}", expected, "convert the column")
    return refusal(file, None, f"what cannot be read ({error})", "comma- or tab-separated text", "save it again")


# --------------------------------------------------------------------------------------------------------- Parquet


def _read_parquet(file: Path, columns: Sequence[str | int] | None) -> tuple[pa.Table, int, str]:
    try:
        chosen = _chosen(file, pq.read_schema(file).names, columns, has_header=True)
        table = pq.read_table(file, columns=chosen).rename_columns(list(ROLES))
    except (pa.ArrowInvalid, OSError):
        raise refusal(file, None, "no whole Parquet file", "Parquet, as the name says", "download it again") from None
    if not table.num_rows:
        raise refusal(file, None, "no rows", "one row a rating", "write it again")
    for role in ROLES:
        kind, nulls = table[role].type, table[role].null_count
        if not _fits(role, kind):
            raise refusal(file, None, f"a {role} column of {kind}", _EXPECTED_TYPES[role], "convert the column")
        if nulls:
            row = pc.index(pc.is_null(table[role]), True).as_py() + 1
            raise refusal(
                file, row, f"no {role} (null)", "a value in every row", "take the rows without one out", "row"
            )
    time = table["time"]
    if pa.types.is_timestamp(time.type):
        time = pc.cast(time, pa.timestamp("ms", tz=time.type.tz), safe=False)
    converted = {
        "user": _id_column(table["user"]),
        "item": _id_column(table["item"]),
        "rating": table["rating"].cast(pa.float64()),
        "time": time.cast(pa.int64()),
    }
    return pa.table(converted), 1, "row"


_EXPECTED_TYPES = {
    "user": "integers or strings",
    "item": "integers or strings",
    "rating": "numbers",
    "time": "integers (seconds or milliseconds since 1970) or timestamps",
}


def _fits(role: str, kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    integer = pa.types.is_integer(value) and value != pa.uint64()
    if role in ("user", "item"):
        return integer or pa.types.is_string(value) or pa.types.is_large_string(value)
    if role == "rating":
        return integer or pa.types.is_floating(value)
    return integer or pa.types.is_timestamp(value)


def _id_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    text = column.cast(pa.string()) if not pa.types.is_integer(column.type) else column
    return text.dictionary_encode() if pa.types.is_string(text.type) else text.cast(pa.int64())


# -------------------------------------------------------------------------------------------------------------- ids


def _ids(
    column: pa.ChunkedArray, file: Path, role: str, first_line: int, word: str
) -> tuple[np.ndarray, dict[int, str] | None]:
    """Ids as int64, and which original each stands for; None where the originals are these integers themselves."""
    if pa.types.is_integer(column.type):
        if not len(column) or pc.min(column).as_py() >= 1:
            return column.to_numpy(), None
        column = column.cast(pa.string()).dictionary_encode()
    encoded = column.unify_dictionaries().combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    originals = encoded.dictionary.to_pylist()
    code_R = encoded.indices.to_numpy()
    if any(not original.strip() for original in originals):
        empty = np.flatnonzero([not original.strip() for original in originals])
        row = int(np.argmax(np.isin(code_R, empty)))
        raise refusal(file, row + first_line, f"an empty {role}", "an id", "correct the line", word)
    if all(PLAIN_INTEGER.fullmatch(original) for original in originals):
        return np.array([int(original) for original in originals], dtype=np.int64)[code_R], None
    numbers = [hashed_id(original) for original in originals]
    mapped = dict(zip(numbers, originals, strict=True))
    if len(mapped) < len(originals):
        raise refusal(file, None, f"two {role} ids of one SHA-1 prefix", "none", "number them yourself")
    return np.array(numbers, dtype=np.int64)[code_R], mapped


def _first_of_each_pair(ratings: Ratings) -> tuple[Ratings, int]:
    """Of several ratings of one item by one user, the earliest: a later one is no news to the user."""
    order_R = np.lexsort((ratings.time_R, ratings.item_id_R, ratings.user_id_R))
    user_R, item_R = ratings.user_id_R[order_R], ratings.item_id_R[order_R]
    again_R = np.concatenate(([False], (np.diff(user_R) == 0) & (np.diff(item_R) == 0)))
    keep_R = np.sort(order_R[~again_R])
    kept = Ratings(**{name: values[keep_R] for name, values in vars(ratings).items()})
    return kept, int(again_R.sum())
