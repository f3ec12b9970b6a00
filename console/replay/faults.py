"""What goes wrong on purpose in a replay, from outside: in the logs that arrive, or in the release that is installed.

    bad_data    the producer's retry wrote a tenth of the impressions twice and lost the user of some requests
                -> check_logs refuses (exit 3); the producer delivers the day again, and its date is tried again
    drifting    watch times arrive in milliseconds: in range, so check_logs passes
                -> the drift gate of check_features refuses (exit 3); delivered again in seconds, tried again
    broken      a bad release teaches the ranker the reward with its sign turned (bad_release.py)
                -> the challenger is finite and worse: the verdict refuses or keeps, the champion stays

A partition that a night has read is closed; one that was refused was never learnt from, so delivering it again breaks
no rule of the data contract.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

REPEATED_SHARE = 0.1
USER_LOST_EVERY = 40
MILLISECONDS = 1000.0


class Fault(StrEnum):
    """What is wrong with a night."""

    bad_data = "bad_data"
    drifting = "drifting"
    broken = "broken"


def schedule(nights: int) -> dict[int, Fault]:
    """Which nights (counted from 1) go wrong: one of each kind, spread evenly; the first never does."""
    placed: dict[int, Fault] = {}
    for number, fault in enumerate(Fault, start=1):
        night = 1 + number * nights // (len(Fault) + 1)
        if 1 < night <= nights and night not in placed:
            placed[night] = fault
    return placed


# --------------------------------------------------------------------------------------------------------------- logs


def damage(fault: Fault, logs: Path, date: str, aside: Path) -> None:
    """Put the damaged partitions of `date` in place; the right ones wait in `aside`. Done already: nothing happens."""
    for table, spoil in _SPOILT.get(fault, {}).items():
        partition, right = _places(logs, aside, table, date)
        if right.exists() and partition.exists():
            continue
        source = right if right.exists() else partition
        spoilt = partition.parent / f".spoilt.{partition.name}"
        shutil.rmtree(spoilt, ignore_errors=True)
        spoilt.mkdir()
        pq.write_table(spoil(pq.ParquetFile(next(source.glob("*.parquet"))).read()), spoilt / "part-00000.parquet")
        if source is partition:
            right.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partition, right)
        os.rename(spoilt, partition)


def deliver_again(logs: Path, date: str, aside: Path) -> bool:
    """Put what `damage` set aside back in its place; False if there was nothing."""
    tables = {table for spoilt in _SPOILT.values() for table in spoilt}
    mended = False
    for table in sorted(tables):
        partition, right = _places(logs, aside, table, date)
        if right.exists():
            shutil.rmtree(partition, ignore_errors=True)
            os.rename(right, partition)
            mended = True
    return mended


def _places(logs: Path, aside: Path, table: str, date: str) -> tuple[Path, Path]:
    return logs / table / f"dt={date}", aside / table / f"dt={date}"


def _some_twice(impressions: pa.Table) -> pa.Table:
    return pa.concat_tables([impressions, impressions.slice(0, int(REPEATED_SHARE * impressions.num_rows))])


def _users_lost(requests: pa.Table) -> pa.Table:
    lost = pa.array(np.arange(requests.num_rows) % USER_LOST_EVERY == 0)
    column = requests.schema.get_field_index("user_id")
    users = pc.if_else(lost, pa.scalar(None, pa.int64()), requests["user_id"])
    return requests.set_column(column, pa.field("user_id", pa.int64()), users)


def _in_milliseconds(impressions: pa.Table) -> pa.Table:
    column = impressions.schema.get_field_index("watch_seconds")
    return impressions.set_column(
        column, impressions.schema.field(column), pc.multiply(impressions["watch_seconds"], MILLISECONDS)
    )


_SPOILT: dict[Fault, dict[str, Callable[[pa.Table], pa.Table]]] = {
    Fault.bad_data: {"impressions": _some_twice, "requests": _users_lost},
    Fault.drifting: {"impressions": _in_milliseconds},
}


# ------------------------------------------------------------------------------------------------------------ release


@contextmanager
def bad_release(folder: Path) -> Iterator[None]:
    """Processes started meanwhile run the bad release."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("bad_release.py"), folder / "sitecustomize.py")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
