"""The features' Spark job as the logs grow: `python -m benchmarks.features_scale [--quick] [--sizes 1,10]`.

Every row is one command in processes of its own: components/extract_features over a window of 30 arrival days, made in
full; the nights after it, each of one new day (and one that leaves the window); the same nights over a window of 7
days; and the same full job in DuckDB (benchmarks/features_duckdb.py), on all cores and half the machine's memory, whose
rows must be Spark's. Logs are made by benchmarks/feature_logs.py in a temporary folder, which is deleted.

`start_s` is what the interpreter, its imports and Spark's session (or DuckDB's connection) took, `job_s` the rest;
`cpu_s` is the processor time of all of it, `java_mb` and `python_mb` what was resident at most, `logs_mb` and `made_mb`
what was read and written on disk. Spark's driver has the night's default memory at every size.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import feature_logs
from benchmarks.feature_logs import LogSize
from benchmarks.features_scale_figure import draw
from benchmarks.process_tree import Cost, measured
from benchmarks.report import Claim, Row, claim, progress, run
from components.extract_features.snapshots import TABLES, Snapshot
from components.extract_features.version import code_version

WINDOW, SHORT_WINDOW = 30, 7
MEMORY = "1g"
"""Of Spark's driver: the night's default (components/extract_features/main.py)."""

PROMISED_AT = 50_000_000
"""Impressions at which the ratios are promised: with fewer, what every job costs whatever its size weighs more."""

OVER_FULL, OVER_DUCKDB = 10.0, 5.0
WINDOW_GROWTH = 1.25
"""Most that a night over 30 days may take, as a factor of a night over 7: the same but for what one run varies by."""

MEMORY_GROWTH = 1.25
"""Most that the full job's memory may grow from the fewest impressions to the most."""

BYTES_AN_IMPRESSION = 500
"""Disk asked for before a size is begun: logs, two sets of features (140 together, found at 1 M) and what spills."""

FULL, NIGHT, SHORT_NIGHT, RIVAL = "Spark, full", "Spark, night", f"Spark, night, window {SHORT_WINDOW}", "DuckDB, full"


@dataclass(frozen=True)
class Case:
    """`impressions` in the window, how many nights after it are timed (their median is shown), and whether they are
    timed over the short window too."""

    impressions: int
    nights: int = 3
    short: bool = True


SIZES = [Case(1_000_000), Case(10_000_000), Case(50_000_000)]
QUICK = [Case(100_000, nights=0, short=False), Case(300_000, nights=1, short=False)]


def cores() -> int:
    """What both sides get."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rows_for(case: Case, folder: Path) -> list[Row]:
    """The rows of one size; `folder` is empty and holds nothing afterwards."""
    needed, free = case.impressions * BYTES_AN_IMPRESSION, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{free / 1e9:.0f} GB free under {folder}, expected {needed / 1e9:.0f}; set TMPDIR elsewhere")
    size, days = LogSize(case.impressions // WINDOW), feature_logs.days(WINDOW + case.nights)
    logs = folder / "logs"
    for number, _ in enumerate(feature_logs.write_logs(logs, size, len(days))):
        progress(f"{case.impressions}: logs of day {number + 1} of {len(days)}")
    nights, last = days[WINDOW:], days[WINDOW - 1]

    rows = [_spark_row(case, FULL, [extracted(folder, logs, "long", last, WINDOW)])]
    rows[-1]["logs_mb"] = sum(_megabytes(logs, f"*/dt={day}/*") for day in days[:WINDOW])
    rows[-1]["made_mb"] = _megabytes(folder / "long", "data/**/*")
    out = folder / "duckdb"
    rows.append(_rival_row(case, folder, logs, out, days[0], last))
    rows[-1]["tables_that_differ"] = tables_that_differ(Snapshot.read(folder / "long", last), out)
    shutil.rmtree(out)
    if nights:
        rows.append(_spark_row(case, NIGHT, [extracted(folder, logs, "long", day, WINDOW) for day in nights]))
    if case.short:
        short_logs = _last_days_of(logs, folder / "short-logs", days[WINDOW - SHORT_WINDOW :])
        extracted(folder, short_logs, "short", last, SHORT_WINDOW)
        short = [extracted(folder, short_logs, "short", day, SHORT_WINDOW) for day in nights]
        rows.append(_spark_row(case, SHORT_NIGHT, short))
    for left in list(folder.iterdir()):
        shutil.rmtree(left)
    return rows


def _megabytes(folder: Path, pattern: str) -> float:
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file()) / 1e6


def _last_days_of(logs: Path, short: Path, days: Sequence[str]) -> Path:
    """The same logs as if they began later: links to `days`, and all that is known of items and users."""
    for table in logs.iterdir():
        (short / table.name).mkdir(parents=True)
        for partition in table.iterdir():
            if table.name in ("items", "users") or partition.name.removeprefix("dt=") in days:
                (short / table.name / partition.name).symlink_to(partition)
    return short


def extracted(
    folder: Path, logs: Path, snapshots: str, day: str, window: int, master: str = "", **variables: str
) -> tuple[Cost, dict[str, Any]]:
    """One extraction by the component's own command: what it cost, and the outcome it wrote."""
    progress(f"extract_features: {snapshots}, {day}")
    work = folder / "run"
    work.mkdir()
    arguments = {
        "logs-uri": str(logs),
        "snapshots-uri": str(folder / snapshots),
        "date": day,
        "full-rebuild": "false",
        "window-days": str(window),
        "snapshot": str(work / "snapshot.json"),
        "run-uri": str(work),
        "spark-master": master or f"local[{cores()}]",
        "spark-memory": MEMORY,
    }
    command = [sys.executable, "-m", "components.extract_features.main"]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    cost = measured(command, os.environ | {"SPARK_LOCAL_DIRS": str(work / "spark")} | variables, work)
    outcome = json.loads((work / "outcomes" / "extract_features.json").read_text(encoding="utf-8"))
    shutil.rmtree(work)
    return cost, outcome


