"""The kfp face of train_reward."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def train_reward(
    run_uri: str,
    snapshot_id: str,  # only for the cache: Kubeflow's key holds the names of artifacts, not what is in them
    preset: str,
    seed: int,
    training_set: dsl.Input[dsl.Dataset],
    reward_model: dsl.Output[dsl.Model],
    judge_model: dsl.Output[dsl.Model],
):
    """Train the reward model that guides the ranker, and the judge that compares rankers."""
    from components.train_reward.main import run

    run(
        training_set=training_set.path,
        reward_model=reward_model.path,
        judge_model=judge_model.path,
        preset=preset,
        seed=seed,
        run_uri=run_uri,
    )
