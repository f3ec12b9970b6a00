"""Counts of wrong list entries, against loops over rows in plain Python."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.check_features import lists

ROWS = 500
Rows = list[list[Any] | None]


def random_rows(seed: int, longest: int, values: int) -> Rows:
    """Lists with repeats, some of them empty or null, some entries null."""
    rng = np.random.default_rng(seed)

    def entry() -> int | None:
        return None if rng.random() < 0.1 else int(rng.integers(1, values))

    return [None if rng.random() < 0.1 else [entry() for _ in range(rng.integers(0, longest))] for _ in range(ROWS)]


def column(rows: Rows, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    """In several chunks, one of them a slice: offsets that do not start at 0."""
    kind = pa.list_(kind or pa.int64())
    padded = pa.array([[1, 2, 3], *rows[: ROWS // 2]], kind)
    return pa.chunked_array([padded.slice(1), pa.array(rows[ROWS // 2 :], kind)])


def assert_counts(found: np.ndarray, expected: list[int | None]) -> None:
    np.testing.assert_array_equal(found, [math.nan if count is None else count for count in expected])


@pytest.mark.parametrize("seed", range(5))
def test_entries_that_are_not_among_the_row_of_another_column(seed: int) -> None:
    slates, offered = random_rows(seed, 6, 40), random_rows(seed + 100, 30, 40)
    expected = [
        None if slate is None or among is None else sum(item is None or item not in among for item in slate)
        for slate, among in zip(slates, offered, strict=True)
    ]
    assert any(expected) and 0 in expected
    assert_counts(lists.outside(column(slates), among=column(offered)), expected)


@pytest.mark.parametrize("seed", range(5))
def test_entries_that_stand_there_already(seed: int) -> None:
    rows = random_rows(seed, 9, 12)
    known = [None if row is None else [item for item in row if item is not None] for row in rows]
    expected = [None if row is None else len(row) - len(set(row)) for row in known]
    assert any(expected) and 0 in expected
    assert_counts(lists.repeated(column(rows)), expected)


@pytest.mark.parametrize(("nullable", "expected"), [(False, [2, 0, 0, None, 1]), (True, [1, 0, 0, None, 1])])
def test_entries_out_of_range(nullable: bool, expected: list[int | None]) -> None:
    rows = [[0.5, None, math.nan], [1.0], [], None, [0.0, 0.1]]
    found = lists.wrong(
        pa.chunked_array([pa.array(rows, pa.list_(pa.float64()))]), lambda share: (share > 0) & (share <= 1), nullable
    )
    assert_counts(found, expected)


def test_a_column_without_rows() -> None:
    nothing = pa.chunked_array([], pa.list_(pa.int64()))
    assert len(lists.outside(nothing, among=nothing)) == len(lists.repeated(nothing)) == 0
    assert len(lists.wrong(nothing, np.isfinite)) == 0


def test_two_million_candidates_take_seconds() -> None:
    rng = np.random.default_rng(0)
    requests, candidates, shown = 40_000, 50, 6
    offered = rng.integers(1, 100_000, (requests, candidates))
    chosen = np.sort(rng.random((requests, candidates)).argsort(axis=1)[:, :shown], axis=1)
    slate = np.take_along_axis(offered, chosen, axis=1)
    slate[::100, 0] = 100_001
    as_lists = [
        pa.chunked_array([pa.ListArray.from_arrays(np.arange(0, values.size + 1, values.shape[1]), values.ravel())])
        for values in (slate, offered)
    ]
    begun = time.process_time()
    found = lists.outside(as_lists[0], among=as_lists[1])
    assert lists.repeated(as_lists[1]).sum() > 0
    assert time.process_time() - begun < 10  # a loop over rows takes minutes
    assert found.sum() == requests / 100
