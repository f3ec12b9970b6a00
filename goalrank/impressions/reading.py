"""A CSV of impressions read as a stream: batches of checked values, and every row that could not be read by its line.

Memory holds one block of the file at a time, and the distinct ids of users and items (`Ids`).
"""

from __future__ import annotations

import csv as rows_of_text
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from goalrank.errors import DataRefused
from goalrank.impressions import values
from goalrank.impressions.candidate_texts import CandidateTexts
from goalrank.impressions.columns import JOIN
from goalrank.impressions.header import compression_of, delimiter_of, header_of
from goalrank.impressions.physical_lines import CountedLines, cut_short, unclosed
from goalrank.rating_files import PLAIN_INTEGER, decoded, hashed_id, lines_of, refusal

DAY = 86_400_000_000
"""Microseconds."""

ROWS = pa.schema(
    [
        pa.field("request", pa.string()),
        pa.field("user", pa.int32()),  # codes of Ids
        pa.field("item", pa.int32()),
        pa.field("time", pa.int64()),  # microseconds since 1970
        pa.field("position", pa.int32()),  # as in the file: any start, any gaps
        pa.field("click", pa.int8()),
        pa.field("like", pa.int8()),
        pa.field("watch", pa.float64()),  # NaN where nobody measured it
        pa.field("propensity", pa.float64()),  # NaN likewise
        pa.field("policy", pa.string()),
        pa.field("candidates", pa.string()),  # as in the file; "" where there are none
        pa.field("scores", pa.string()),
    ]
)

_OPTIONAL = ("like", "watch", "watch_ms", "propensity", "candidates", "scores")

_BLOCK_BYTES = 4 << 20
_TOLD = 3  # bad rows a refusal quotes


@dataclass
class BadRows:
    """Rows that could not be read: how many for which reason, and the first ones by line."""

    file: Path
    counts: Counter[str] = field(default_factory=Counter)
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, reason: str, found: str, expected: str) -> None:
        """One more row; `reason` is what it is counted under."""
        self.counts[reason] += 1
        self.first = sorted([*self.first, (line, f"found {found}, expected {expected}")])[:_TOLD]

    def refusal(self, most: int, can_be_left_out: bool) -> DataRefused:
        """More rows could not be read than the `most` that may be left out."""
        total = self.counts.total()
        told = "; ".join(f"line {line}: {what}" for line, what in self.first)
        more = f"; and {total - len(self.first)} more" if total > len(self.first) else ""
        advice = f", or leave them and their lists out with --max-bad-rows {total}" if can_be_left_out else ""
        return DataRefused(
            f"{self.file}: {total} unreadable row{'s' * (total != 1)} found, expected {most or 'none'}. {told}{more}. "
            f"Correct them{',' if advice else ' or'} name another column with --map{advice}"
        )


