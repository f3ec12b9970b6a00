"""The kfp signature of train_ranker."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def train_ranker(
    training_set: dsl.Input[dsl.Dataset],
    groups: dsl.Input[dsl.Dataset],
    reward_model: dsl.Input[dsl.Model],
    preset: str,
    seed: int,
    run_uri: str,
    snapshot_id: str,  # only for the cache: Kubeflow's key holds the names of artifacts, not what is in them
    ranker: dsl.Output[dsl.Model],
    checkpoints_uri: str = "",
    warm_start: str = "none",
    tracking_uri: str = "",
    micro_batch: int = 0,
    precision: str = "auto",
    compiled: bool = False,
    processes: int = 1,
    group_plan: str = "",
    objective: str = "",
):
    """Train the ranker on groups of its own and the helpers' lists."""
    from components.train_ranker.launch import train

    train(
        processes,
        training_set=training_set.path,
        groups=groups.path,
        reward_model=reward_model.path,
        ranker=ranker.path,
        preset=preset,
        seed=seed,
        run_uri=run_uri,
        checkpoints_uri=checkpoints_uri,
        warm_start=warm_start,
        tracking_uri=tracking_uri,
        micro_batch=micro_batch,
        precision=precision,
        compiled=compiled,
        group_plan=group_plan,
        objective=objective,
    )
