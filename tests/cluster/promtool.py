"""Prometheus' own checker of rules, which comes with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests import lacking


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What it says of files in a folder; skips the test where it is missing."""
    if shutil.which("promtool") is None:
        lacking.skip("promtool is missing; it comes with Prometheus (Debian: apt-get install prometheus)")
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
