"""One of several training processes, started as torchrun starts them: python -m tests.unit.one_of_several INPUTS OUT.

Writes what it got of each run to OUT/RANK.json, and its weights to OUT/RUN-RANK.safetensors. With a third argument,
"frozen", the last process stops in the middle instead, and neither goes on nor ends.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from goalrank.checkpoint import Checkpoints
from goalrank.dataset import TrainingSet
from goalrank.encoders import Encoded
from goalrank.errors import GoalRankError
from goalrank.execution import Execution
from goalrank.groups import Groups, read_groups
from goalrank.objective import ObjectiveConfig
from goalrank.processes import Processes, joined
from goalrank.train import train_ranker
from tests.unit.test_train import SHORT, PlantedReward, make_reward

LONGER = replace(SHORT, ranker_steps=60, batch_requests=17)  # 17: no even shares
SEED = 7
STOP_AT = 4
RUNS: dict[str, dict[str, Any]] = {
    "without dropout": {"preset": replace(SHORT, dropout=0.0)},
    "supervised, in passes": {"preset": SHORT, "objective": ObjectiveConfig(supervised_weight=0.5)},
    "longer": {"preset": LONGER},
    "longer, fixed lists": {"preset": replace(LONGER, on_policy_lists=0)},
}
"""Runs that must end as they do in one process."""
SAMPLED_LONG = "longer"
"""Of these the one that a near tie among its own lists may part from a single process's."""


def _other_weight(data: TrainingSet, groups: Groups, reward: PlantedReward) -> None:
    with torch.no_grad():
        next(reward.parameters()).view(-1)[0] += 1e-6


OTHERS: dict[str, Callable[[TrainingSet, Groups, PlantedReward], None]] = {
    "training set": lambda data, groups, reward: data.users.dense_UF.__setitem__((0, 0), 9.0),
    "groups": lambda data, groups, reward: groups.rewards_RG.__setitem__((0, 0), 9.0),
    "reward model": _other_weight,
}
"""What the second process alone begins with; all processes must refuse it."""


class NotANumber(PlantedReward):
    """What only one process sees."""

    def score_lists(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        return super().score_lists(encoded, lists_BGL) * float("nan")


def several_runs(inputs: Path, out: Path, processes: Processes) -> None:
    """Trainings that end well and ones that do not."""
    data, groups = TrainingSet.load(inputs / "training_set"), read_groups(inputs / "groups")
    found: dict[str, Any] = {}

    def run(
        name: str,
        preset=SHORT,
        reward: type[PlantedReward] = PlantedReward,
        micro_batch: int = 0,
        change: Callable[[TrainingSet, Groups, PlantedReward], None] = lambda *_: None,
        seed: int = SEED,
        **options: Any,
    ):
        execution, model = Execution(processes, micro_batch), make_reward(reward)
        begun = copy.deepcopy(data), copy.deepcopy(groups), model
        if processes.rank == 1:
            change(*begun)
        try:
            trained = train_ranker(*begun, preset, seed, execution=execution, **options)
        except GoalRankError as error:
            found[name] = {"exit_code": error.exit_code, "reason": str(error)}
        else:
            save_file(trained.ranker.state_dict(), out / f"{name}-{processes.rank}.safetensors")
            found[name] = {"curves": trained.curves, "resumed_from": trained.resumed_from}

    asked = iter(processes.rank == 1 and step == STOP_AT for step in range(1, SHORT.ranker_steps + 1))
    kept = {"checkpoints": Checkpoints(out / "checkpoints")}
    for name, options in RUNS.items():
        run(name, **options, micro_batch=3 if "passes" in name else 0)
    run("not a number", reward=NotANumber if processes.rank == 1 else PlantedReward)
    run("fewer requests than processes", preset=replace(SHORT, batch_requests=1))
    for what, change in OTHERS.items():
        run(f"another {what}", change=change)
    run("another configuration", seed=SEED + processes.rank)
    run("stopped", **kept, asked_to_stop=lambda: next(asked))
    run("resumed", **kept)
    (out / f"{processes.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    frozen = sys.argv[3:] == ["frozen"]
    try:
        with joined(timedelta(seconds=5 if frozen else 300)) as processes:
            if frozen:
                processes.wait()
                if processes.rank == processes.count - 1:
                    time.sleep(600)
                processes.wait()
            several_runs(Path(sys.argv[1]), Path(sys.argv[2]), processes)
    except GoalRankError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
