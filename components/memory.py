"""Peak memory of a whole process tree, the JVM of Spark included."""

from __future__ import annotations

import resource
import sys
import threading

import psutil


class PeakMemory:
    """Samples the tree below one process in a thread until :meth:`stop`.

    Proportional set size where the system tells it (shared pages counted once), resident set size elsewhere.
    """

    def __init__(self, pid: int, every_seconds: float = 1.0) -> None:
        self.peak_bytes = 0
        self._root = psutil.Process(pid)
        self._every = every_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            self.peak_bytes = max(self.peak_bytes, self._tree_bytes())

    def _tree_bytes(self) -> int:
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return 0
        return sum(_process_bytes(process) for process in tree)

    def stop(self) -> float:
        """The peak in MiB."""
        self._ended.set()
        self._thread.join()
        return self.peak_bytes / 2**20


def own_peak_bytes() -> int:
    """Most that this very process has held at once, shared pages included, since it was started: what the kernel noted,
    so it misses nothing between two samples."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _process_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.rss))
    except psutil.AccessDenied:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0
    except psutil.Error:  # it ended between the two calls
        return 0
