"""generate_groups: training set + reward model -> shards of helper lists with their rewards."""

from __future__ import annotations

from components.step import Step, run_alone


def run(training_set: str, reward_model: str, groups: str, preset: str, seed: int, run_uri: str) -> None:
    """Propose and score the helpers' lists of every request the ranker may learn from (never the judge's).

    Args:
        training_set: training set artifact (directory).
        reward_model: model directory of the guiding reward model.
        groups: directory to write; groups.json comes last.
        preset: tiny, small, base or large.
        seed: of the sampled helpers.
        run_uri: the run's own folder.

    Raises:
        DataRefused: there is no request to learn from.
        ModelRefused: the reward model is damaged, or its rewards are not finite.
    """
    with Step("generate_groups", run_uri) as step:
        with step.tool("torch"):
            import torch

            from goalrank.checkpoint import load_model
            from goalrank.dataset import TrainingSet
            from goalrank.errors import ModelRefused
            from goalrank.groups import build_groups, write_groups
            from goalrank.presets import preset as preset_named
            from goalrank.reward import RewardModel
        chosen = preset_named(preset)
        data = TrainingSet.load(training_set)
        reward = load_model(reward_model)
        if not isinstance(reward, RewardModel):
            raise ModelRefused(f"{reward_model} holds a {type(reward).__name__}, expected a reward model")
        built = build_groups(
            data,
            data.guide_indices(),
            reward,
            chosen.helper_lists,
            seed,
            device="cuda" if torch.cuda.is_available() else "cpu",
            progress=lambda done, total: step.progress(done, total, "requests"),
        )
        card = write_groups(groups, built)
        step.figures.update({**card["counts"], "helpers": card["helpers"], **card["statistics"]})


if __name__ == "__main__":
    run_alone(run)
