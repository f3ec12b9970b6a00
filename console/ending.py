"""What is printed when a night has ended: one sentence, the figures, where the time went, what to type next."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from goalrank.errors import EXIT_DATA_REFUSED, EXIT_DONE, EXIT_TRY_AGAIN

STYLES = {"promoted": "bold green", "kept": "bold green", "refused": "bold red", "failed": "bold red"}


def print_ending(result: dict[str, Any], console: Console) -> None:
    """Print the end of a night for a person."""
    style = STYLES[result["verdict"]]
    console.print(f"\n[{style}]{result['verdict'].capitalize()}.[/] ", end="")
    console.print(result["reason"], markup=False, highlight=False, soft_wrap=not console.is_terminal)
    _print_metrics(result, console)
    seconds = result["seconds"]
    beyond = 100 * seconds["orchestration"] / seconds["tools"] if seconds["tools"] else 0
    peak = result["peak_memory_mb"]
    memory = "" if peak is None else f"; peak memory {peak:,} MB"
    console.print(
        f"{seconds['wall']:.0f} s in all: {seconds['work']:.0f} s work, {seconds['tools']:.0f} s starting tools, "
        f"{seconds['orchestration']:.0f} s orchestration ({beyond:.0f}% beyond the tools' own starts){memory}",
        highlight=False,
    )
    if result["report"]:
        console.print(f"Report: {result['report']}", soft_wrap=True, highlight=False, markup=False)
    console.print("\nNext:")
    for line, why in _next_commands(result):
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False, style="cyan")
        console.print(f"      {why}", style="dim")


def _print_metrics(result: dict[str, Any], console: Console) -> None:
    challenger, champion = result["metrics"]["challenger"], result["metrics"]["champion"]
    if not challenger:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("challenger", justify="right")
    table.add_column("champion", justify="right")
    for name, value in challenger.items():
        other = (champion or {}).get(name)
        table.add_row(name, _figure(value), _figure(other))
    console.print(table)


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "–" if value is None else str(value)


def _next_commands(result: dict[str, Any]) -> list[tuple[str, str]]:
    ours = _typed("goalrank")
    default = result["workspace"] == str(Path(".goalrank").resolve())
    where = "" if default else f" --workspace {shlex.quote(result['workspace'])}"
    if result["exit_code"] == EXIT_DONE:
        return [
            (f"{ours} rank{where} --example", "one logged request, ranked by the champion"),
            (f"{ours} serve{where}", "answer ranking requests over HTTP"),
            (f"{ours} nightly{where}", "the next night"),
            (f"{_typed('mlflow')} ui --backend-store-uri {shlex.quote(result['tracking_uri'])}", "runs and versions"),
        ]
    if result["exit_code"] == EXIT_TRY_AGAIN:
        return [(f"{ours} resume{where}", "go on from the step that did not end")]
    commands = [(f"{ours} nightly{where}", "try the same date again, once the cause is mended")]
    if result["exit_code"] == EXIT_DATA_REFUSED:
        skip = f"{ours} day skip {result['date']} --reason TEXT{where}"
        commands.append((skip, "or leave the day out, where it will never be mended"))
    return commands


def _typed(command: str) -> str:
    """The command as it can be typed here: its name if it is found, else its path beside this interpreter."""
    beside = Path(sys.executable).with_name(command)
    if shutil.which(command) == str(beside) or not beside.exists():
        return command
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))
