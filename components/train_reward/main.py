"""train_reward: training set -> the reward model that guides the ranker, and the judge that compares rankers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from components.step import Step, run_alone

if TYPE_CHECKING:
    import numpy as np

    from goalrank.dataset import TrainingSet
    from goalrank.encoders import RequestEncoder
    from goalrank.presets import Preset
    from goalrank.reward import RewardModel

SHOWN_FIGURES = (
    "auc", "like_auc", "calibration_error", "rank_correlation", "reward_predicted", "reward_logged", "noise", "spread",
    "requests", "held_out", "steps", "best_step",
)  # fmt: skip
JUDGE_SEED = 7919
"""Added to the seed, so that guide and judge share neither their start nor their order of requests."""


def run(training_set: str, reward_model: str, judge_model: str, preset: str, seed: int, run_uri: str) -> None:
    """Pretrain the history encoder, then train guide and judge from it, on requests they do not share.

    Args:
        training_set: directory of the training set artifact.
        reward_model: model directory to write, the guide's: it scores the groups the ranker learns from.
        judge_model: model directory to write, the judge's: it compares challenger and champion. Half as many steps, on
            half as many requests.
        preset: name of the preset.
        seed: of everything random.
        run_uri: folder of the run, for progress and outcome.

    Raises:
        DataRefused: the training set is incomplete or too small.
        ModelRefused: a loss or a weight is not finite.
    """
    with Step("train_reward", run_uri) as step:
        with step.tool("torch"):
            import torch

            from goalrank.checkpoint import save_model
            from goalrank.dataset import TrainingSet
            from goalrank.presets import preset as preset_named
            from goalrank.pretrain import pretrain
        chosen = preset_named(preset)
        data = TrainingSet.load(training_set)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        judge_steps = max(1, chosen.reward_steps // 2)
        total = chosen.pretrain_steps + chosen.reward_steps + judge_steps

        def telling(offset: int, note: str) -> Callable[[int, int], None]:
            return lambda done, _: step.progress(offset + done, total, note)

        encoder, pretraining = pretrain(data, chosen, seed, telling(0, "next item"), device)
        curves = {f"next_item_{name}": curve for name, curve in pretraining["curves"].items()}
        created_by = {
            "preset": preset,
            "snapshot_id": data.snapshot_id,
            "trained_until": data.train_days[-1],
            "data_window": [data.train_days[0], data.train_days[-1]],
        }
        figures: dict[str, Any] = {
            "next_item": {name: pretraining[name] for name in ("users", "items", "steps", "best_step")}
        }
        offset = chosen.pretrain_steps
        for role, folder, indices, steps, own_seed in (
            ("guide", reward_model, data.guide_indices(), chosen.reward_steps, seed),
            ("judge", judge_model, data.judge_indices(), judge_steps, seed + JUDGE_SEED),
        ):
            model, history = train_one(
                data, encoder, indices, chosen, own_seed, steps, telling(offset, f"reward model: {role}"), device
            )
            offset += steps
            save_model(
                folder,
                model,
                "reward",
                config=model.sizes.to_dict(),
                created_by={**created_by, "role": role, "seed": own_seed},
                metrics={**history, "next_item": pretraining},
            )
            figures[role] = {name: history[name] for name in (*SHOWN_FIGURES, "auc_by_position")}
            curves.update({f"{role}_{name}": curve for name, curve in history["curves"].items()})
            figures["reliability" if role == "guide" else f"{role}_reliability"] = history["reliability"]
        step.figures.update({**figures, "curves": curves})


def train_one(
    data: TrainingSet,
    encoder: RequestEncoder,
    indices: np.ndarray,
    chosen: Preset,
    seed: int,
    steps: int,
    progress: Callable[[int, int], None],
    device: str,
) -> tuple[RewardModel, dict]:
    """A fresh reward model with the pretrained encoder in it, trained on `indices`, and its history."""
    import torch

    from goalrank.encoders import ModelSizes
    from goalrank.pretrain import copy_pretrained
    from goalrank.reward import RewardModel
    from goalrank.reward_training import train

    torch.manual_seed(seed)
    model = RewardModel(ModelSizes.from_preset(chosen))
    copy_pretrained(encoder, model.encoder)
    history = train(model, data, indices, chosen, seed, progress, steps=steps, device=device)
    return model, history


if __name__ == "__main__":
    run_alone(run)
