"""Makes Feast's file offline store usable with list features: names for dask's pieces without pickling every list.

Dask names each piece of work by a hash of the data in it. For a column of lists that means pickling every list, about
forty times in one of Feast's point-in-time joins: 97% of the join's time. Here such an array is named by a random token
kept with the array itself, which is as unique and costs nothing. Results are the same (a test compares them); only
dask's chance to recognise two equal arrays as one is given up.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np


class _Tokens:
    """Random names of arrays, forgotten when the array's memory is."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[np.ndarray], str]] = {}

    def token(self, array: np.ndarray) -> tuple[Any, ...]:
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        reference, name = self._known.get(id(owner), (None, ""))
        if reference is None or reference() is not owner:
            name, key = uuid.uuid4().hex, id(owner)
            # Memory is reused: without the callback a new array could inherit the name of a dead one.
            self._known[key] = (weakref.ref(owner, partial(self._forget, key)), name)
        start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        return ("object-array", name, start, array.shape, array.strides)

    def _forget(self, key: int, gone: weakref.ref[np.ndarray]) -> None:
        if key in self._known and self._known[key][0] is gone:
            del self._known[key]


@contextmanager
def cheap_list_tokens() -> Iterator[None]:
    """While inside, dask does not read arrays of Python objects in order to name them."""
    from dask.tokenize import normalize_token

    usual = normalize_token.dispatch(np.ndarray)
    tokens = _Tokens()

    def normalize(array: np.ndarray) -> Any:
        return tokens.token(array) if array.dtype.hasobject and array.ndim else usual(array)

    normalize_token.register(np.ndarray, normalize)
    try:
        yield
    finally:
        normalize_token.register(np.ndarray, usual)