class Ids:
    """Distinct ids of one kind, numbered as they come."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._code_of = {original: code for code, original in enumerate(known)}

    def __len__(self) -> int:
        return len(self._code_of)

    def codes(self, column: pa.Array) -> pa.Array:
        """int32 codes of a column of ids."""
        encoded = column.dictionary_encode()
        code_of = self._code_of
        codes = [code_of.setdefault(original, len(code_of)) for original in encoded.dictionary.to_pylist()]
        return pa.array(codes, pa.int32()).take(encoded.indices)

    def known(self, column: pa.Array) -> npt.NDArray[np.int64]:
        """Codes of ids that came before, -1 for those that did not."""
        return np.array([self._code_of.get(original, -1) for original in column.to_pylist()], dtype=np.int64)

    @property
    def originals(self) -> list[str]:
        """Ids by code."""
        return list(self._code_of)

    def numbered(self, kind: str, before: bool | None = None) -> tuple[npt.NDArray[np.int64], bool]:
        """The number of each code in the logs, and whether it is another than the id itself.

        Args:
            kind: what the ids are of.
            before: were they numbered in the logs that these are added to? None: there are none.

        Raises:
            DataRefused: two ids get one number, or ids stood for themselves before and now cannot.
        """
        other = next((original for original in self._code_of if not PLAIN_INTEGER.fullmatch(original)), None)
        if other is None and not before:
            return np.array([int(original) for original in self._code_of], dtype=np.int64), False
        if before is False:
            raise DataRefused(
                f"{kind} id {other!r} found, expected whole numbers from 1, as all in the logs so far; "
                "correct it, or import all days anew into another folder"
            )
        number_C = np.array([hashed_id(original) for original in self._code_of], dtype=np.int64)
        if len(np.unique(number_C)) < len(number_C):
            raise DataRefused(f"two {kind} ids of one SHA-1 prefix found, expected none; number them yourself")
        return number_C, True


class Reader:
    """One file of impressions, read once from front to back."""

    def __init__(
        self, file: Path, columns: Mapping[str, tuple[str, ...]], time_zone: str, users: Ids, items: Ids
    ) -> None:
        self._file, self.columns, self._time_zone = file, columns, time_zone
        self.users, self.items = users, items
        self.candidate_texts = CandidateTexts()
        self.bad = BadRows(file)
        self.rows = 0
        self.blank = 0
        self.damaged: set[str] = set()  # requests with a row that could not be read
        self._names: list[str] = []
        self._delimiter = ""
        self._ragged: list[int] = []  # lines of rows with another number of fields, in order
        self._before = 0  # whole rows of earlier batches

    def batches(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Readable rows (ROWS), and how many bytes of the file were read by then.

        Raises:
            DataRefused: the file is no UTF-8 text, or a quoted value goes over several lines.
        """
        self._names, self._delimiter = names, delimiter = header_of(self._file), delimiter_of(self._file)
        wanted = list(dict.fromkeys(column for columns in self.columns.values() for column in columns))
        with (
            open(self._file, "rb") as packed,
            pa.input_stream(packed, compression=compression_of(self._file)) as stream,
        ):
            try:
                counted = CountedLines(stream)
                reader = csv.open_csv(
                    counted,
                    read_options=csv.ReadOptions(
                        column_names=names, skip_rows=1, use_threads=False, block_size=_BLOCK_BYTES
                    ),
                    parse_options=csv.ParseOptions(
                        delimiter=delimiter,
                        ignore_empty_lines=False,
                        invalid_row_handler=self._ragged_row,
                    ),
                    convert_options=csv.ConvertOptions(
                        column_types=dict.fromkeys(wanted, pa.string()),
                        include_columns=wanted,
                        null_values=[],
                        strings_can_be_null=False,
                    ),
                )
                for batch in reader:
                    if batch.num_rows:
                        yield self._checked(batch), packed.tell()
                    self._before += batch.num_rows
            except pa.ArrowInvalid as error:
                raise self._not_text(error) from None
            except OSError as error:
                raise cut_short(self._file, error) from None
        if (rows := 1 + self._before + len(self._ragged)) != counted.lines:
            raise unclosed(self._file, delimiter) or refusal(
                self._file, None, f"{counted.lines} lines read as {rows} rows", "one row a line", "save it again"
            )

    def _ragged_row(self, row: csv.InvalidRow) -> str:
        self._ragged.append(row.number)
        self.rows += 1
        found = f"{row.actual_columns} field{'s' * (row.actual_columns != 1)}"
        self.bad.add(row.number, "fields", found, f"{row.expected_columns}, as in the header")
        self.damaged.update(self._requests_of(row.text))
        return "skip"

    def _requests_of(self, line: str) -> set[str]:
        """The list of a line with too few or too many fields: its id's place counted from the front, and from the end,
        since nobody knows where the field is that is missing or that has been cut."""
        try:
            (fields,) = rows_of_text.reader([line], delimiter=self._delimiter)
        except (rows_of_text.Error, ValueError):
            return set()
        found = set()
        for shift in (0, len(fields) - len(self._names)):
            at = [self._names.index(name) + shift for name in self.columns["request"]]
            if all(0 <= place < len(fields) for place in at):
                found.add(JOIN.join(fields[place].strip() for place in at))
        return found

    def _line(self, row: int) -> int:
        """The line of a row that has all its fields, by its place among those."""
        line = row + 2  # after the header
        for ragged in self._ragged:
            line += ragged <= line
        return line

    def _not_text(self, error: Exception) -> DataRefused:
        """The refusal of what Arrow could not take apart: by its line, where that can be told."""
        with pa.input_stream(str(self._file)) as stream:
            for line, raw in enumerate(lines_of(stream), start=1):
                try:
                    decoded(self._file, line, raw)
                except DataRefused as refused:
                    return refused
        return unclosed(self._file, delimiter_of(self._file)) or refusal(
            self._file, None, f"what cannot be read ({error})", "comma- or tab-separated text", "save it again"
        )

    def _checked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = {role: self._text(batch, names) for role, names in self.columns.items()}
        text |= {role: values.optional(text[role]) for role in _OPTIONAL if role in text}
        blank_R = np.ones(batch.num_rows, dtype=bool)
        for name in batch.schema.names:
            blank_R &= pc.equal(batch[name], "").to_numpy(zero_copy_only=False)
        self.blank += int(blank_R.sum())
        self.rows += int((~blank_R).sum())
        left_out_R = blank_R

        def checked(role: str, bad_R: values.Bad, expected: str) -> None:
            nonlocal left_out_R
            for row in np.flatnonzero(bad_R & ~left_out_R).tolist():
                found = f"{role} {text[role][row].as_py()!r}" if role in self.columns else role
                self.bad.add(self._line(self._before + row), role, found, expected)
                self.damaged.add(text["request"][row].as_py())
            left_out_R = left_out_R | bad_R

        for role in ("request", "user", "item"):
            checked(role, pc.equal(text[role], "").to_numpy(zero_copy_only=False), "an id")
        time_R, bad_R = values.times(text["time"], self._time_zone)
        checked("time", bad_R, values.TIME)
        position_R, bad_R = values.whole_numbers(text["position"])
        checked("position", bad_R, values.WHOLE)
        marks = {}
        for role in ("click", "like"):
            marks[role] = np.zeros(batch.num_rows, dtype=np.int8)
            if role in text:
                marks[role], bad_R = values.flags(text[role])
                checked(role, bad_R, values.FLAG)
        watch_R = np.full(batch.num_rows, np.nan)
        for role, unit in (("watch_ms", 1e-3), ("watch", 1.0)):
            if role in text:
                amount_R, bad_R = values.amounts(text[role])
                checked(role, bad_R, values.SECONDS)
                watch_R = np.where(np.isnan(amount_R), watch_R, amount_R * unit)
        propensity_R = np.full(batch.num_rows, np.nan)
        if "propensity" in text:
            propensity_R, bad_R = values.amounts(text["propensity"], 1.0, above_zero=True)
            checked("propensity", bad_R, values.PROBABILITY)
        nothing = pa.repeat("", batch.num_rows)
        kept = pa.array(np.flatnonzero(~left_out_R))
        rows = pa.RecordBatch.from_arrays(
            [
                text["request"],
                text["user"],
                text["item"],
                pa.array(time_R),
                pa.array(position_R, pa.int32()),
                pa.array(marks["click"]),
                pa.array(marks["like"]),
                pa.array(watch_R),
                pa.array(propensity_R),
                *(text.get(role, nothing) for role in ("policy", "candidates", "scores")),
            ],
            names=ROWS.names,
        ).take(kept)
        if "candidates" in self.columns:
            self.items.codes(
                self.candidate_texts.ids(rows["candidates"])
            )  # all codes are known before the first day is written
        coded = {"user": self.users.codes(rows["user"]), "item": self.items.codes(rows["item"])}
        return pa.RecordBatch.from_arrays([coded.get(name, rows[name]) for name in ROWS.names], schema=ROWS)

    @staticmethod
    def _text(batch: pa.RecordBatch, names: tuple[str, ...]) -> pa.Array:
        parts = [values.stripped(batch[name]) for name in names]
        return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, JOIN)
