"""train_ranker in a process that ends itself at one exact point: python -m tests.faults.killed_training DEATH FLAGS.

DEATH is JSON {"where": one of WHERE, "step": 1..., "signal": 9 or 15, "every": steps between checkpoints}. The
component and all below it are the real ones; only the call at which the signal is sent is wrapped. A signal a process
sends to itself arrives before that call returns, so the point is the same each time.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import components.train_ranker.main as component
from components.step import run_alone
from goalrank import checkpoint, presets, train

WHERE = (
    "in the step",  # gradients taken, weights not moved yet or just moved
    "half written",
    "written, not synced",
    "synced, not renamed",
    "renamed",
    "old one dropped",
    "model half written",
    "between weights and card",
    "nowhere",  # lives until the test kills it from outside
)


def wrap(owner: Any, name: str, before: Callable[..., None]) -> None:
    """Call `before` with the same arguments each time owner.name is called."""
    real = getattr(owner, name)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        before(*arguments, **keywords)
        return real(*arguments, **keywords)

    setattr(owner, name, wrapped)


def arm(where: str, step: int, signal: int) -> None:
    """Arrange for the signal to be sent at that point."""

    def die() -> None:
        os.kill(os.getpid(), signal)

    name = f"step-{step:010d}.checkpoint"
    state = {"writing": ""}
    if where == "in the step":
        steps_done = {"now": 0}
        wrap(train, "_train_step", lambda *arguments: steps_done.update(now=arguments[-1] + 1))
        wrap(train.nn.utils, "clip_grad_norm_", lambda *_, **__: die() if steps_done["now"] == step else None)
    elif where in ("half written", "model half written"):
        wanted = name if where == "half written" else checkpoint.WEIGHTS

        class Half:
            """A file of which half the content gets to the disk."""

            def __init__(self, file: Any) -> None:
                self.file = file

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            def __getattr__(self, attribute: str) -> Any:
                return getattr(self.file, attribute)

            def write(self, content: bytes) -> None:
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                die()
                self.file.write(content[len(content) // 2 :])

        def opened(path: Any, mode: str = "r", **keywords: Any) -> Any:
            file = builtins.open(path, mode, **keywords)  # noqa: SIM115 - the caller closes it
            return Half(file) if wanted in str(path) and "w" in mode else file

        checkpoint.open = opened  # type: ignore[attr-defined]
    elif where == "written, not synced":
        wrap(checkpoint, "_write_atomic", lambda path, _: state.update(writing=path.name))
        wrap(checkpoint.os, "fsync", lambda _: die() if state["writing"] == name else None)
    elif where == "synced, not renamed":
        wrap(checkpoint.os, "replace", lambda _, target: die() if target.name == name else None)
    elif where == "renamed":
        real = checkpoint.os.replace

        def renamed(source: Any, target: Any) -> None:
            real(source, target)
            if target.name == name:
                die()

        checkpoint.os.replace = renamed  # type: ignore[assignment]
    elif where == "old one dropped":
        wrap(checkpoint.Checkpoints, "_drop_asides", lambda found: die() if (found.directory / name).exists() else None)
    elif where == "between weights and card":
        wrap(checkpoint.os, "replace", lambda _, target: die() if target.name == checkpoint.CARD else None)
    elif where != "nowhere":
        raise ValueError(where)


if __name__ == "__main__":
    death = json.loads(sys.argv.pop(1))
    presets.PRESETS["tiny"] = replace(presets.PRESETS["tiny"], checkpoint_every=death["every"])
    arm(death["where"], death["step"], death["signal"])
    run_alone(component.run)
