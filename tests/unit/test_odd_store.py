"""A store that fails in ways nobody foresaw counts as away: a fallback, said once, and never a 500."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from components.serve_model import feature_rows
from components.serve_model.app import create_app
from components.serve_model.feature_rows import FeatureRows
from goalrank.features import UserRows
from tests.unit.instant_service import NobodyKnown, request, service


def raises(error: Exception) -> Callable[[pa.Table], pa.Table]:
    def fails(rows: pa.Table) -> pa.Table:
        raise error

    return fails


class Odd(NobodyKnown):
    """Rows as `odd` makes them."""

    odd: Callable[[pa.Table], object] | None = None

    def rows(self, entity: str, keys: Sequence[int]) -> pa.Table:
        found = super().rows(entity, keys)
        return found if self.odd is None else self.odd(found)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "odd",
    [
        raises(pa.ArrowInvalid("Float value 1.5 was truncated converting to int64")),
        raises(KeyError("clicks")),
        raises(TimeoutError()),
        raises(ConnectionError("reset")),
        lambda rows: rows.drop_columns(rows.column_names[-1:]),
        lambda rows: rows.slice(0, 1) if rows.num_rows > 1 else rows.slice(1),
        lambda rows: None,
    ],
    ids=["arrow", "key", "timeout", "connection", "a column less", "one row", "nothing"],
)
def test_a_store_that_fails_in_any_way_is_away_and_comes_back(tmp_path, caplog, monkeypatch, odd):
    monkeypatch.setattr(feature_rows, "REST_SECONDS", 0.0)
    reader = Odd()
    served = service(tmp_path, reader=reader)
    with TestClient(create_app(served)) as client, caplog.at_level(logging.WARNING, "goalrank.serve"):
        assert client.post("/rank", json=request(1)).json()["fallback"] in (None, "unknown_user")
        reader.odd = odd
        # Whose rows are kept is answered as ever; the others in the batch get the retriever's order.
        for _ in range(3):
            answers = client.post("/rank", json=[request(1), request(2), request(50)]).json()
            assert [answer["fallback"] == "store_away" for answer in answers] == [False, True, True]
        assert len(caplog.records) == 1 and "answering without features" in caplog.text
        reader.odd = None
        answers = client.post("/rank", json=[request(2), request(50)]).json()
        assert all(answer["fallback"] != "store_away" for answer in answers)
        assert "answers again" in caplog.text


def test_rows_that_come_late_and_odd_are_not_kept():
    """The read that was waited for in vain ends with rows that cannot be encoded."""
    go = threading.Event()
    reader = Odd()

    def late(rows: pa.Table) -> pa.Table:
        go.wait(10)
        return rows.drop_columns(rows.column_names[-1:])

    now = [100.0]
    rows = FeatureRows(reader, read_seconds=0.05, clock=lambda: now[0])
    reader.odd = late
    assert rows.gather([1], [[5]]).away_B.all()
    go.set()
    reader.odd = None
    rows._pending[2].exception(10)
    now[0] += 1.0
    got = rows.gather([1], [[5]])
    assert not got.away_B.any() and isinstance(got.users, UserRows) and np.isfinite(got.items.dense_IF).all()
