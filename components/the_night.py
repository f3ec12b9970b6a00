"""Which night a run is: its day and its folder, decided once, by its first step, and the same for all that follow.

A scheduler that starts every night with the very same parameters says `auto` for both. The folder is then named by the
run, and the day is the newest that is closed when the first step begins: kept in the folder, so that the step, tried
again after midnight, means the day it meant before.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from goalrank import naming
from goalrank.errors import UsageError

RUN_VARIABLE = "GOALRANK_RUN_ID"
"""In the environment of a step on a cluster: the orchestrator's id of the run (pipelines/cluster.py)."""

DECIDED = "date"
"""File in the run's folder: the day that `auto` means there."""


def folder_of(run_uri: str) -> str:
    """The run's own folder: `run_uri`, or where it ends with `auto`, a folder beside that named by the run.

    Raises:
        UsageError: `auto`, and nobody says which run this is.
    """
    place, _, last = run_uri.rpartition("/")
    if last != naming.AUTO:
        return run_uri
    run = os.environ.get(RUN_VARIABLE, "")
    if not run:
        raise UsageError(
            f"run_uri {run_uri} names its folder by the run, but {RUN_VARIABLE} is empty; expected Kubeflow Pipelines "
            "to label the pods of a run with pipeline/runid"
        )
    return f"{place}/{naming.require_name(RUN_VARIABLE, run)}"


def day_of(date: str, folder: str) -> str:
    """The arrival day that is meant: a day, `before DAY`, or for `auto` the day before the first call's, in UTC.

    Arrival days are UTC's, so that day is closed wherever the scheduler's clock is.

    Args:
        date: as the run was given it.
        folder: the run's folder, where what `auto` means is kept.

    Raises:
        UsageError: it is none of these, or the folder holds something else.
    """
    if date != naming.AUTO:
        return naming.arrival_day("date", date)
    kept = decided(folder)
    if kept is None:
        _decide(Path(folder), newest_closed_day())
        kept = decided(folder)
    return naming.require_day(f"{DECIDED} of {folder}", kept)


def newest_closed_day() -> str:
    """The newest arrival day that is over: yesterday, in UTC."""
    return (_now() - timedelta(days=1)).date().isoformat()


def decided(folder: str) -> str | None:
    """The day that `auto` means in this run; None before its first step has said so."""
    try:
        return (Path(folder) / DECIDED).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _decide(folder: Path, day: str) -> None:
    """Keep the day, whole or not at all, unless another try of the step has just kept its own."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{DECIDED}.{uuid.uuid4().hex}"
    aside.write_text(f"{day}\n", encoding="utf-8")
    try:
        os.link(aside, folder / DECIDED)
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def _now() -> datetime:
    return datetime.now(UTC)
