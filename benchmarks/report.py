"""How every benchmark speaks: progress on standard error, a table on standard output, one line of JSON at the end."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Claim = dict[str, Any]

TARGETS: dict[str, Callable[[float, float], bool]] = {
    "at most": lambda value, bound: value <= bound,
    "at least": lambda value, bound: value >= bound,
}


def claim(name: str, value: float, target: str, bound: float) -> Claim:
    """A claim as it is reported: `target` is "at most" or "at least"; a value that is NaN does not hold."""
    return {"name": name, "value": value, "target": f"{target} {bound:g}", "holds": TARGETS[target](value, bound)}


def positive(text: str) -> int:
    """A count on the command line, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} found, expected 1 or more")
    return value


def result_file(text: str) -> Path:
    """Where a result may be written, for argparse: its files are written at the end, and hours of work should not end
    with a path that never was one.

    Raises:
        argparse.ArgumentTypeError: no file of JSON can be written there; the command line ends with EXIT_USAGE.
    """
    file = Path(text)
    if file.suffix != ".json":  # tables and figures lie beside it under its name
        raise argparse.ArgumentTypeError(f"{text} found, expected a file whose name ends with .json")
    try:
        _require_writable(file)
    except OSError as error:  # a folder that may not be looked into, a name that is too long
        why = f"{error.strerror}: {error.filename}"
        raise argparse.ArgumentTypeError(f"{text} found, expected a file that can be reached ({why})") from error
    return file


def _require_writable(file: Path) -> None:
    """As far as can be seen without writing.

    Raises:
        argparse.ArgumentTypeError: it cannot be written.
        OSError: it cannot even be looked for.
    """
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {file} found, expected a file, or none yet")
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{file} found, but {folder} is a file, expected a folder")
    closed = next((place for place in (folder, file) if place.exists() and not os.access(place, os.W_OK)), None)
    if closed:
        raise argparse.ArgumentTypeError(f"{file} found, but {closed} may not be written; name another file")


def progress(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def run(
    name: str,
    rows_of: Callable[..., tuple[list[Row], list[Claim]]],
    description: str = "",
    argv: Sequence[str] | None = None,
    figure: Callable[[list[Row], Path], None] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    printed: Callable[[list[Row]], str] | None = None,
) -> dict[str, Any]:
    """Parse --quick and --json, measure, print, write; the document that was printed. What cannot be written after all,
    on a disk that has become full, has been printed by then.

    Args:
        name: of the benchmark, as in benchmarks/NAME.py.
        rows_of: given `quick` (and by name what else `options` says), the table's rows and the claims. A claim that
            does not hold is reported as such: the run is complete all the same.
        description: for --help.
        argv: the command line, sys.argv's without.
        figure: draws the rows into a PNG file, which is written beside the JSON file where one is given.
        options: further ones of the command line, by name what argparse is told of them.
        printed: makes the rows a text for people; :func:`table` of all of them without. JSON has every row either way.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="minutes on two cores")
    parser.add_argument("--json", type=result_file, metavar="FILE", help="write the result there too")
    for option, settings in (options or {}).items():
        parser.add_argument(f"--{option}", **settings)
    given = parser.parse_args(argv)
    begun = time.perf_counter()
    rows, claims = rows_of(given.quick, **{option: getattr(given, option) for option in options or {}})
    document = {
        "benchmark": name,
        "machine": machine(),
        "quick": given.quick,
        "seconds": round(time.perf_counter() - begun, 1),
        "rows": rows,
        "complete": True,
        "claims": claims,
    }
    print((printed or table)(rows))
    for made in claims:
        print(
            f"{'holds' if made['holds'] else 'DOES NOT HOLD'}: {made['name']}: {_cell(made['value'])}, {made['target']}"
        )
    written = finite(document)
    print(json.dumps(written, allow_nan=False), flush=True)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(written, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if figure:
            figure(rows, given.json.with_suffix(".png"))
    return document


def finite(value: Any) -> Any:
    """The same with null for every number that is not finite: JSON knows none. A claim of one does not hold."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, Any]:
    """Of the machine only what explains a timing."""
    return {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}


def table(rows: list[Row]) -> str:
    """Rows under their keys, columns aligned; a key that a row lacks stays empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def tables(rows: list[Row], without: Collection[str] = ()) -> str:
    """One table a part ("part" of the rows), each with the columns that its rows have; parts `without` are left out."""
    parts = [part for part in dict.fromkeys(row["part"] for row in rows) if part not in without]
    return "\n\n".join(table([row for row in rows if row["part"] == part]) for part in parts)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
