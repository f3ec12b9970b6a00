"""Whole nights on a small simulated world: run once a session, looked at by many tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORLD = ["--users", "500", "--items", "200", "--requests-per-day", "1500"]

Nightly = Callable[..., dict[str, Any]]


def goalrank(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from goalrank_platform import main; main()", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=600,
    )


def run_night(workspace: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """One tiny night with --json; its last line of standard output, parsed, beside the process's own exit code."""
    flags = ["--workspace", str(workspace), "--preset", "tiny", "--json"]
    done = goalrank("nightly", *flags, *arguments, **environment)
    lines = done.stdout.strip().splitlines()
    assert lines, f"nothing on standard output; standard error ends: {done.stderr[-2000:]}"
    result = json.loads(lines[-1])
    assert result["exit_code"] == done.returncode
    return result


def outcomes(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Outcome documents of a night, by step."""
    return json.loads(Path(result["report"]).with_suffix(".json").read_text())["outcomes"]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose world has lived four days and seen no night."""
    folder = tmp_path_factory.mktemp("nights") / "workspace"
    made = goalrank("simulate", "--workspace", str(folder), "--days", "4", *WORLD)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def first_night(workspace: Path) -> dict[str, Any]:
    """The bootstrap: no champion yet."""
    return run_night(workspace)


@pytest.fixture(scope="session")
def second_night(workspace: Path, first_night: dict[str, Any]) -> dict[str, Any]:
    """The day after: the champion is re-scored."""
    return run_night(workspace)
