"""A child that nobody waits for any more ends itself, with all that it started."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable


def end_with_parent(parent: int, first: Callable[[], None] = lambda: None) -> None:
    """End this process once `parent` is no longer its parent: killed outright, that one can no longer see to it.

    A process that leads a group of its own takes the group with it. `first` is called before that and must not raise.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        first()
        end = os.killpg if os.getpgrp() == os.getpid() else os.kill
        end(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
