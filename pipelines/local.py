"""Run the night on this machine: `python -m pipelines.local NIGHT.json PID RUNNER WORKSPACE`, a child of the console.

RUNNER: subprocess (each step in this very environment) or docker (each in its image's container: docker_runner.py).

A process of its own, so that kfp's import and talk stay out of the console, and the whole tree can be ended at once;
it ends itself when the process PID, its parent, is gone.
Steps that ended are found in kfp's own cache under the run's folder: a resumed run goes on from the one that did not.
"""

from __future__ import annotations

import json
import signal
import sys
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

from components.end_with_parent import end_with_parent
from goalrank.errors import EXIT_TRY_AGAIN
from goalrank_platform import on_path

DOCKER = "docker"


def run_night(night_file: Path, runner: str, workspace: Path) -> None:
    """Run the pipeline with the parameters in ``night_file`` ({"parameters": {...}}).

    Raises:
        RuntimeError: a step failed; its outcome file says why.
    """
    from kfp import local

    from pipelines import docker_runner
    from pipelines.nightly import nightly

    parameters = json.loads(night_file.read_text(encoding="utf-8"))["parameters"]
    run = Path(parameters["run_uri"])
    local.init(
        runner=(
            docker_runner.docker_runner(workspace, parameters)
            if runner == DOCKER
            else local.SubprocessRunner(use_venv=False)
        ),
        pipeline_root=str(run / "artifacts"),
        raise_on_error=True,
        enable_caching=True,
        cache_root=str(run / "cache"),
    )
    # kfp warns of images whose names lack the word "python": here they are the names of this very environment.
    warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)
    nightly(**parameters)


def remove_containers(workspace: Path) -> None:
    """What a console that was killed leaves at work: containers are no children of this process."""
    from pipelines.docker_runner import remove_leftovers

    with suppress(Exception):  # whatever is wrong with the containers, this group must end
        remove_leftovers(workspace)


if __name__ == "__main__":
    on_path()
    night_file, parent, runner, workspace = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    end_with_parent(parent, partial(remove_containers, workspace) if runner == DOCKER else lambda: None)
    if runner == DOCKER:
        # A container is no child of this process: asked to end, it must end the step's itself.
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(EXIT_TRY_AGAIN))
    try:
        run_night(night_file, runner, workspace)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
