"""Where the platform's folders are, and the way in.

`components`, `pipelines`, `console` and `feature_repo` are an application, not a library: installed, they lie inside
this package and become importable only in processes that call :func:`on_path` (and in those it starts). In a checkout
they lie beside it. Either way no name like `components` is taken in anybody's site-packages.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def root() -> Path:
    """The folder that holds components/, pipelines/, console/ and feature_repo/."""
    here = Path(__file__).resolve().parent
    return here if (here / "console").is_dir() else here.parent


def on_path() -> None:
    """Make the platform's folders importable here and in child processes (kfp starts one for each step)."""
    folder = str(root())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    inherited = os.environ.get("PYTHONPATH", "")
    if folder not in inherited.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, inherited]))
    os.environ["PYTHONSAFEPATH"] = "1"  # `python -m` would look for `components` in whatever folder we were called from


def main() -> None:
    """The `goalrank` command.

    SIGTERM waits until the command can answer it: console.command lets it through and turns it into exit code 75.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    on_path()
    from console.main import app

    app(prog_name="goalrank")
