"""train_ranker: training set + groups + reward model -> ranker, by way of checkpoints that outlive the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.step import Step, run_alone

SHOWN_CURVES = ("loss", "on_policy_reward", "helper_reward", "group_std", "entropy")
"""What the report plots; the model's card holds all."""


def run(
    training_set: str,
    groups: str,
    reward_model: str,
    ranker: str,
    preset: str,
    seed: int,
    run_uri: str,
    checkpoints_uri: str = "",
) -> None:
    """Train the ranker, or go on from the newest sound checkpoint of this very run.

    Args:
        training_set: training set artifact (directory).
        groups: groups artifact of generate_groups.
        reward_model: model directory of the guiding reward model.
        ranker: model directory to write; its card's metrics hold the curves.
        preset: tiny, small, base or large.
        seed: of initial weights, order of batches, dropout and sampled lists.
        run_uri: the run's own folder.
        checkpoints_uri: folder of this step's checkpoints, by default one in the run's folder. Those of another
            snapshot, configuration or seed are dropped, and all are once the model is written.

    Raises:
        DataRefused: the groups are missing, damaged or empty.
        ModelRefused: the reward model is damaged, or a loss, a gradient or a weight is not finite.
        TryAgain: SIGTERM came (a node is drained, a night interrupted): a checkpoint of the last step was written.
    """
    with Step("train_ranker", run_uri) as step:
        with step.tool("torch"):
            import torch

            from goalrank.checkpoint import Checkpoints, load_model, read_model_card, save_model
            from goalrank.dataset import TrainingSet
            from goalrank.errors import ModelRefused
            from goalrank.groups import groups_digest, read_groups
            from goalrank.objective import ObjectiveConfig
            from goalrank.presets import preset as preset_named
            from goalrank.reward import RewardModel
            from goalrank.train import list_rewards, train_ranker
        chosen, objective = preset_named(preset), ObjectiveConfig()
        data = TrainingSet.load(training_set)
        checkpoints = Checkpoints(Path(checkpoints_uri or Path(run_uri) / "checkpoints" / "train_ranker"))
        reward, loaded = load_model(reward_model), read_groups(groups)
        if not isinstance(reward, RewardModel):
            raise ModelRefused(f"{reward_model} holds a {type(reward).__name__}, expected a reward model")
        with _sigterm_noted() as asked_to_stop:
            trained = train_ranker(
                data,
                loaded,
                reward,
                chosen,
                seed,
                objective=objective,
                checkpoints=checkpoints,
                fingerprint={
                    "snapshot_id": data.snapshot_id,
                    "reward_sha256": read_model_card(reward_model)["weights_sha256"],
                    "groups_sha256": groups_digest(groups),
                },
                device="cuda" if torch.cuda.is_available() else "cpu",
                progress=step.progress,
                asked_to_stop=asked_to_stop,
            )
        rewards = list_rewards(data, loaded, trained.ranker, reward)
        save_model(
            ranker,
            trained.ranker,
            "ranker",
            config=trained.ranker.sizes.to_dict(),
            created_by={
                "preset": preset,
                "seed": seed,
                "snapshot_id": data.snapshot_id,
                "trained_until": data.train_days[-1],
                "data_window": [data.train_days[0], data.train_days[-1]],
                "objective": objective.to_dict(),
            },
            metrics={**rewards, "curves": trained.curves},
        )
        checkpoints.clear()
        step.figures.update(
            {
                **rewards,
                "steps": chosen.ranker_steps,
                "resumed_from": trained.resumed_from,
                "damaged_checkpoints": trained.damaged_checkpoints,
                "final_loss": trained.curves["loss"][-1][1],
                "curves": {name: trained.curves[name] for name in SHOWN_CURVES},
            }
        )


@contextmanager
def _sigterm_noted() -> Iterator[Callable[[], bool]]:
    """While it lasts SIGTERM is only remembered, so that the step under way can end and be kept."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda signum, frame: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    run_alone(run)
