"""What the importers of files share: how a bad file is refused, text by its lines, and the checks of whole columns.

A refusal reads: FILE, line N: found X, expected Y; how to mend it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from goalrank.errors import DataRefused

EARLIEST_SECOND = 631_152_000  # 1990-01-01: no rating on the web is older
LATEST_SECOND = 4_102_444_800  # 2100-01-01
MILLISECONDS = 1_000
PLAIN_INTEGER = re.compile(r"[1-9][0-9]{0,17}")
"""Ids that stay what they are. Not 0: the models read id 0 as nobody."""


def refusal(path: Path, line: int | None, found: str, expected: str, mend: str, word: str = "line") -> DataRefused:
    """The refusal of a file, in one form for all."""
    where = f"{path}, {word} {line}" if line is not None else f"{path}"
    return DataRefused(f"{where}: found {found}, expected {expected}; {mend}")


def present(path: Path, what: str = "a file of ratings") -> Path:
    """The path itself, which should be `what`.

    Raises:
        DataRefused: no such file, a folder, or an empty file.
    """
    if path.is_dir():
        raise refusal(path, None, "a folder", "a file", "name the file itself")
    if not path.exists():
        raise refusal(path, None, "no such file", what, "check the path")
    if path.stat().st_size == 0:
        raise refusal(path, None, "an empty file", "one row a line", "download it again")
    return path


@dataclass(frozen=True)
class Columns:
    """Rating and time columns of one file, with what is needed to name a bad row."""

    path: Path
    rating_R: npt.NDArray[np.float64]
    time_R: npt.NDArray[np.int64]
    first_line: int = 1  # line of row 0
    word: str = "line"

    def _refuse_first(
        self, bad_R: npt.NDArray[np.bool_], values: npt.NDArray, what: str, expected: str, mend: str
    ) -> None:
        if bad_R.any():
            row = int(np.argmax(bad_R))
            number = values[row].item()
            found = f"{what} {number:g}" if isinstance(number, float) else f"{what} {number}"
            raise refusal(self.path, row + self.first_line, found, expected, mend, self.word)

    def check_ratings(self, lowest: float, highest: float, whole: bool = False) -> None:
        """Raises DataRefused for the first rating that is no number, out of range or (``whole``) broken."""
        bad_R = ~((self.rating_R >= lowest) & (self.rating_R <= highest))  # NaN compares false, so it is bad
        if whole:
            bad_R |= self.rating_R != np.floor(self.rating_R)
        kind = "a whole rating" if whole else "a rating"
        self._refuse_first(
            bad_R, self.rating_R, "rating", f"{kind} from {lowest:g} to {highest:g}", "correct the line or the scale"
        )

    def check_times(self, unit: str = "auto") -> None:
        """Raises DataRefused for the first time outside 1990 to 2100.

        Args:
            unit: "s", "ms", or "auto": the one in which the first row makes sense.
        """
        scale = MILLISECONDS if unit == "ms" or (unit == "auto" and self._first_is_milliseconds()) else 1
        early, late = EARLIEST_SECOND * scale, LATEST_SECOND * scale
        name = "milliseconds" if scale == MILLISECONDS else "seconds"
        self._refuse_first(
            (self.time_R < early) | (self.time_R > late),
            self.time_R,
            "time",
            f"{name} since 1970, from {early} (year 1990) to {late} (year 2100)",
            "correct the line, or name the time's unit if all of them are in another",
        )

    def _first_is_milliseconds(self) -> bool:
        return len(self.time_R) > 0 and bool(self.time_R[0] >= EARLIEST_SECOND * MILLISECONDS)


def named(values: Iterable[object]) -> str:
    """Values in one line: 'a', 'b', 'c'."""
    return ", ".join(repr(value) for value in values)


def first_line_of(file: Path) -> str:
    """The first line of a text file, which may be packed.

    Raises:
        DataRefused: it cannot be unpacked, or is no UTF-8 text.
    """
    try:
        with pa.input_stream(str(file)) as stream:
            raw = stream.read(1 << 16)
    except OSError as error:
        raise refusal(
            file, None, f"what cannot be unpacked ({error})", "text or Parquet", "download it again"
        ) from None
    line = raw.split(b"\n", 1)[0].removesuffix(b"\r")
    return decoded(file, 1, line)


def decoded(file: Path, line: int, raw: bytes) -> str:
    """One line as text.

    Raises:
        DataRefused: it is not UTF-8.
    """
    mend = "convert it to UTF-8, for example with iconv -t UTF-8"
    if b"\0" in raw or raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refusal(file, line, "UTF-16 or binary data", "UTF-8 text", mend)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        raise refusal(file, line, found, "UTF-8 text", mend) from None


def lines_of(stream: pa.NativeFile) -> Iterator[bytes]:
    """Lines without their newline; a newline at the very end begins no line."""
    rest = b""
    while block := stream.read(1 << 20):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def hashed_id(original: str) -> int:
    """The number that stands for an id which is none: the first 63 bits of its SHA-1, so the same in every import."""
    return int.from_bytes(hashlib.sha1(original.encode()).digest()[:8]) >> 1
