"""`goalrank import`: show progress, print what was made, say what to type next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

Importer = Callable[[Callable[[int, int, str], None]], dict[str, Any]]


def run_import(importer: Importer, out: Path, stderr: Console, stdout: Console, as_json: bool) -> None:
    """Run an importer under a progress bar and print its summary (of each candidate version where there are two)."""
    with Progress(console=stderr, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        summary = importer(
            lambda done, total, note: bar.update(task, completed=done, total=total, description=note or "importing")
        )
    if as_json:
        print(json.dumps(summary, default=str))
        return
    versions = {"": summary} if "sanity" in summary else summary
    for version, figures in versions.items():
        where = out / version
        _print_summary(figures, where, stdout)
        stdout.print(f"\nNext:\n  goalrank nightly --logs {where}", highlight=False, soft_wrap=True)


def _print_summary(summary: dict[str, Any], where: Path, stdout: Console) -> None:
    table = Table(title=f"Logs in {where}", title_justify="left", box=None, show_header=False, pad_edge=False)
    for name, value in summary.items():
        if isinstance(value, dict):
            for inner, figure in value.items():
                table.add_row(f"{name} {inner}".replace("_", " "), _plain(figure))
        elif not isinstance(value, list):
            table.add_row(name.replace("_", " "), _plain(value))
    stdout.print(table)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(figure)}" for name, figure in value.items())
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
