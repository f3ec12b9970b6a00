"""The kfp signature of generate_groups."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def generate_groups(
    training_set: dsl.Input[dsl.Dataset],
    reward_model: dsl.Input[dsl.Model],
    preset: str,
    seed: int,
    run_uri: str,
    snapshot_id: str,  # only for the cache: Kubeflow's key holds the names of artifacts, not what is in them
    groups: dsl.Output[dsl.Dataset],
    data_docs: dsl.Output[dsl.Artifact],
    group_plan: str = "",
    part: int = 0,
    parts: int = 1,
):
    """Propose helper lists for the training requests, score them, and hold them against what a group must be."""
    from components.generate_groups.main import run

    run(
        training_set=training_set.path,
        reward_model=reward_model.path,
        groups=groups.path,
        preset=preset,
        seed=seed,
        run_uri=run_uri,
        data_docs=data_docs.path,
        group_plan=group_plan,
        part=part,
        parts=parts,
    )
