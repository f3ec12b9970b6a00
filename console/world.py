"""The simulated world of a workspace: life goes on one day further with each night."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from console.workspace import arrival_days, day_after
from goalrank.errors import UsageError

FIRST_NIGHT_DAYS = 8
"""Days lived before the first night: a week to learn from and one day to be judged on."""


FARTHEST_DAYS = 60
"""A --date farther ahead than this is taken for a typing error."""


def live_until(logs: Path, date: str | None, last_good: str | None, console: Console) -> None:
    """Write the days that the night of `date` (None: the next one) needs and the world has not lived yet."""
    from goalrank import simulator

    lived = len(arrival_days(logs))
    config = simulator.load_world(str(logs)) or simulator.WorldConfig()
    wanted = date or (day_after(last_good) if last_good else None)
    needed = simulator.day_number(config, wanted) + 1 if wanted else 0
    if needed > lived + FARTHEST_DAYS:
        raise UsageError(
            f"--date {wanted} is {needed - lived} days ahead of the simulated world, expected at most {FARTHEST_DAYS}"
        )
    if not lived:
        needed = max(needed, FIRST_NIGHT_DAYS)
    if needed <= lived:
        return
    console.print(f"Simulating {needed - lived} day(s) of feedback into {logs}", highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("days", total=needed - lived)
        simulator.write_days(
            config, lived, needed - lived, str(logs), lambda done, _total: bar.update(task, completed=done)
        )
