"""One night's extraction with a Spark session at hand: digest the days, make their rows, write and commit them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.extract_features import day_decisions, erasures, locations, store, version
from components.extract_features.log_partitions import LogPartitions, incomplete_days
from components.extract_features.plan import Plan, plan
from components.extract_features.snapshots import FORMAT, Snapshot
from components.step import Step
from goalrank import schema
from goalrank.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PARTS = ("digest", "advance", "write", "commit")

SHUFFLE_PARTITIONS, IMPRESSIONS_A_PARTITION = 4, 2_000_000
"""Tasks a shuffle is split into: at least so many, and one more for so many impressions. A few are best for small days;
what one task sorts must not grow with the logs, since memory does not."""


def extract(
    step: Step,
    session: Callable[[int], AbstractContextManager[SparkSession]],
    logs_uri: str,
    snapshots_uri: str,
    date: str,
    full_rebuild: bool,
    window_days: int,
) -> Snapshot:
    """Commit the snapshot of `date`; `session` is called with the bytes to read once the days are known to be there.

    Raises:
        DataRefused, UsageError, TryAgain: as main.run says.
    """
    locations.day(date)
    if window_days < 1:
        raise UsageError(f"window_days {window_days} found, expected at least 1")
    logs, root = LogPartitions(locations.folder(logs_uri)), locations.folder(snapshots_uri)
    erased = erasures.read(root)
    code, config = version.code_version(), version.configuration(window_days, erased)
    with store.only_writer(root):
        planned = plan(root, date, full_rebuild, code, config)
        skipped = day_decisions.read(root).skipped
        first = locations.day_after(planned.previous.date) if planned.previous else None
        days = logs.arrival_days(first, date, skipped)
        with session(_bytes_to_read(logs, root, planned, first, date, skipped)) as spark:
            return Extraction(spark, logs, root, days, planned, code, config, step, skipped, erased).run(
                reuse=not full_rebuild
            )


def _bytes_to_read(
    logs: LogPartitions, root: Path, planned: Plan, first: str | None, date: str, skipped: Collection[str]
) -> int:
    """Of the logs of `first` to `date` and of the state before them."""
    read = [(table, logs.to_read(table, first, date, skipped)) for table in schema.LOG_TABLES]
    folders = [logs.logs / table / f"dt={day}" for table, days in read for day in days]
    if planned.previous:
        folders.append(root / planned.previous.manifest["state"])
    return locations.bytes_of(file for folder in folders for file in folder.rglob("*.parquet"))


class Extraction:
    """One night's extraction with a Spark session that is already there."""

    def __init__(
        self,
        spark: SparkSession,
        logs: LogPartitions,
        root: Path,
        days: list[str],
        planned: Plan,
        code: str,
        config: dict[str, Any],
        step: Step,
        skipped: Collection[str] = (),
        erased: Sequence[int] = (),
    ) -> None:
        self.spark, self.logs, self.root, self.days, self.plan, self.step = spark, logs, root, days, planned, step
        self.code, self.config, self.erased = code, config, erased
        self.before = planned.previous.manifest if planned.previous else None
        self.chain_first = self.before["chain"]["first"] if self.before else days[0]
        self.skipped = sorted(day for day in skipped if self.chain_first <= day <= days[-1])
        self.figures = step.figures
        self.figures.update(mode=planned.mode, days=[days[0], days[-1]], seconds={})

    def run(self, reuse: bool) -> Snapshot:
        """Digest, make, write and commit the days; with `reuse`, what is on disk under the same id is taken."""
        self.step.reason = f"{self.plan.mode}: {self.plan.reason}"
        with self._part("digest"):
            frames = self._frames()
            contents = self._contents(frames)
            chain = version.chained(
                self.before["chain"]["digest"] if self.before else version.EMPTY_CHAIN,
                [(day, content) for day, (content, _) in contents.items()],
            )
            snapshot_id = version.snapshot_id(chain, self.code, self.config)
            self.figures["snapshot_id"] = snapshot_id
        if reuse and (found := store.written_before(self.root, snapshot_id)):
            self.step.reason = f"reused: the snapshot of these very rows is complete on disk ({found.manifest['mode']})"
            self.figures.update(reused=True, rows=found.manifest["rows"])
            return store.commit_manifest(self.root, found.manifest)

        manifest = {
            "format": FORMAT,
            "date": self.days[-1],
            "snapshot_id": snapshot_id,
            "code_version": self.code,
            "config": self.config,
            "mode": self.plan.mode,
            "previous": self.before and {name: self.before[name] for name in ("date", "snapshot_id")},
            "chain": {"first": self.chain_first, "digest": chain},
            "skipped": self.skipped,
            "read": self.figures["read"],
        }
        writer = store.SnapshotWriter(self.root, snapshot_id)
        manifest.update(self._make(writer, frames, contents))
        with self._part("commit"):
            done = writer.commit(manifest)
        self.figures.update(reused=False, rows=manifest["rows"])
        return done

    def _frames(self) -> dict[str, Any]:
        """The log tables' new days as Spark frames; names in the figures what is read."""
        first = None if self.plan.previous is None else self.days[0]
        read = {table: self.logs.to_read(table, first, self.days[-1], self.skipped) for table in schema.LOG_TABLES}
        self.figures["read"] = [f"{table}/dt={day}" for table, days in read.items() for day in days]
        frames = {table: self.logs.read(self.spark, table, days, self.days[0]) for table, days in read.items()}
        return {table: erasures.without(frame, table, self.erased) for table, frame in frames.items()}

    def _contents(self, frames: dict[str, Any]) -> dict[str, tuple[str, dict[str, int]]]:
        from components.extract_features.content import day_contents

        contents = day_contents(frames, self.days)
        self.figures["log_rows"] = {table: sum(rows[table] for _, rows in contents.values()) for table in frames}
        return contents

    def _make(
        self, writer: store.SnapshotWriter, frames: dict[str, Any], contents: dict[str, tuple[str, dict[str, int]]]
    ) -> dict[str, Any]:
        """Write days, base and state; returns the manifest's entries about them."""
        from components.extract_features import advance as job
        from components.extract_features import window

        first, last = (locations.day(day) for day in (self.days[0], self.days[-1]))
        with self._part("advance"):
            impressions = self.figures["log_rows"]["impressions"]
            partitions = max(SHUFFLE_PARTITIONS, 1 + impressions // IMPRESSIONS_A_PARTITION)
            self.spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
            incomplete = incomplete_days(self.days, self.chain_first, self.skipped)
            made = job.advance(self._state(), frames, first, last, incomplete)
            self.figures.update(made.counts)
        with self._part("write"):
            tables = {f"state/{name}": (frame, [job.STATE_KEYS[name]]) for name, frame in made.state.items()}
            split = window.split(self.spark, self.root, self.before, self.days, made.tables, self.config["window_days"])
            tables.update(split.tables)
            writer.write(tables, impressions, len(self.days))
            made.release()
        return window.entries(writer, split, self.before, self.days, contents, self.figures)

    def _state(self) -> dict[str, Any]:
        from components.extract_features.advance import STATE, empty_state

        if self.before is None:
            return empty_state(self.spark)
        folder = self.root / self.before["state"]
        return {
            name: self.spark.read.schema(columns).parquet(locations.for_spark(folder / name))
            for name, columns in STATE.items()
        }

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self.step.progress(_PARTS.index(name), len(_PARTS), name)
        begun = time.perf_counter()
        yield
        self.figures["seconds"][name] = round(time.perf_counter() - begun, 2)
        self.step.progress(_PARTS.index(name) + 1, len(_PARTS), name)
