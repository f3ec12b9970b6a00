"""One process of a timed training, by torchrun or alone: -m benchmarks.scale_out_training INPUTS PRESET STEPS OUT.

The first process writes OUT/steps.json, seconds of each step and those it spent on what the processes say to each other
(waiting for the slower one among them), and the weights it ended with.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from goalrank.checkpoint import load_model
from goalrank.dataset import TrainingSet
from goalrank.execution import Execution
from goalrank.groups import read_groups
from goalrank.presets import preset
from goalrank.processes import Processes, joined
from goalrank.reward import RewardModel
from goalrank.train import train_ranker

SEED = 0


@dataclass(frozen=True)
class TimedProcesses(Processes):
    """The same, and how long each message took until it was answered."""

    said: list[float] = field(default_factory=list)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        begun = time.perf_counter()
        try:
            return super().sum(values)
        finally:
            self.said.append(time.perf_counter() - begun)


def main(inputs: Path, name: str, steps: int, out: Path) -> None:
    """Train, and write what it took."""
    torch.set_num_threads(1)
    reward = load_model(inputs / "reward")
    if not isinstance(reward, RewardModel):
        raise TypeError(f"{inputs / 'reward'} holds a {type(reward).__name__}, expected a reward model")
    with joined() as found:
        processes = TimedProcesses(found.rank, found.count, found.device)
        ticks, talk = [], []

        def ticked(*_: object) -> None:
            ticks.append(time.perf_counter())
            talk.append(sum(processes.said))

        trained = train_ranker(
            TrainingSet.load(inputs / "training_set"),
            read_groups(inputs / "groups"),
            reward,
            replace(preset(name), ranker_steps=steps),
            SEED,
            execution=Execution(processes),
            progress=ticked,
        )
        if processes.first:
            weights = {key: value.contiguous() for key, value in trained.ranker.state_dict().items()}
            save_file(weights, out / "ranker.safetensors")
            document = {
                "step_s": [after - before for before, after in zip(ticks, ticks[1:], strict=False)],
                "talk_s": [after - before for before, after in zip(talk, talk[1:], strict=False)],
                "parameters": sum(weight.numel() for weight in trained.ranker.parameters()),
            }
            (out / "steps.json").write_text(json.dumps(document), encoding="utf-8")
        processes.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
