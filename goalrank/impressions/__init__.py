"""Impressions of any service (a CSV, its own column names) as logs of the data contract.

    columns.py         which column is what
    header.py          the first line
    values.py          text as times, flags, amounts
    physical_lines.py  every line is one row
    reading.py         the file as a stream of checked rows
    spool.py           rows sorted into days
    lists.py           a day's rows put together as lists
    completion.py      candidates where the log has none
    candidate_texts.py a column of lists of items
    logged.py          candidates where it has them
    tables.py          items and users
    writing.py         the logs' partitions, import.json
    adding.py          more days for logs that are there

The file is read once; then one day after the other is put together and written. Memory holds about two days' rows, and
the distinct ids of users and items.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa

from goalrank.errors import DataRefused, UsageError
from goalrank.importing import Progress
from goalrank.impressions.adding import Earlier, added_to
from goalrank.impressions.columns import IMPRESSION_ROLES, ITEM_ROLES, JOIN, USER_ROLES, choose, parse_mapping
from goalrank.impressions.completion import Completion
from goalrank.impressions.header import header_of
from goalrank.impressions.lists import TORN, after_midnight, of_lists, put_together, without
from goalrank.impressions.logged import ADDED
from goalrank.impressions.reading import DAY, Ids, Reader
from goalrank.impressions.spool import Spool
from goalrank.impressions.tables import read_items, read_users
from goalrank.impressions.writing import LogsOfImpressions, day_text
from goalrank.logs_writer import refuse_occupied, written_aside
from goalrank.rating_files import present

__all__ = ["import_impressions"]

MOST_TORN = 0.1
"""Share of lists that may contradict themselves: more means that the request column does not tell lists apart."""

MOST_NOT_CANDIDATES = 0.5
"""Share of shown items that may be missing among the logged candidates: more means that the ids are not the items'."""

FEWEST_TO_JUDGE = 20
"""Below this many lists that share is chance."""

_EPOCH = date(1970, 1, 1)


