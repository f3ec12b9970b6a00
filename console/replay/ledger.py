"""What has been lived so far: WORKSPACE/replay.json, written whole after each night and each day.

WORKSPACE/
  replay.json              this file
  replay/logs/             the logs the replay learns from
  replay/days/<date>.parquet   a served day: what was shown, the true reward of each policy's lists
  replay/aside/            the right partitions of a day that arrived damaged
  replay/frozen/           the model of the first night that promoted
  replay/history.json, curve.png   the end
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.step import write_atomic
from goalrank.errors import UsageError

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """What makes a replay this one; another needs another workspace."""

    nights: int
    preset: str
    seed: int
    world: str
    """The world's configuration, as its JSON."""


@dataclass
class Ledger:
    """The replay of one workspace. `runs` are pipeline runs (a date may have two), `days` the served days."""

    path: Path
    plan: Plan
    frozen: dict[str, str] | None = None
    """version and model directory"""
    runs: list[dict[str, Any]] = field(default_factory=list)
    days: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, workspace: Path, plan: Plan) -> Ledger:
        """The ledger of this workspace, new if there is none.

        Raises:
            UsageError: the workspace holds another replay, or one of another release.
        """
        path = workspace / "replay.json"
        if not path.exists():
            return cls(path, plan)
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format", None) != FORMAT:
            raise UsageError(f"{path} is of another release; use another --workspace")
        found = Plan(**document.pop("plan"))
        if found != plan:
            wrong = [
                f"{name} {'another' if name == 'world' else getattr(found, name)}"
                for name in vars(plan)
                if getattr(found, name) != getattr(plan, name)
            ]
            raise UsageError(
                f"{path} holds a replay with {', '.join(wrong)}; type its own flags to go on with it, or use another "
                "--workspace"
            )
        return cls(path, plan, **document)

    def write(self) -> None:
        """Keep it, whole or not at all."""
        document = {"format": FORMAT, **asdict(self)}
        del document["path"]
        write_atomic(self.path, json.dumps(document, indent=1))

    def ran(self, night: int, date: str) -> dict[str, Any] | None:
        """The run of `date` in that night, None if it has not ended yet."""
        return next((run for run in self.runs if (run["night"], run["date"]) == (night, date)), None)
