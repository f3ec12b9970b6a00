"""`goalrank` in a process that kills itself at the Nth thing it removes: python -m tests.faults.killed_command N ..."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goalrank_platform import main


def arm(number: int) -> None:
    """kill -9 at the Nth file, folder, version or run that goes or is replaced; of a folder a file may be gone."""
    from mlflow import MlflowClient

    done = {"removals": 0}

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            done["removals"] += 1
            if done["removals"] >= number:
                if real is removed_tree and Path(arguments[0]).exists():
                    for file in sorted(path for path in Path(arguments[0]).rglob("*") if path.is_file())[:1]:
                        file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        return wrapped

    removed_tree = shutil.rmtree
    shutil.rmtree = counted(removed_tree)  # type: ignore[assignment]
    os.rename, os.replace = counted(os.rename), counted(os.replace)
    for name in ("delete_model_version", "delete_logged_model", "delete_run"):
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))


if __name__ == "__main__":
    arm(int(sys.argv.pop(1)))
    main()
