"""The served logs' files, added up one pair after another, so that a look reads only what came since the look before.

The service writes a file of requests and one of their impressions under one name, and never touches them again
(components/serve_model/served_log.py). What is kept is a row a user (feedback.Sums), so the memory grows with users and
not with what they ask; and, of the last days, the ids that clients chose for their requests (seen_ids.py): of requests
with the same id the first to come counts, as it does for the night (console/collecting.py).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.watch_champion.feedback import Feedback, Split, Sums, nothing_yet
from components.watch_champion.seen_ids import SeenIds
from goalrank import schema
from goalrank.errors import DataRefused

COLUMNS = {
    "requests": ["request_id", "user_id", "event_time", "policy"],
    "impressions": ["request_id", "click", "like", "watch_seconds"],
}
LOOSE_USERS = 50_000
"""Rows that may lie about before they are added to the whole, which costs as much as there are users in it."""

Print = tuple[tuple[int, int, int], ...]
"""Of each file of a pair: what differs once it is another one."""


class Tally:
    """Feedback on requests of [since, until) by what has been served so far; one promotion's."""

    def __init__(self, served: Path, split: Split, since: datetime, until: datetime) -> None:
        """
        Args:
            served: folder of the served logs.
            split: whose users are compared.
            since, until: times of requests, UTC.
        """
        self.about = (served, split, since, until)
        self._added: dict[str, Print] = {}
        self._parts: list[Sums] = []
        self._ids = SeenIds()

    def feedback(self, now: datetime) -> Feedback:
        """Feedback on requests before `now`, too, as far as it is in.

        Raises:
            DataRefused: a file cannot be read, lacks a column of the contract, or holds feedback that is not finite.
        """
        pairs = self._pairs()
        if any(name in pairs and pairs[name][1] != known for name, known in self._added.items()):
            self._added, self._parts, self._ids = {}, [], SeenIds()  # somebody rewrote a file (`goalrank erase-user`)
        ahead = []
        for name, (files, found) in sorted(pairs.items()):
            if name in self._added:
                continue
            rows = self._rows(*files)
            if rows is None:
                continue
            rows = rows.filter(pa.array(~self._ids.repeated(rows["request_id"])))
            in_time = rows.filter(pc.less(rows["event_time"], pa.scalar(now, schema.TIMESTAMP)))
            sums = [Sums.of(in_time, self.about[1])] if in_time.num_rows else []
            if in_time.num_rows < rows.num_rows:
                ahead += sums  # some by a clock that runs ahead: the pair is read again by the next look
            else:
                self._added[name] = found
                self._ids.add(files[0].parent.name.removeprefix("dt="), rows["request_id"])
                self._add(sums)
        if len(self._parts) > 1:
            self._parts = [Sums.together(self._parts)]
        parts = self._parts + ahead
        return Sums.together(parts).feedback() if parts else nothing_yet()

    def _add(self, sums: list[Sums]) -> None:
        """Take sums in. The first part is the whole so far: the others join it before they outgrow it."""
        self._parts += sums
        sizes = [len(part) for part in self._parts]
        if sum(sizes[1:]) > max([LOOSE_USERS, *sizes[:1]]):
            self._parts = [Sums.together(self._parts)]

    def _pairs(self) -> dict[str, tuple[tuple[Path, Path], Print]]:
        """Both files of each name, of the day of `since` or later: nothing before it can be of a request after it."""
        served, _, since, _ = self.about
        first = f"dt={since.date().isoformat()}"
        found: dict[str, dict[str, Path]] = {table: {} for table in COLUMNS}
        for table, files in found.items():
            for folder in sorted((served / table).glob("dt=*")):
                if folder.name >= first:
                    files |= {file.name: file for file in folder.glob("*.parquet")}
        pairs = {}
        for name in found["requests"].keys() & found["impressions"].keys():
            pair = (found["requests"][name], found["impressions"][name])
            try:
                stats = [file.stat() for file in pair]
            except FileNotFoundError:
                continue  # taken away meanwhile
            pairs[name] = (pair, tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in stats))
        return pairs

    def _rows(self, requests_file: Path, impressions_file: Path) -> pa.Table | None:
        """Requests of [since, until) that have impressions, with their rewards; None if the pair is gone."""
        _, _, since, until = self.about
        requests, impressions = _read(requests_file, "requests"), _read(impressions_file, "impressions")
        if requests is None or impressions is None:
            return None
        inside = pc.and_(
            pc.greater_equal(requests["event_time"], pa.scalar(since, schema.TIMESTAMP)),
            pc.less(requests["event_time"], pa.scalar(until, schema.TIMESTAMP)),
        )
        rows = requests.filter(inside).join(_rewards(impressions), "request_id", join_type="inner")
        if wrong := int((~np.isfinite(rows["reward"].to_numpy())).sum()):
            raise DataRefused(
                f"{impressions_file}: the feedback on {wrong} of {rows.num_rows} requests is not finite; look at "
                "watch_seconds"
            )
        return rows


def _rewards(impressions: pa.Table) -> pa.Table:
    """(request_id, reward), a row a request (schema.RewardWeights)."""
    weights = schema.RewardWeights()
    minutes = pc.divide(pc.fill_null(impressions["watch_seconds"], 0.0), 60.0)
    reward = pc.add(
        pc.add(
            pc.multiply(pc.cast(impressions["click"], pa.float64()), weights.click),
            pc.multiply(pc.cast(impressions["like"], pa.float64()), weights.like),
        ),
        pc.multiply(minutes, weights.watch_minute),
    )
    table = pa.table({"request_id": impressions["request_id"], "reward": reward})
    return table.group_by("request_id").aggregate([("reward", "sum")]).rename_columns({"reward_sum": "reward"})


def _read(file: Path, table: str) -> pa.Table | None:
    """What counts of a file; None if it is gone."""
    columns = COLUMNS[table]
    wanted = pa.schema([schema.LOG_TABLES[table].field(name) for name in columns])
    try:
        # A plain file: its folder's name must not become a column.
        return pq.ParquetFile(file).read(columns=columns).select(columns).cast(wanted)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataRefused(f"{file} cannot be read as {table} ({error}); mend it or take it away") from error
