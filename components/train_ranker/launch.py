"""train_ranker in one process, in several of this machine by torchrun, or on several machines by a TrainJob.

There Kubeflow Trainer starts torchrun (train_job.py), here the step does. One launch a try: torchrun's own restart in
place hangs once a process was killed, so the step ends and its next try goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import goalrank_platform
from components.step import DONE, Step
from components.train_ranker import train_job
from components.train_ranker.train_job_client import TrainJobs
from components.train_ranker.train_job_manifest import Machines
from goalrank.errors import DataRefused, GoalRankError, ModelRefused, TryAgain, UsageError

STEP = "train_ranker"

HERE = "127.0.0.1"
"""Where the processes meet: else torchrun looks up the machine's own name, which a container often cannot resolve."""

RAISED = {error.kind: error for error in (UsageError, DataRefused, ModelRefused, TryAgain)}


def train(processes: int, **arguments: Any) -> None:
    """main.run(**arguments), in `processes` processes: of this machine, or of each that the environment asks for.

    Raises:
        UsageError: fewer than one process.
        GoalRankError: as main.run, by way of the outcome that the first process wrote.
        TryAgain: a process was killed; the next try goes on from the last checkpoint.
    """
    if processes < 1:
        raise UsageError(f"{processes} training processes found, expected 1 or more; mend GOALRANK_TRAIN_PROCESSES")
    machines = Machines.of(os.environ, processes)
    if processes == 1 and machines is None:
        from components.train_ranker.main import run

        run(**arguments)
        return
    outcome = Path(arguments["run_uri"]) / "outcomes" / f"{STEP}.json"
    if machines is None:
        outcome.unlink(missing_ok=True)  # an earlier try's
        ended_as = f"torchrun ended with status {_torchrun(processes, arguments)}"
    else:
        try:
            ended_well = train_job.train(TrainJobs.from_account(), machines, arguments, outcome, print)
        except GoalRankError as error:
            with Step(STEP, arguments["run_uri"]):
                raise error
        ended_as = f"its TrainJob ended {'well' if ended_well else 'failed'}"
        if not ended_well and train_job.kind_of(outcome) == DONE:
            outcome.unlink()  # of a node lost at the very end: its ranker was not taken
    if not outcome.exists():
        with Step(STEP, arguments["run_uri"]):
            raise TryAgain(
                f"the first training process is gone without a word ({ended_as}); the log of the step or of the job's "
                "pods may say why, the same command goes on from the last checkpoint"
            )
    ended = json.loads(outcome.read_text(encoding="utf-8"))
    if ended["kind"] != DONE:
        raise RAISED.get(ended["kind"], RuntimeError)(ended["reason"])


def _torchrun(processes: int, arguments: dict[str, Any]) -> int:
    """Run it to its end; SIGTERM is passed on, so that the last step's checkpoint is written. Returns its status."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--local-addr", HERE]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HERE}:0", "-m", "components.train_ranker.main"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
    paths = [str(goalrank_platform.root()), os.environ.get("PYTHONPATH", "")]
    launch = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})

    def passed_on(number: int, frame: FrameType | None) -> None:
        launch.send_signal(number)

    before = signal.signal(signal.SIGTERM, passed_on)
    try:
        return launch.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        if launch.poll() is None:
            launch.kill()
            launch.wait()