def import_impressions(
    path: str,
    out: str | None,
    *,
    add: bool = False,
    mapping: Sequence[str] = (),
    items: str | None = None,
    items_mapping: Sequence[str] = (),
    users: str | None = None,
    users_mapping: Sequence[str] = (),
    policy: str = "imported",
    time_zone: str = "UTC",
    since: date | None = None,
    until: date | None = None,
    max_bad_rows: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Turn a file of impressions into logs.

    Args:
        path: CSV, TSV, semicolons or bars, with a header; gzip and the like are read through. One row for each item
            shown.
        out: the logs' folder, empty or not there yet; None reads and checks everything and keeps nothing.
        add: ``out`` holds logs of an earlier import, and gets the days after its newest one.
        mapping: ROLE=COLUMN (columns.IMPRESSION_ROLES) where a column is not recognised by its name.
        items, items_mapping: a table of items (columns.ITEM_ROLES).
        users, users_mapping: a table of users; all columns but the id are attributes.
        policy: who ranked, where no column says it.
        time_zone: of times that name none.
        since, until: days (UTC) outside of these are left out.
        max_bad_rows: how many rows that cannot be read are left out, with their lists; one more and all is refused.
        seed: of the candidates that are drawn where the log names none.
        progress: called with done, total and a note.

    Returns:
        What OUT/import.json holds.

    Raises:
        UsageError: ``out`` is occupied, or a column or an argument makes no sense.
        DataRefused: a file is missing or has rows that cannot be read; nothing is written.
    """
    if out is not None and not add:
        refuse_occupied(out)
    earlier = Earlier.read(Path(out)) if out is not None and add else Earlier()
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # the last for a region such as Europe, which is a folder
        raise UsageError(f"time zone {time_zone!r} found, expected a name such as UTC or Europe/Paris") from None
    if seed < 0:
        raise UsageError(f"seed {seed} found, expected a whole number from 0 up")
    file = present(Path(path), "a CSV of impressions")
    columns = choose(path, header_of(file), parse_mapping(mapping, IMPRESSION_ROLES), IMPRESSION_ROLES)
    known_items = (
        read_items(Path(items), parse_mapping(items_mapping, ITEM_ROLES), time_zone) if items is not None else {}
    )
    known_users = read_users(Path(users), parse_mapping(users_mapping, USER_ROLES)) if users is not None else {}
    tell: Progress = progress or (lambda done, total, note: None)
    # Without `out` the days are put together all the same, since that is where lists prove torn.
    with _place(out, add) as aside:
        spool = Spool(aside / ".spool")
        reader = Reader(file, columns, time_zone, Ids(), Ids(earlier.items()))
        if earlier.last is not None:
            since = max(since or earlier.last, earlier.last)
        outside = _read(reader, spool, since, until, file.stat().st_size, tell)
        if reader.bad.counts.total() > max_bad_rows:
            left = sum(int((~of_lists(spool.read(day), reader.damaged)).sum()) for day in spool.days)
            raise reader.bad.refusal(max_bad_rows, can_be_left_out=2 * left > reader.rows)
        done = None if earlier.last is None else (earlier.last - _EPOCH).days
        if not reader.rows:
            raise DataRefused(
                f"{file}: a header and no row found, expected one row for each item shown; export it anew"
            )
        if not any(day != done for day in spool.days):
            after = f" after {earlier.last}, the newest day that is there" if earlier.last else ""
            if done in spool.rows:
                after += f" (of that day {spool.rows[done]} rows, but a day that is there never changes)"
            raise DataRefused(
                f"{file}: {reader.rows} rows found, none of them readable and of the days asked for{after}; "
                "expected some; look at --since, --until and at the times"
            )
        logs = LogsOfImpressions(aside, reader, known_items, known_users, policy, earlier)
        completion = Completion(logs.item_ids, seed, *earlier.shown_and_clicked(logs.item_ids))
        _write_days(logs, spool, completion, reader.damaged, done, tell)
        _refuse_torn(file, logs)
        _refuse_other_candidates(file, logs)
        shutil.rmtree(aside / ".spool")
        return logs.write_rest(
            {
                "seed": seed,
                "source": [Path(name) for name in (path, items, users) if name is not None],
                "columns": columns,
                "time_zone": time_zone,
                "outside_days": outside,
            }
        )


def _place(out: str | None, add: bool) -> AbstractContextManager[Path]:
    """The folder to write in: what becomes `out`, what is added to it, or one of which nothing is kept."""
    if out is None:
        return _looked_at()
    return added_to(Path(out)) if add else written_aside(out)


@contextmanager
def _looked_at() -> Iterator[Path]:
    with TemporaryDirectory(prefix="goalrank-import-") as folder:
        yield Path(folder)


def _refuse_torn(file: Path, logs: LogsOfImpressions) -> None:
    """Raises DataRefused where so many lists contradict themselves that they cannot be lists."""
    torn = {reason: logs.dropped[f"lists: {reason}"] for reason in TORN}
    total = sum(torn.values()) + logs.written["requests"]
    if total < FEWEST_TO_JUDGE or sum(torn.values()) <= MOST_TORN * total:
        return
    reason = max(torn, key=lambda name: torn[name])
    example = logs.examples[reason]
    column = JOIN.join(logs.columns["request"])
    raise DataRefused(
        f"{file}: {sum(torn.values())} of {total} lists contradict themselves, expected at most {MOST_TORN:.0%}; "
        f"list {example!r} (column {column}) has {reason}. Several lists seem to share one id: tell them apart by "
        f"more columns, for example --map request={column}{JOIN}{logs.columns['time'][0]}, or name another one"
    )


def _refuse_other_candidates(file: Path, logs: LogsOfImpressions) -> None:
    """Raises DataRefused where the logged candidates are not what was chosen from."""
    missing, shown = logs.noted[ADDED], logs.written["impressions"]
    if missing <= MOST_NOT_CANDIDATES * shown:
        return
    raise DataRefused(
        f"{file}: {missing} of {shown} shown items are not among the candidates in column "
        f"{logs.columns['candidates'][0]}, expected at most {MOST_NOT_CANDIDATES:.0%}. Write the ids there as in "
        f"column {logs.columns['item'][0]}, as JSON or parted by one of | ; , in all rows, or have candidates drawn "
        "with --map candidates="
    )


def _read(reader: Reader, spool: Spool, since: date | None, until: date | None, size: int, tell: Progress) -> int:
    """Fill the spool; returns how many rows lie outside of the days."""
    first, last = (None if day is None else (day - _EPOCH).days for day in (since, until))
    outside = 0
    for rows, read in reader.batches():
        tell(min(read, size), 2 * size, "reading")
        day_R = rows["time"].to_numpy() // DAY
        inside_R = np.ones(len(day_R), dtype=bool)
        if first is not None:
            inside_R &= day_R >= first
        if last is not None:
            inside_R &= day_R <= last
        outside += int((~inside_R).sum())
        spool.add(rows.filter(pa.array(inside_R)))
    spool.close()
    return outside


def _write_days(
    logs: LogsOfImpressions,
    spool: Spool,
    completion: Completion,
    damaged: Collection[str],
    done: int | None,
    tell: Progress,
) -> None:
    """Put day after day together; `done` is there already and only takes its rows, some of them from after midnight.

    `damaged`: lists that lost a row, of which nothing is taken.
    """
    days = spool.days
    rows = spool.read(days[0])
    for number, day in enumerate(days):
        tell(len(days) + number, 2 * len(days), day_text(day))
        following = spool.read(day + 1)
        late_R = after_midnight(rows, following)
        whole = pa.concat_tables([rows, following.filter(pa.array(late_R))]) if late_R.any() else rows
        if day == done:
            logs.leave_out_closed_day(day, without(whole, damaged, Counter()))
            logs.dropped["rows of a day that is there already"] += len(whole)
        else:
            whole = without(whole, damaged, logs.dropped)
            logs.write_day(day, put_together(whole, logs.dropped, logs.noted, logs.examples), completion)
        spool.remove(day)
        if number + 1 < len(days):
            rows = following.filter(pa.array(~late_R)) if days[number + 1] == day + 1 else spool.read(days[number + 1])
    tell(1, 1, "done")
