"""The pipeline's view of this step; the work is in main.py."""

from kfp import dsl

from components.images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def check_features(
    snapshot: dsl.Input[dsl.Artifact],
    snapshots_uri: str,
    run_uri: str,
    data_docs: dsl.Output[dsl.Artifact],
):
    """Hold tonight's features against ranges and against the last good snapshot; refuse the night if they fail."""
    from components.check_features.main import run

    run(snapshot=snapshot.path, snapshots_uri=snapshots_uri, data_docs=data_docs.path, run_uri=run_uri)
