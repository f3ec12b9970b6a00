"""What to type next: a few lines on standard error after a result, ready to be copied."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console

DEFAULT = ".goalrank"

Steps = list[tuple[str, str]]
"""(what to type, what it does)"""


def suggest(console: Console, steps: Steps) -> None:
    """Print them."""
    if not steps:
        return
    console.print("\nNext:")
    for line, why in steps:
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False, style="cyan")
        console.print(f"      {why}", highlight=False, markup=False, style="dim")


def ours(command: str, workspace: Path | str | None = None) -> str:
    """`goalrank COMMAND` as it can be typed here, with --workspace where it is not the usual one."""
    usual = workspace is None or Path(workspace).resolve() == Path(DEFAULT).resolve()
    return f"{typed('goalrank')} {command}" + ("" if usual else f" --workspace {shlex.quote(str(workspace))}")


def typed(command: str) -> str:
    """The command as it can be typed here: its name if it is found, else its path beside this interpreter."""
    beside = Path(sys.executable).with_name(command)
    if shutil.which(command) == str(beside) or not beside.exists():
        return command
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))
