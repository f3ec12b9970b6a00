"""Tables of items and users beside the impressions: titles, topics, attributes. Small enough to be held whole."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from goalrank.impressions import values
from goalrank.impressions.columns import ITEM_ROLES, USER_ROLES, choose
from goalrank.impressions.header import delimiter_of, header_of
from goalrank.impressions.physical_lines import LINE_END, closes_its_quotes, cut_short, refusal_of_quote
from goalrank.rating_files import present, refusal


@dataclass(frozen=True)
class Item:
    """What is known of an item; ``created`` in microseconds since 1970."""

    title: str
    topics: tuple[str, ...]
    duration: float | None
    created: int | None


def read_items(file: Path, given: Mapping[str, tuple[str, ...]], time_zone: str) -> dict[str, Item]:
    """Items by id, the last row of each.

    Raises:
        UsageError: no column was recognised as the id.
        DataRefused: a row cannot be read; the message names the line.
    """
    chosen = choose(str(file), header_of(present(file, "a CSV of items")), given, ITEM_ROLES)
    items = {}
    for line, row in _rows(file):
        cell = {role: row[names[0]].strip() for role, names in chosen.items()}
        original = _id(file, line, "item", cell["item"])
        for role in {"duration", "created"} & cell.keys():
            cell[role] = values.optional(pa.array([cell[role]]))[0].as_py()
        duration = created = None
        if cell.get("duration"):
            (amount,), (bad,) = values.amounts(pa.array([cell["duration"]]))
            if bad:
                raise refusal(file, line, f"duration {cell['duration']!r}", values.SECONDS, "correct the line")
            duration = float(amount)
        if cell.get("created"):
            (time,), (bad,) = values.times(pa.array([cell["created"]]), time_zone)
            if bad:
                raise refusal(file, line, f"created {cell['created']!r}", values.TIME, "correct the line")
            created = int(time)
        topics = tuple(topic.strip() for topic in cell.get("topics", "").split("|") if topic.strip())
        items[original] = Item(cell.get("title") or original, topics, duration, created)
    return items


def read_users(file: Path, given: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Attributes, `name=value`, by user: every column but the id, where it is not empty.

    Raises:
        UsageError, DataRefused: as for :func:`read_items`.
    """
    (user,) = choose(str(file), header_of(present(file, "a CSV of users")), given, USER_ROLES)["user"]
    users = {}
    for line, row in _rows(file):
        original = _id(file, line, "user", row.pop(user).strip())
        users[original] = [f"{name}={value.strip()}" for name, value in row.items() if value.strip()]
    return users


def topic_numbers(items: Mapping[str, Item], earlier: Mapping[str, int]) -> dict[str, int]:
    """A number for each topic's name: as given earlier, then on, in the order in which the table names them."""
    numbers = dict(earlier)
    for item in items.values():
        for topic in item.topics:
            numbers.setdefault(topic, len(numbers))
    return numbers


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    names = header_of(file)
    rows = []
    try:
        with pa.input_stream(str(file)) as stream:
            text = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(file, None, f"byte {error.start} that is not UTF-8", "UTF-8 text", "convert it") from None
    except OSError as error:
        raise cut_short(file, error) from None
    delimiter = delimiter_of(file)
    for number, line in enumerate(LINE_END.split(text), start=1):
        if number == 1 or not line:
            continue
        if not closes_its_quotes(line, delimiter):
            raise refusal_of_quote(file, number)
        try:
            (fields,) = csv.reader([line], delimiter=delimiter, strict=True)
        except csv.Error as error:
            raise refusal(file, number, f"what is no CSV ({error})", "values, quoted whole", "correct it") from None
        if len(fields) != len(names):
            found = f"{len(fields)} field{'s' * (len(fields) != 1)}"
            raise refusal(file, number, found, f"{len(names)}, as in the header", "correct the line")
        rows.append((number, dict(zip(names, fields, strict=True))))
    return rows


def _id(file: Path, line: int, role: str, text: str) -> str:
    if not text:
        raise refusal(file, line, f"an empty {role}", "an id", "correct the line")
    return text
