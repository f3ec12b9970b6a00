"""What is wrong inside a list column, told row by row: one number a row, which a suite can judge as any other column.

Every function takes whole columns and loops over no row: a night's examples hold millions of candidates. An entry that
is null counts as wrong unless it may be; a list that is null has no number (NaN): the not-null checks name it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Values = np.ndarray
"""Entries of all lists in a row, float64, NaN for null; shape (entries,)."""


def reduced(lists: pa.ChunkedArray, how: str) -> np.ndarray:
    """Sum or mean of each row's list, NaN where it is null, empty or all null; shape (rows,)."""
    array = lists.combine_chunks()
    flat = pa.table({"row": pc.list_parent_indices(array), "value": pc.list_flatten(array)})
    grouped = flat.group_by("row").aggregate([("value", how)])
    values = np.full(len(array), np.nan)
    values[grouped["row"].to_numpy()] = grouped[f"value_{how}"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def wrong(lists: pa.ChunkedArray, is_right: Callable[[Values], np.ndarray], nullable: bool = False) -> np.ndarray:
    """How many entries of each row are not right; shape (rows,).

    Args:
        lists: a list column of numbers.
        is_right: entries (float64, NaN for null) -> bool; comparisons say no to NaN by themselves.
        nullable: null entries are right (NaN ones are not).
    """
    array = lists.combine_chunks()
    entries = pc.list_flatten(array)
    bad = ~is_right(entries.to_numpy(zero_copy_only=False).astype(np.float64))
    if nullable:
        bad &= pc.is_valid(entries).to_numpy(zero_copy_only=False)
    return _per_row(array, bad)


def repeated(lists: pa.ChunkedArray) -> np.ndarray:
    """How many entries of each row stand there already; shape (rows,). Nulls are no repeats of each other."""
    array = lists.combine_chunks()
    (key,), distinct = _keys(array)
    known = key[key >= 0]
    unique = pc.unique(pa.array(known)).to_numpy()
    counts = np.bincount(known // distinct, minlength=len(array)) - np.bincount(
        unique // distinct, minlength=len(array)
    )
    return _where_valid(array, counts)


def outside(lists: pa.ChunkedArray, among: pa.ChunkedArray) -> np.ndarray:
    """How many entries of each row's list are null or not in the row's list of `among`; shape (rows,).

    NaN also where the list of `among` is null.
    """
    array, allowed = lists.combine_chunks(), among.combine_chunks()
    (key, allowed_key), _ = _keys(array, allowed)
    found = pc.is_in(pa.array(key), value_set=pc.unique(pa.array(allowed_key))).to_numpy(zero_copy_only=False)
    return _where_valid(allowed, _per_row(array, ~found | (key < 0)))


def _keys(*arrays: pa.ListArray) -> tuple[list[np.ndarray], int]:
    """For each array one number an entry that stands for its (row, value), -1 for null; and how many values there are.

    The same in all arrays; number // values is the row.
    """
    flat = [pc.list_flatten(array) for array in arrays]
    encoded = pa.concat_arrays(flat).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    distinct = max(len(encoded.dictionary), 1)
    rows = np.concatenate([pc.list_parent_indices(array).to_numpy().astype(np.int64) for array in arrays])
    keys = np.where(codes < 0, -1, rows * distinct + codes)
    return np.split(keys, np.cumsum([len(entries) for entries in flat])[:-1]), distinct


def _per_row(array: pa.ListArray, flags: np.ndarray) -> np.ndarray:
    """How many entries of each row are flagged."""
    rows = pc.list_parent_indices(array).to_numpy()
    return _where_valid(array, np.bincount(rows[flags], minlength=len(array)))


def _where_valid(array: pa.ListArray, counts: np.ndarray) -> np.ndarray:
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), counts, np.nan)