def job_seconds(outcome: dict[str, Any]) -> float:
    """What the step took but for the start of Spark."""
    return outcome["seconds"] - outcome["tool_seconds"]["pyspark"]


def _spark_row(case: Case, job: str, runs: list[tuple[Cost, dict[str, Any]]]) -> Row:
    jobs = [job_seconds(outcome) for _, outcome in runs]
    read = statistics.median(outcome["figures"]["log_rows"]["impressions"] for _, outcome in runs)
    return _row(case, job, read, jobs, [cost for cost, _ in runs])


def _rival_row(case: Case, folder: Path, logs: Path, out: Path, first: str, last: str) -> Row:
    progress(f"{case.impressions}: DuckDB")
    memory = f"{psutil.virtual_memory().total // 2 // 1_000_000}MB"
    command = [sys.executable, "-m", "benchmarks.features_duckdb", str(logs), str(out), first, last]
    out.mkdir()
    cost = measured([*command, str(cores()), memory], os.environ, out)
    seconds = json.loads(cost.output)
    return _row(case, RIVAL, seconds.pop("impressions"), [sum(seconds.values()) - seconds["start"]], [cost])


def _row(case: Case, job: str, read: float, jobs: list[float], costs: list[Cost]) -> Row:
    took = statistics.median(jobs)
    return {
        "impressions": case.impressions,
        "job": job,
        "read": int(read),
        "start_s": statistics.median(cost.seconds - spent for cost, spent in zip(costs, jobs, strict=True)),
        "job_s": took,
        "rows_s": read / took,
        "cpu_s": statistics.median(cost.cpu_seconds for cost in costs),
        "java_mb": max(cost.kind_mb.get("java", 0.0) for cost in costs),
        "python_mb": max(cost.kind_mb.get("python", 0.0) for cost in costs),
        "peak_mb": max(cost.peak_mb for cost in costs),
    }


def tables_that_differ(snapshot: Snapshot, out: Path) -> int:
    """How many tables of how many days hold other rows in `out` than in the snapshot, by sums of their rows' hashes."""
    import duckdb

    differ = 0
    with duckdb.connect() as db:
        for day in snapshot.days:
            for table, columns in TABLES.items():
                ours = snapshot.examples_paths([day]) if table == "examples" else snapshot.view_paths(table, [day])
                row = ", ".join(f'"{name}"' for name in columns.names)
                query = f"SELECT count(*), sum(hash({row})::HUGEINT) FROM read_parquet(?)"
                theirs = [str(out / "days" / day / table / "part-00000.parquet")]
                differ += db.execute(query, [ours]).fetchall() != db.execute(query, [theirs]).fetchall()
    return differ


def claims_of(rows: list[Row]) -> list[Claim]:
    """What is claimed of the table; the ratios only of a size at which they are promised."""
    by = {(row["impressions"], row["job"]): row for row in rows}
    sizes = sorted({row["impressions"] for row in rows})
    claims = []
    for size in sizes:
        name, rival = f"{size / 1e6:g} M", by[size, RIVAL]
        claims.append(claim(f"{name}: tables that differ from DuckDB's", rival["tables_that_differ"], "at most", 0))
        if (size, NIGHT) not in by:
            continue
        night = by[size, NIGHT]["job_s"]
        if (size, SHORT_NIGHT) in by:
            growth = night / by[size, SHORT_NIGHT]["job_s"]
            growth_name = f"{name}: a night over {WINDOW} days over one over {SHORT_WINDOW}"
            claims.append(claim(growth_name, growth, "at most", WINDOW_GROWTH))
        if size >= PROMISED_AT:
            for job, promised in ((FULL, OVER_FULL), (RIVAL, OVER_DUCKDB)):
                claims.append(
                    claim(f"{name}: {job} over a night", by[size, job]["job_s"] / night, "at least", promised)
                )
    if len(sizes) > 1:
        growth = by[sizes[-1], FULL]["peak_mb"] / by[sizes[0], FULL]["peak_mb"]
        name = f"memory of the full job, {sizes[-1] / 1e6:g} M over {sizes[0] / 1e6:g} M"
        claims.append(claim(name, growth, "at most", MEMORY_GROWTH))
    return claims


def rows_of(quick: bool, sizes: str = "", keep: Path | None = None) -> tuple[list[Row], list[Claim]]:
    """The table and its claims.

    Args:
        sizes: millions of impressions, by commas; empty for the usual ones.
        keep: a folder in which each size's rows are kept as they are made, and taken from where they are there.
    """
    cases = QUICK if quick else SIZES
    if sizes:
        cases = [replace(cases[-1], impressions=round(float(text) * 1e6)) for text in sizes.split(",")]
    rows = []
    for case in cases:
        rows += _kept(case, keep)
    return rows, claims_of(rows)


def _kept(case: Case, keep: Path | None) -> list[Row]:
    file = keep / f"{case.impressions}-{case.nights}-{code_version()}.json" if keep else None
    if file and file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_for(case, Path(folder))
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows), encoding="utf-8")
    return rows


OPTIONS: dict[str, dict[str, Any]] = {
    "sizes": {"default": "", "metavar": "M,M,...", "help": "millions of impressions in the window"},
    "keep": {"type": Path, "metavar": "FOLDER", "help": "keep each size's rows there, and go on from those kept"},
}

if __name__ == "__main__":
    run("features_scale", rows_of, __doc__ or "", figure=draw, options=OPTIONS)
