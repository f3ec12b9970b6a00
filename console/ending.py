"""What is printed when a night has ended: one sentence, the figures, where the time went, what to type next."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import Console
from rich.table import Table

from console.next_steps import Steps, ours, suggest, typed
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
    suggest(console, _next_commands(result))


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


def _next_commands(result: dict[str, Any]) -> Steps:
    def command(words: str) -> str:
        return ours(words, result["workspace"])

    if result["exit_code"] == EXIT_DONE:
        return [
            (command("rank --example"), "one logged request, ranked by the champion"),
            (command("serve"), "answer ranking requests over HTTP"),
            (command("nightly"), "the next night"),
            (command("ui"), "nights, reports and a playground in your browser"),
            (f"{typed('mlflow')} ui --backend-store-uri {shlex.quote(result['tracking_uri'])}", "runs and versions"),
        ]
    if result["exit_code"] == EXIT_TRY_AGAIN:
        return [(command("resume"), "go on from the step that did not end")]
    commands = [(command("nightly"), "try the same date again, once the cause is mended")]
    if result["exit_code"] == EXIT_DATA_REFUSED:
        skip = command(f"day skip {result['date']} --reason TEXT")
        commands.append((skip, "or leave the day out, where it will never be mended"))
    return commands
