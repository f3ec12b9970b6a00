"""The first line of a CSV: what parts its fields, and the names of the columns."""

from __future__ import annotations

import csv as rows_of_text
import re
from pathlib import Path

import pyarrow as pa

from goalrank.impressions import values
from goalrank.impressions.physical_lines import closes_its_quotes, refusal_of_quote
from goalrank.rating_files import first_line_of, refusal

_PACKED = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zst"}
"""How packed files begin that are read through where their names end in this."""


def delimiter_of(file: Path) -> str:
    """Tab, comma, semicolon or bar, whichever the first line has most of."""
    head = first_line_of(file)
    return max("\t,;|", key=lambda mark: (head.count(mark), mark == ","))


def header_of(file: Path) -> list[str]:
    """Names of the columns.

    Raises:
        DataRefused: there is no header, a name stands in it twice, or the file is no text at all.
    """
    _refuse_packed(file)
    head, delimiter = first_line_of(file).removeprefix("\ufeff"), delimiter_of(file)
    if re.fullmatch("sep=.?", head.strip().lower()):
        raise refusal(file, 1, f"{head!r}, which is for a spreadsheet", "the header", "take that line out")
    if not closes_its_quotes(head, delimiter):
        raise refusal_of_quote(file, 1)
    if "\r" in head:
        raise refusal(file, 1, "line ends of an old Mac (CR)", "LF or CR LF", "save it with line ends of today")
    try:
        first = next(rows_of_text.reader([head], delimiter=delimiter), [])
    except rows_of_text.Error as error:
        raise refusal(file, 1, f"what is no CSV ({error})", "a header", "put one in front of the rows") from None
    names = [name.strip() for name in first]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refusal(file, 1, f"column {twice[0]!r} twice", "each name once", "rename one of them")
    if not names or all(values.number(name) is not None for name in names):
        raise refusal(file, 1, "no names of columns", "a header", "put one in front of the rows")
    return names


def compression_of(file: Path) -> str | None:
    """By the name, as pyarrow itself tells it."""
    try:
        return pa.Codec.detect(str(file)).name
    except (TypeError, ValueError):  # no name of a packed file
        return None


def _refuse_packed(file: Path) -> None:
    """Raises DataRefused where the first bytes are of no text, and not what the name says."""
    with open(file, "rb") as opened:
        first = opened.read(4)
    if first == b"PK\x03\x04":
        raise refusal(file, None, "a zip archive or a spreadsheet", "CSV text", "unpack it, or save it as CSV")
    if first == b"PAR1":
        mend = "write it as CSV, for example with DuckDB's COPY (FROM 'in.parquet') TO 'out.csv'"
        raise refusal(file, None, "a Parquet file", "CSV text", mend)
    packing = next((name for begin, name in _PACKED.items() if first.startswith(begin)), None)
    if packing and compression_of(file) is None:
        found, expected = f"a file packed as {packing} under another name", f"a name that ends in .{packing}"
        raise refusal(file, None, found, expected, f"rename it to {file.name}.{packing}")
    if packing is None and file.suffix.removeprefix(".") in _PACKED.values():
        raise refusal(
            file, None, "a file that is not packed", f"one packed as its name says ({file.suffix})", "rename it"
        )
