"""Every line is one row: a quote that is not closed would swallow the lines after it, and nobody would notice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from goalrank.errors import DataRefused
from goalrank.rating_files import lines_of, refusal

LINE_END = re.compile(r"\r\n|\r|\n")


class CountedLines:
    """A stream of bytes, as pyarrow reads one, that counts the lines that went through."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._ends = 0
        self._last = b""
        self.closed = False

    @property
    def lines(self) -> int:
        """So far, one that is not ended yet with them."""
        return self._ends + (self._last not in (b"", b"\n", b"\r"))

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        block = self._stream.read(None if size < 0 else size)
        if block:
            # CR LF is one end, also where the blocks part it.
            parted = self._last == b"\r" and block.startswith(b"\n")
            self._ends += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n") - parted
            self._last = block[-1:]
        return block

    def close(self) -> None:
        """Whoever opened the stream closes it."""
        self.closed = True


def closes_its_quotes(line: str, delimiter: str) -> bool:
    """Whether a line taken alone ends outside of quotes; a quote inside of a field that began without one is text."""
    at = 0
    while at < len(line):
        if line[at] == '"':
            at += 1
            while (quote := line.find('"', at)) >= 0 and line[quote + 1 : quote + 2] == '"':
                at = quote + 2
            if quote < 0:
                return False
            at = quote
        following = line.find(delimiter, at)
        if following < 0:
            return True
        at = following + 1
    return True


def unclosed(file: Path, delimiter: str) -> DataRefused | None:
    """The refusal of the first line that does not close its quotes; None if all do."""
    with pa.input_stream(str(file)) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if not closes_its_quotes(line, delimiter):
                return refusal_of_quote(file, number)
    return None


def refusal_of_quote(file: Path, line: int) -> DataRefused:
    """A line ends inside of quotes: a stray quote, or a value of several lines."""
    return refusal(
        file,
        line,
        "a quote that is not closed",
        "every quoted value to end on its line",
        'double a quote that belongs to the text and quote the whole ("5"" screen"), and take line breaks out',
    )


def cut_short(file: Path, error: OSError) -> DataRefused:
    """A packed file that ends too early, or is damaged."""
    return refusal(file, None, f"what cannot be unpacked ({error})", "a whole file", "pack or download it again")


def _lines(stream: pa.NativeFile) -> Iterator[str]:
    for raw in lines_of(stream):
        yield from LINE_END.split(raw.decode("utf-8", "replace").removesuffix("\r"))
