"""`goalrank import`: show progress, print what was made, say what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from console.command import print_json
from console.next_steps import suggest, typed

Importer = Callable[[Callable[[int, int, str], None]], dict[str, Any]]


def run_import(importer: Importer, out: Path, stderr: Console, stdout: Console, as_json: bool) -> None:
    """Run an importer under a progress bar and print its summary (of each candidate version where there are two)."""
    with Progress(console=stderr, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        summary = importer(
            lambda done, total, note: bar.update(task, completed=done, total=total, description=note or "importing")
        )
    if as_json:
        print_json(summary)
        return
    versions = {"": summary} if "counts" in summary else summary  # both versions: one summary of each
    for version, figures in versions.items():
        where = out / version
        _print_summary(figures, where, stdout)
    where = out / next(iter(versions))
    line = f"{typed('goalrank')} nightly --logs {shlex.quote(str(where))} --workspace .imported --allow-bootstrap"
    suggest(stderr, [(line, "the first night on them, in a workspace of their own")])


def _print_summary(summary: dict[str, Any], where: Path, stdout: Console) -> None:
    counts, splits, days = summary["counts"], summary["splits"], summary["days"]
    stdout.print(
        f"{counts['ratings']:,} of {counts['ratings_read']:,} ratings kept: {counts['users']:,} users, "
        f"{counts['items']:,} items, {counts['requests']:,} requests on {days['count']} days "
        f"({days['first']} to {days['last']}) in {where}",
        highlight=False,
        soft_wrap=True,
    )
    stdout.print(", ".join(f"{name} {count:,}" for name, count in splits.items()), highlight=False)
    sanity = summary["sanity_on_test"]
    orders = {name: figures for name, figures in sanity.items() if isinstance(figures, dict)}
    table = Table("order of the test requests", *next(iter(orders.values())), box=None, pad_edge=False)
    for name, figures in orders.items():
        table.add_row(name.replace("_", " "), *(f"{value:.3f}" for value in figures.values()))
    stdout.print(table)
