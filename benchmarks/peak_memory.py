"""Peak memory of one call, measured in a process of its own: what is resident at most, less what was before."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_megabytes(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> float | None:
    """How many MB (10^6 bytes) the call adds at its peak, in a fresh process; None where the kernel does not tell.

    Args:
        prepare: a function of a module, given `arguments` in the child, that returns the call to measure. Whatever it
            does itself (import, build, warm up) is not counted.
    """
    if not _CLEAR.exists():
        return None
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, prepare, arguments).result()


def _measured(prepare: Callable[..., Callable[[], Any]], arguments: tuple) -> float:
    call = prepare(*arguments)
    _CLEAR.write_text("5")  # sets the high-water mark back to what is resident now
    before = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - before) * 1024 / 1e6


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no line {name}, expected one on Linux")
    return int(found.group(1))
