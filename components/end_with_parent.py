"""A child that nobody waits for any more ends itself, with all that it started."""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_parent(parent: int) -> None:
    """End this process once `parent` is no longer its parent: killed outright, that one can no longer see to it.

    A process that leads a group of its own takes the group with it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        end = os.killpg if os.getpgrp() == os.getpid() else os.kill
        end(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
