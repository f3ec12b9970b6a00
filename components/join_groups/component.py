"""The kfp signature of join_groups."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def join_groups(
    training_set: dsl.Input[dsl.Dataset],
    parts: dsl.Input[list[dsl.Dataset]],
    preset: str,
    run_uri: str,
    snapshot_id: str,  # only for the cache: Kubeflow's key holds the names of artifacts, not what is in them
    groups: dsl.Output[dsl.Dataset],
    data_docs: dsl.Output[dsl.Artifact],
    group_plan: str = "",
):
    """Put the parts of the groups together, and hold them against what a group must be."""
    from components.join_groups.main import run

    run(
        training_set=training_set.path,
        parts=",".join(part.path for part in parts),
        groups=groups.path,
        preset=preset,
        run_uri=run_uri,
        data_docs=data_docs.path,
        group_plan=group_plan,
    )
