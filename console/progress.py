"""The view of a night that runs: which step, how long each took, a bar within long steps.

On a terminal a live table on standard error; elsewhere (a log file, CI) plain lines, one when a step ends and one a
minute within a long one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

QUIET_SECONDS = 60.0


@dataclass
class StepView:
    """What is known of one step."""

    started: float | None = None
    seconds: float | None = None
    kind: str = ""
    done: int = 0
    total: int = 0
    note: str = ""


class NightView:
    """Follows progress.jsonl and shows it until told that the run ended."""

    def __init__(self, progress_file: Path, steps: tuple[str, ...], title: str, console: Console) -> None:
        self.steps = {name: StepView() for name in steps}
        self._file, self._offset = progress_file, 0
        self._title, self._console = title, console
        self._live = (
            Live(console=console, refresh_per_second=4, get_renderable=self._render) if console.is_terminal else None
        )
        self._last_line = time.monotonic()

    def __enter__(self) -> NightView:
        if self._live:
            self._live.start()
        else:
            self._console.print(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        self.poll()
        if self._live:
            self._live.stop()

    def poll(self) -> None:
        """Read what the steps have said since the last call."""
        if not self._file.exists():
            return
        with open(self._file, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # half a line: its writer is not done
                    break
                self._offset += len(line)
                try:
                    event = json.loads(line)
                except ValueError:  # two halves: a writer was killed in the middle, another went on
                    continue
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        step = self.steps.setdefault(event["step"], StepView())
        if event["event"] == "start":
            step.started, step.seconds, step.kind = event["time"], None, ""
        elif event["event"] == "progress":
            step.done, step.total, step.note = event["done"], event["total"], event.get("note", "")
        elif event["event"] == "end":
            step.seconds, step.kind = event["seconds"], event["kind"]
        if not self._live:
            self._say(event, step)

    def _say(self, event: dict[str, Any], step: StepView) -> None:
        now = time.monotonic()
        if event["event"] == "end":
            mark = "ok" if step.kind == "done" else step.kind.upper()
            self._print(f"{event['step']:<22}{step.seconds:7.1f} s  {mark}")
            self._last_line = now
        elif event["event"] == "progress" and now - self._last_line > QUIET_SECONDS:
            self._print(f"{event['step']:<22}{step.done}/{step.total} {step.note}")
            self._last_line = now

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 1))
        narrow = self._console.width < 60
        for name, step in self.steps.items():
            if step.kind == "done":
                mark, style = Text("✓", "green"), ""
            elif step.kind:
                mark, style = Text("✗", "red"), "red"
            elif step.started:
                mark, style = Text("▸", "cyan"), "bold"
            else:
                mark, style = Text("·", "dim"), "dim"
            running = step.started and step.seconds is None
            seconds = (time.time() - step.started) if running and step.started else step.seconds
            bar = ProgressBar(step.total, step.done, width=12 if narrow else 24) if running and step.total else ""
            time_text = f"{seconds:6.1f} s" if seconds is not None else ""
            row = [mark, Text(name, style), Text(time_text, "cyan"), bar]
            table.add_row(*row, "" if narrow else Text(step.note if running else "", "dim"))
        return Group(Text(self._title, "bold"), table)
