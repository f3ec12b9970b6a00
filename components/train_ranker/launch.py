"""train_ranker in several processes of this machine, by torchrun; in one, without it.

On several machines an operator starts torchrun; here the step does. One launch a try: torchrun's own restart in place
hangs once a process was killed, so the step ends and its next try goes on from the last checkpoint.
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
from goalrank.errors import DataRefused, ModelRefused, TryAgain, UsageError

STEP = "train_ranker"

HERE = "127.0.0.1"
"""Where the processes meet: else torchrun looks up the machine's own name, which a container often cannot resolve."""

RAISED = {error.kind: error for error in (UsageError, DataRefused, ModelRefused, TryAgain)}


def train(processes: int, **arguments: Any) -> None:
    """main.run(**arguments), in `processes` processes.

    Raises:
        UsageError: fewer than one process.
        GoalRankError: as main.run, by way of the outcome that the first process wrote.
        TryAgain: a process was killed; the next try goes on from the last checkpoint.
    """
    if processes < 1:
        raise UsageError(f"{processes} training processes found, expected 1 or more; mend GOALRANK_TRAIN_PROCESSES")
    if processes == 1:
        from components.train_ranker.main import run

        run(**arguments)
        return
    outcome = Path(arguments["run_uri"]) / "outcomes" / f"{STEP}.json"
    outcome.unlink(missing_ok=True)  # an earlier try's
    status = _torchrun(processes, arguments)
    if not outcome.exists():
        with Step(STEP, arguments["run_uri"]):
            raise TryAgain(
                f"the first of {processes} training processes is gone without a word (torchrun ended with status "
                f"{status}); the step's log may say why, the same command goes on from the last checkpoint"
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
