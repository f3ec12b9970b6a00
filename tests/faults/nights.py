"""Whole nights for the faults: the real command on one small simulated world, and ways to break what it stands on.

A workspace cannot be moved, so it is kept aside once its first night is over and put back, at its own place, for
whoever wants it untouched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults import registry_on_disk
from tests.pipeline.conftest import COMMAND, WORLD, flags, goalrank, run_night

__all__ = ["COMMAND", "flags", "goalrank", "run_night"]
"""Passed on to the tests of faults, beside what is made here."""

DAYS = 4
NIGHT_SECONDS = 1800
"""Longest a night may take; on two idle cores it is a minute and a half."""

HOSTILE_TITLE = '<script src="https://evil.example/x.js">alert({item})</script><img src=x onerror=alert(1)>"\'&'
"""Every item of the world is called so: whatever shows a title must not obey it."""

HOSTILE_COLUMN = "<img src=x onerror=alert(2)>"
"""What :meth:`Nights.break_next_day` calls the column `click`."""


@dataclass
class Nights:
    """A workspace with one promoted night."""

    workspace: Path
    kept: Path
    first: dict[str, Any]

    def restore(self) -> None:
        """Put the workspace back as it was after its first night."""
        shutil.rmtree(self.workspace)
        shutil.copytree(self.kept, self.workspace, symlinks=True)

    @property
    def next_date(self) -> str:
        """The day after the first night's; the world has not lived it yet."""
        from console.workspace import day_after

        return day_after(self.first["date"])

    def break_next_day(self) -> None:
        """Let the next day arrive with its column `click` renamed."""
        from goalrank import simulator

        logs = self.workspace / "logs"
        config = simulator.load_world(str(logs))
        assert config is not None
        simulator.write_days(config, simulator.day_number(config, self.next_date), 1, str(logs))
        (file,) = (logs / "impressions" / f"dt={self.next_date}").glob("*.parquet")
        table = pq.read_table(file, partitioning=None)
        named = [HOSTILE_COLUMN if name == "click" else name for name in table.column_names]
        pq.write_table(table.rename_columns(named), file)

    def outcomes(self, result: dict[str, Any]) -> dict[str, Any]:
        """Outcome documents of a night, by step, from the report that was published."""
        return json.loads(Path(result["report"]).with_suffix(".json").read_text())["outcomes"]

    def journal(self) -> list[dict[str, Any]]:
        """Every event of the journal of promotions."""
        return [json.loads(line) for line in (self.workspace / "journal/promotions.jsonl").read_text().splitlines()]

    @property
    def database(self) -> Path:
        """The workspace's own MLflow (tests/faults/registry_on_disk.py reads it)."""
        return self.workspace / "mlflow/mlflow.db"

    def champion(self) -> str | None:
        """The champion's version."""
        return registry_on_disk.alias(self.database, "goalrank-ranker", "champion")


def begin(folder: Path) -> Nights:
    """A world of hostile titles and its first night, promoted."""
    workspace = folder / "workspace"
    made = goalrank("simulate", "--workspace", str(workspace), "--days", str(DAYS), *WORLD)
    assert made.returncode == 0, made.stderr
    for file in sorted((workspace / "logs/items").glob("dt=*/*.parquet")):
        table = pq.read_table(file, partitioning=None)
        titles = [HOSTILE_TITLE.format(item=item) for item in table["item_id"].to_pylist()]
        place = table.column_names.index("title")
        pq.write_table(table.set_column(place, table.schema.field(place), pa.array(titles)), file)
    first = run_night(workspace, "--allow-bootstrap")
    assert (first["verdict"], first["exit_code"]) == ("promoted", 0), first["reason"]
    shutil.copytree(workspace, folder / "kept", symlinks=True)
    return Nights(workspace, folder / "kept", first)


def answer(said: str) -> dict[str, Any]:
    """The JSON object that a command ended its standard output with."""
    lines = said.strip().splitlines()
    assert lines, "nothing on standard output"
    return json.loads(lines[-1])


def resume(workspace: Path) -> dict[str, Any]:
    """Go on with the night that did not end."""
    done = goalrank("resume", "--workspace", str(workspace), "--json")
    assert done.stdout, f"nothing on standard output; standard error ends: {done.stderr[-2000:]}"
    result = answer(done.stdout)
    assert result["exit_code"] == done.returncode
    return result


@contextmanager
def away(file: Path) -> Iterator[None]:
    """A database that cannot be opened, by root neither: a folder stands in its place."""
    aside = file.with_name(f"{file.name}.away")
    file.rename(aside)
    file.mkdir()
    try:
        yield
    finally:
        file.rmdir()
        aside.rename(file)


def can_mount() -> bool:
    """May a process of ours have a file system of its own?"""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    # The very mount that is needed: a container may allow the name space and forbid what is done in it.
    mount = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]
    return subprocess.run([*mount, str(Path(__file__).parent)], capture_output=True, check=False).returncode == 0


def on_a_small_disk(workspace: Path, spare_bytes: int, *arguments: str) -> dict[str, Any]:
    """Run the command with its workspace on a disk of its own, with that much room; what it answered.

    What is on the disk afterwards, full as it is, becomes the workspace.
    """
    used = sum(-(-file.stat().st_size // 4096) * 4096 + 4096 for file in workspace.rglob("*"))
    after, before = workspace.with_name("full"), workspace.with_name("before")
    workspace.rename(before)
    workspace.mkdir()
    script = """
set -e
mount -t tmpfs -o size="$1" tmpfs "$2"
cp -a "$3/." "$2/"
shift 3
set +e
"$@"
code=$?
cp -a "$WORKSPACE/." "$AFTER/"
exit $code
"""
    after.mkdir()
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh"]
    places = [str(used + spare_bytes), str(workspace), str(before)]
    environment = os.environ | {"WORKSPACE": str(workspace), "AFTER": str(after)}
    done = subprocess.run(
        [*command, *places, *COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=NIGHT_SECONDS,
    )
    workspace.rmdir()
    after.rename(workspace)
    shutil.rmtree(before)
    assert done.stdout, f"nothing on standard output; standard error ends: {done.stderr[-2000:]}"
    result = answer(done.stdout)
    assert result["exit_code"] == done.returncode
    return result
