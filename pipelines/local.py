"""Run the night on this machine: `python -m pipelines.local NIGHT.json PID`, a child process of the console.

A process of its own, so that kfp's import and talk stay out of the console, and the whole tree can be ended at once;
it ends itself when the process PID, its parent, is gone.
Steps that ended are found in kfp's own cache under the run's folder: a resumed run goes on from the one that did not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from components.end_with_parent import end_with_parent
from goalrank_platform import on_path


def run_night(night_file: Path) -> None:
    """Run the pipeline with the parameters in ``night_file`` ({"parameters": {...}}).

    Raises:
        RuntimeError: a step failed; its outcome file says why.
    """
    from kfp import local

    from pipelines.nightly import nightly

    parameters = json.loads(night_file.read_text(encoding="utf-8"))["parameters"]
    run = Path(parameters["run_uri"])
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(run / "artifacts"),
        raise_on_error=True,
        enable_caching=True,
        cache_root=str(run / "cache"),
    )
    nightly(**parameters)


if __name__ == "__main__":
    on_path()
    end_with_parent(int(sys.argv[2]))
    try:
        run_night(Path(sys.argv[1]))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
