"""train_ranker on several machines: a TrainJob of Kubeflow Trainer (v2), whose nodes run our main.py by torchrun.

The step's pod does not train: it puts its inputs on the volume that all share, asks for the job, waits for its end, and
takes the ranker and the outcome from where the first process wrote them. A job that is over is deleted, and the step's
next try asks for another, which goes on from the checkpoints. Training that ends with an error ends its job well
(main.py): Kubernetes starts the container of a job that failed again, in place and for hours, refused training too.

An API server that does not answer, or a step that ends without a word, leaves a job behind. The next try finds it, and
takes it if it is the very same; where none comes, the job ends by itself (waited_for.py), and goes with its run.

What is asked for: train_job_manifest.py; who asks: train_job_client.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from components.train_ranker import waited_for
from components.train_ranker.train_job_client import TrainJobs
from components.train_ranker.train_job_manifest import Machines, manifest, name_of
from goalrank.errors import TryAgain

FOLDER = "train_job"
"""In the run's folder: the job's inputs and its ranker, while it is under way."""

INPUTS = ("training_set", "groups", "reward_model")


def train(
    jobs: TrainJobs,
    machines: Machines,
    arguments: dict[str, Any],
    outcome: Path,
    said: Callable[[str], None] = lambda _: None,
) -> bool:
    """Train on several machines; whether the job ended well, which it also does where the outcome says otherwise.

    Args:
        arguments: of main.run, its paths those of this pod; `run_uri` on the shared volume.
        outcome: where main.run writes how it ended; an earlier job's is removed.

    Raises:
        UsageError: the API server refuses the job.
        TryAgain: it is away, the job is gone or does not start. Or SIGTERM came: the job is deleted, whose processes
            then write a checkpoint of their last step.
    """
    waiting = Path(arguments["run_uri"]) / waited_for.FILE

    def still_here() -> None:
        waited_for.say(waiting)

    still_here()  # before anything that takes its time: a job of an earlier try may be listening
    inputs = {name: Path(arguments[name]) for name in INPUTS}
    folder = Path(arguments["run_uri"]) / FOLDER
    # Named by what is in them: a night submitted again must not train on what an earlier one left here.
    staged = folder / _digest(inputs)
    given = dict(arguments)
    for name, source in inputs.items():
        given[name] = str(_shared(source, staged / name))
    made = staged / "ranker"
    given["ranker"] = str(made)
    given["waited_for"] = str(waiting)
    job = manifest(name_of(arguments["run_uri"]), machines, given)
    name = job["metadata"]["name"]
    if machines.pod:
        job["metadata"]["ownerReferences"] = jobs.owners_of(machines.pod)

    def clear() -> None:
        """What jobs before this one left; with a job under way, all of it may be that one's."""
        outcome.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        for other in folder.iterdir():
            if other != staged:
                shutil.rmtree(other, ignore_errors=True)

    with _sigterm_raised():
        try:
            still_here()
            taken_over = jobs.ask(job, clear)
            ended_well = jobs.ended_well(name, said, still_here)
            if taken_over and not made.is_dir() and kind_of(outcome) in ("", TryAgain.kind):
                jobs.delete(name)  # it had ended before anybody came, for want of one perhaps
                jobs.ask(job, clear)
                ended_well = jobs.ended_well(name, said, still_here)
        except _Terminated as error:
            jobs.delete(name)
            raise TryAgain(
                f"SIGTERM came, TrainJob {name} was deleted; the next try goes on from its checkpoint"
            ) from (error)
    trained = ended_well and made.is_dir()
    if trained:
        shutil.copytree(made, arguments["ranker"], dirs_exist_ok=True)
    jobs.delete(name)  # not before: a step killed in between finds its job, over, and takes the ranker
    if trained:
        shutil.rmtree(folder)
        waiting.unlink(missing_ok=True)
    return ended_well


def kind_of(outcome: Path) -> str:
    """How the first process says it ended, "" where it says nothing."""
    return str(json.loads(outcome.read_text(encoding="utf-8"))["kind"]) if outcome.exists() else ""


class _Terminated(Exception):
    """SIGTERM came."""


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """While it lasts, the first SIGTERM is raised as an exception and any after it is ignored."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def raised(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, raised)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _digest(folders: Mapping[str, Path]) -> str:
    """Of every file's name and content in these folders."""
    whole = hashlib.sha256()
    for name, folder in folders.items():
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{name}/{path.relative_to(folder)} {content}\n".encode())
    return whole.hexdigest()[:16]


def _shared(source: Path, target: Path) -> Path:
    """A copy on the shared volume, whole or not at all."""
    if not target.exists():
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
        os.replace(aside, target)
    return target
