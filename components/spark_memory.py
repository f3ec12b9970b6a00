"""How much memory Spark is asked for, in its own words (`4g`, `512m`), and what a pod with a driver in it needs."""

from __future__ import annotations

import re

from goalrank.errors import UsageError

DEFAULT_MEMORY = "1g"

LEAST = 512
"""MiB: with less than 450 Spark refuses to start."""

OFF_HEAP = 0.1
"""Of the heap: what Java takes beside it, as Spark reckons for its own pods."""

_MEBIBYTES = {"m": 1, "mb": 1, "g": 1024, "gb": 1024}
_AMOUNT = re.compile(r"(\d{1,9})([mg]b?)", re.ASCII)


def mebibytes(name: str, amount: str) -> int:
    """What `amount` comes to in MiB; `name` is the variable it was given by.

    Raises:
        UsageError: no whole number of m or g, or less than Spark starts with.
    """
    match = _AMOUNT.fullmatch(amount.lower())
    found = int(match[1]) * _MEBIBYTES[match[2]] if match else 0
    if found < LEAST:
        raise UsageError(f"{name} {amount!r} found, expected a whole number of m or g from {LEAST}m, such as 4g")
    return found


def pod_memory(size: str, driver: str) -> str:
    """Memory of a pod whose `size` (in Gi) is for a driver of DEFAULT_MEMORY: larger by what another driver has more.

    Raises:
        UsageError: as :func:`mebibytes`.
    """
    known, found = (mebibytes("GOALRANK_SPARK_MEMORY", amount) for amount in (DEFAULT_MEMORY, driver))
    more = found - known
    return size if more <= 0 else f"{int(size.removesuffix('Gi')) * 1024 + round((1 + OFF_HEAP) * more)}Mi"
