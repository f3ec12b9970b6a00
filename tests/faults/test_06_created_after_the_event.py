"""6. A feature created after the event is not joined to it, however early it says its event was."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.feature_store import offline_rows, open_store
from goalrank import schema
from tests.components.test_materialize_features import DAYS, ITEMS, LAST, USERS, materialize
from tests.components.tiny_snapshot import feature_row, midnight, write_snapshot
from tests.faults.conftest import Seen

MARK = 777_777
"""No honest row has this value."""

VIEWS = [schema.USER_STATS, schema.ITEM_STATS]


@pytest.mark.parametrize("late_by", [timedelta(microseconds=1), timedelta(hours=5)], ids=["a microsecond", "hours"])
def test_a_backfilled_feature_stays_out_of_earlier_requests(tmp_path: Path, seen: Seen, late_by: timedelta) -> None:
    """Two rows, written after the fact, claim the midnight before the request's day; their creation betrays them."""
    extra, skip = {}, {}
    day, created = "2026-01-03", midnight(LAST) + late_by
    for view in VIEWS:
        count = view.features[0].name
        row = feature_row(view, 1, day, seed=9) | {count: MARK, "event_timestamp": midnight(LAST)}
        extra[view.name, day] = [row | {"created_timestamp": created}]
        skip[view.name, day] = {1}
    artifact = write_snapshot(tmp_path / "snapshots", LAST, DAYS, USERS, ITEMS, 200, extra=extra, skip=skip)
    training_set = materialize(tmp_path, artifact)
    store = open_store(str(tmp_path / "feast"))
    for view, file in zip(VIEWS, ("users", "items"), strict=True):
        count = view.features[0].name
        rows = pq.read_table(training_set / f"{file}.parquet").to_pylist()
        mine = {row["as_of"]: row[count] for row in rows if row[view.entity] == 1}
        assert midnight(LAST) in mine, "no request of that day has this entity: the test shows nothing"
        assert MARK not in mine.values()
        assert mine[midnight(LAST)] is not None, "the row before it is joined instead"
        for moment, expected in ((created - timedelta(microseconds=1), False), (created, True)):
            known = offline_rows(store, view.entity, [1], moment)[count].to_pylist()
            assert (known == [MARK]) is expected, moment
    seen(
        f"user and item features dated before a request's midnight, created {late_by} after it",
        "not in its training row, in neither view; joined from their creation on",
    )
