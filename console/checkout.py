"""Which commit the code that is run from here is of."""

from __future__ import annotations

import subprocess

from goalrank_platform import root

UNKNOWN = "unknown"


def commit() -> str:
    """Commit of this checkout, `...-dirty` with changes in it; UNKNOWN outside one, or without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        git = subprocess.run(command, cwd=root(), capture_output=True, text=True)
    except OSError:
        return UNKNOWN
    return git.stdout.strip() if git.returncode == 0 else UNKNOWN
