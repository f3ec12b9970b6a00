"""Run one night on this machine: decide the date, start the pipeline, show it, and say how it ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from components import registry
from components.extract_features import day_decisions, locations
from components.memory import PeakMemory
from components.publish_report.result import FAILED, read_outcomes, summarise, unfinished_step
from components.step import DONE, RESERVED_BYTES, give_back_reserve, keep_reserve
from console import world
from console.checkout import commit
from console.collecting import collect, said_of_repeats
from console.days import settled_until
from console.progress import NightView
from console.settings import Settings
from console.workspace import RUNNING, Night, Workspace, next_date
from goalrank.errors import EXIT_BUG, EXIT_TRY_AGAIN, UsageError
from pipelines import STEPS


def start(
    settings: Settings, logs: str | None, date: str | None, full_rebuild: bool, console: Console
) -> dict[str, Any]:
    """Run the night of `date`, or of the day after the last night that ended well.

    Raises:
        GoalRankError: refused before anything was started.
    """
    settings.require_training()
    settings.require_stores()
    _require_runner(settings)
    workspace = Workspace(settings.workspace)
    with workspace.one_at_a_time() as lock:
        source = workspace.logs(logs or settings.logs_uri or None)
        last_good, newest = workspace.last_good_date(), workspace.newest_night()
        decisions = day_decisions.read(locations.folder(settings.snapshots_uri))
        if date is not None:
            day_decisions.require_not_skipped(decisions, date)
        if settings.train_on_served and (left_out := said_of_repeats(collect(workspace, source))):
            console.print(left_out, highlight=False, soft_wrap=True)
        if source == workspace.simulated_logs:
            world.live_until(source, date, settled_until(last_good, decisions.skipped), console)
        chosen = date or next_date(source, last_good, newest.date if newest else None, decisions.skipped)
        workspace.record_logs(source)
        if not settings.allow_bootstrap and not registry.exists(settings.tracking_uri):
            console.print(
                "No champion yet: tonight's model will be judged but not promoted, unless started with "
                "--allow-bootstrap.",
                highlight=False,
            )
        night = workspace.new_night(chosen, _parameters(settings, source, full_rebuild))
        return _run(night, settings, lock, console)


def resume(settings: Settings, console: Console) -> dict[str, Any]:
    """Go on with the night started last, from the step that did not end.

    Raises:
        UsageError: that night was not interrupted, or there has been none.
    """
    settings.require_stores()
    _require_runner(settings)
    workspace = Workspace(settings.workspace)
    with workspace.one_at_a_time() as lock:
        workspace.logs()  # refuses a workspace that was moved
        night = workspace.newest_night()
        if night is None or night.verdict not in (RUNNING, FAILED):
            found = f"the last one ({night.date}) was {night.verdict}" if night else "there has been none"
            raise UsageError(
                f"no interrupted night found in {settings.workspace}: {found}; start one with `goalrank nightly`"
            )
        for name, outcome in read_outcomes(night.folder).items():
            if outcome["kind"] != DONE or name == "publish_report":
                (night.folder / "outcomes" / f"{name}.json").unlink()
        return _run(night, settings, lock, console)


def _require_runner(settings: Settings) -> None:
    """Can the steps be run as the settings say? UsageError where not."""
    if settings.runner == "docker":
        from pipelines.docker_runner import require_images

        require_images()


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
        "group_plan": settings.group_plan,
        "objective": settings.objective,
        "warm_start": settings.warm_start,
        "train_processes": settings.train_processes,
        "window_days": settings.window_days,
        "full_rebuild": full_rebuild,
        "allow_bootstrap": settings.allow_bootstrap,
        "off_policy": settings.off_policy,
        "latency_budget_ms": settings.latency_budget_ms,
        "size_budget_mb": settings.size_budget_mb,
        "commit": commit(),
        "spark_master": settings.spark_master,
        "spark_memory": settings.spark_memory,
    }


def _run(night: Night, settings: Settings, lock: int, console: Console) -> dict[str, Any]:
    begun = time.time()
    interrupted = False
    title = f"Night of {night.date}, preset {night.parameters['preset']}"
    memory = PeakMemory(os.getpid())
    keep_reserve(night.folder)
    view_of_night = NightView(night.folder / "progress.jsonl", STEPS, title, console)
    with view_of_night as view, _pipeline(night, settings, lock) as pipeline:
        try:
            while pipeline.poll() is None:
                view.poll()
                time.sleep(0.2)
        except KeyboardInterrupt:
            interrupted = True
    full = shutil.disk_usage(night.folder).free < RESERVED_BYTES
    give_back_reserve(night.folder)
    if not interrupted:
        _publish_in_its_place(night)
    result = _result(night, settings, pipeline.returncode, interrupted, full)
    peak = round(memory.stop())
    # Containers are no children of ours: what is measured then is the console and kfp alone.
    result |= {"peak_memory_mb": None if settings.runner == "docker" else peak, "seconds": _seconds(night, begun)}
    if not interrupted:
        night_result = {key: result[key] for key in ("exit_code", "reason", "model_version", "snapshot_id", "seconds")}
        replace(night, verdict=result["verdict"]).write(**night_result)
        _write_index(settings, console)
    return result


def _write_index(settings: Settings, console: Console) -> None:
    """The page of all nights; a night is not undone because its page could not be written."""
    try:
        from console.report.nights import write_index

        write_index(settings.workspace, settings.journal_uri)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the night has ended as it has ended
        said = f"The page of all nights was not written ({type(error).__name__}: {error}); goalrank report tries again."
        console.print(said, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _pipeline(night: Night, settings: Settings, lock: int) -> Iterator[subprocess.Popen[bytes]]:
    """The pipeline as a child in a process group of its own, ended with everything it started when we leave.

    It holds the workspace's lock too: should this process be killed, no other night starts before that one is gone.
    """
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "FEAST_USAGE": "False",
    }
    before = signal.signal(signal.SIGTERM, _interrupt)
    with open(night.folder / "pipeline.log", "ab") as log:
        pipeline = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipelines.local",
                str(night.folder / "night.json"),
                str(os.getpid()),
                settings.runner,
                str(settings.workspace),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            pass_fds=(lock,),
        )
    try:
        yield pipeline
    finally:
        try:
            if pipeline.poll() is None:
                os.killpg(pipeline.pid, signal.SIGTERM)
                pipeline.wait(10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass  # asked nicely, and once more by an impatient person: what is left is killed below
        with suppress(ProcessLookupError):
            os.killpg(pipeline.pid, signal.SIGKILL)
        pipeline.wait()
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _publish_in_its_place(night: Night) -> None:
    """Publish the report where the pipeline could not: its orchestrator was killed, or could not even log any more."""
    if "publish_report" not in read_outcomes(night.folder):
        command = [sys.executable, "-m", "components.publish_report.main", "--run-uri", str(night.folder)]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([*command, "--date", night.date, "--state", "FAILED"], capture_output=True, timeout=120)


def _result(night: Night, settings: Settings, returncode: int, interrupted: bool, full: bool) -> dict[str, Any]:
    result = summarise(night.folder)
    if interrupted:
        outcomes = read_outcomes(night.folder).items()
        told = [name for name, outcome in outcomes if outcome["exit_code"] == EXIT_TRY_AGAIN]  # ended in good order
        step = unfinished_step(night.folder) or (told or ["the next step"])[-1]
        reason = f"interrupted at {step}; `goalrank resume` goes on from there"
        result |= {"verdict": "failed", "exit_code": EXIT_TRY_AGAIN, "reason": reason}
    elif full and result["exit_code"] == EXIT_BUG:
        reason = f"the disk of {night.folder} is full; free some space, `goalrank resume` goes on from there"
        result |= {"verdict": "failed", "exit_code": EXIT_TRY_AGAIN, "reason": reason}
    elif returncode != 0 and result["exit_code"] == 0:
        so_far = f"{result['verdict']} ({result['reason']}), but then "
        reason = f"{so_far}the pipeline ended with status {returncode}; look at {night.folder / 'pipeline.log'}"
        result |= {"verdict": "failed", "exit_code": EXIT_BUG, "reason": reason}
    report = night.folder / "report.html"
    return result | {
        "date": night.date,
        "run_id": f"{night.date}/{night.folder.name}",
        "report": str(report) if report.exists() else None,
        "workspace": str(settings.workspace),
        "tracking_uri": night.parameters["tracking_uri"],
        "preset": night.parameters["preset"],
        "seed": night.parameters["seed"],
    }


def _seconds(night: Night, begun: float) -> dict[str, float]:
    """Where the wall time of this try went.

    tools: what Spark, Great Expectations, Feast, MLflow, torch and Java cost to import and start, and for each step an
    interpreter with kfp. orchestration: all else that is not a step's work: ours, and kfp's own between the steps.
    """
    outcomes = [outcome for outcome in read_outcomes(night.folder).values() if outcome["started_at"] >= begun]
    wall = time.time() - begun
    in_steps = sum(outcome["seconds"] for outcome in outcomes)
    tools = sum(seconds for outcome in outcomes for seconds in outcome["tool_seconds"].values())
    interpreters = sum(outcome["process_start_seconds"] for outcome in outcomes)
    return {
        "wall": round(wall, 1),
        "work": round(in_steps - tools, 1),
        "tools": round(tools + interpreters, 1),
        "orchestration": round(wall - in_steps - interpreters, 1),
    }
