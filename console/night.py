"""Run one night on this machine: decide the date, start the pipeline, show it, and say how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from components.publish_report.result import read_outcomes, summarise, unfinished_step
from components.step import DONE
from console import world
from console.memory import PeakMemory
from console.progress import NightView
from console.settings import Settings
from console.workspace import RUNNING, Night, Workspace, next_date
from goalrank.errors import EXIT_BUG, EXIT_TRY_AGAIN, UsageError
from goalrank.presets import preset as find_preset
from goalrank_platform import root
from pipelines import STEPS


def start(
    settings: Settings, logs: str | None, date: str | None, full_rebuild: bool, console: Console
) -> dict[str, Any]:
    """Run the night of `date`, or of the day after the last night that ended well.

    Raises:
        GoalRankError: refused before anything was started.
    """
    find_preset(settings.preset)
    workspace = Workspace(settings.workspace)
    with workspace.one_at_a_time():
        source = workspace.claim_logs(logs or settings.logs_uri or None)
        if source == workspace.simulated_logs:
            world.live_until(source, date, workspace.last_good_date(), console)
        chosen = date or next_date(source, workspace.last_good_date())
        night = workspace.new_night(chosen, _parameters(settings, source, full_rebuild))
        return _run(night, console)


def resume(settings: Settings, console: Console) -> dict[str, Any]:
    """Go on with the newest night that was interrupted, from the step that did not end.

    Raises:
        UsageError: no night of this workspace is waiting to be resumed.
    """
    workspace = Workspace(settings.workspace)
    with workspace.one_at_a_time():
        waiting = [night for night in workspace.nights() if night.verdict in (RUNNING, "failed")]
        good = workspace.last_good_date() or ""
        waiting = [night for night in waiting if night.date > good]
        if not waiting:
            raise UsageError(f"no interrupted night found in {settings.workspace}; start one with `goalrank nightly`")
        night = waiting[-1]
        for name, outcome in read_outcomes(night.folder).items():
            if outcome["kind"] != DONE or name == "publish_report":
                (night.folder / "outcomes" / f"{name}.json").unlink()
        return _run(night, console)


def _parameters(settings: Settings, logs: Path, full_rebuild: bool) -> dict[str, object]:
    return {
        "logs_uri": str(logs),
        "snapshots_uri": settings.snapshots_uri,
        "feast_uri": settings.feast_uri,
        "tracking_uri": settings.tracking_uri,
        "journal_uri": settings.journal_uri,
        "world_uri": str(logs) if (logs / "world.json").exists() else "",
        "preset": settings.preset,
        "seed": settings.seed,
        "window_days": settings.window_days,
        "full_rebuild": full_rebuild,
        "allow_bootstrap": settings.allow_bootstrap,
        "commit": _commit(),
        "spark_master": settings.spark_master,
        "spark_memory": settings.spark_memory,
    }


def _commit() -> str:
    """Commit of the code that runs, `unknown` outside a checkout."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=root(), capture_output=True, text=True
    )
    return git.stdout.strip() if git.returncode == 0 else "unknown"


def _run(night: Night, console: Console) -> dict[str, Any]:
    begun = time.time()
    interrupted = False
    title = f"Night of {night.date}, preset {night.parameters['preset']}"
    with _pipeline(night) as pipeline, NightView(night.folder / "progress.jsonl", STEPS, title, console) as view:
        memory = PeakMemory(os.getpid())
        try:
            while pipeline.poll() is None:
                view.poll()
                time.sleep(0.2)
        except KeyboardInterrupt:
            interrupted = True
        peak = memory.stop()
    result = _result(night, pipeline.returncode, interrupted)
    result |= {"peak_memory_mb": round(peak), "seconds": _seconds(night, begun)}
    if not interrupted:
        night_result = {key: result[key] for key in ("exit_code", "reason", "model_version", "snapshot_id", "seconds")}
        Night(night.folder, night.date, result["verdict"], night.parameters).write(**night_result)
    return result


@contextmanager
def _pipeline(night: Night) -> Iterator[subprocess.Popen[bytes]]:
    """The pipeline as a child in a process group of its own, ended with everything it started when we leave."""
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "FEAST_USAGE": "False",
    }
    with open(night.folder / "pipeline.log", "ab") as log:
        pipeline = subprocess.Popen(
            [sys.executable, "-m", "pipelines.local", str(night.folder / "night.json")],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield pipeline
    finally:
        signal.signal(signal.SIGTERM, before)
        if pipeline.poll() is None:
            os.killpg(pipeline.pid, signal.SIGTERM)
            try:
                pipeline.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(pipeline.pid, signal.SIGKILL)
                pipeline.wait()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _result(night: Night, returncode: int, interrupted: bool) -> dict[str, Any]:
    result = summarise(night.folder)
    if interrupted:
        step = unfinished_step(night.folder) or "the next step"
        reason = f"interrupted at {step}; `goalrank resume` goes on from there"
        result |= {"verdict": "failed", "exit_code": EXIT_TRY_AGAIN, "reason": reason}
    elif returncode != 0 and result["exit_code"] == 0:
        reason = f"the pipeline ended with status {returncode}; look at {night.folder / 'pipeline.log'}"
        result |= {"verdict": "failed", "exit_code": EXIT_BUG, "reason": reason}
    report = night.folder / "report.html"
    return result | {
        "date": night.date,
        "run_id": f"{night.date}/{night.folder.name}",
        "report": str(report) if report.exists() else None,
        "workspace": str(Path(str(night.parameters["journal_uri"])).parent),
        "preset": night.parameters["preset"],
        "seed": night.parameters["seed"],
    }


def _seconds(night: Night, begun: float) -> dict[str, float]:
    """Where the wall time of this try went.

    tools: what Spark, Great Expectations, Feast, MLflow, torch and Java cost to import and start. orchestration:
    everything that is neither a step's work nor a tool's start: kfp, interpreters, artifacts passed on.
    """
    outcomes = [outcome for outcome in read_outcomes(night.folder).values() if outcome["started_at"] >= begun]
    wall = time.time() - begun
    in_steps = sum(outcome["seconds"] for outcome in outcomes)
    tools = sum(seconds for outcome in outcomes for seconds in outcome["tool_seconds"].values())
    return {
        "wall": round(wall, 1),
        "work": round(in_steps - tools, 1),
        "tools": round(tools, 1),
        "orchestration": round(wall - in_steps, 1),
    }
