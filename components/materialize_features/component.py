"""The pipeline's view of this step; the work is in main.py."""

from kfp import dsl

from components.images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def materialize_features(
    snapshot: dsl.Input[dsl.Artifact],
    feast_uri: str,
    window_days: int,
    run_uri: str,
    training_set: dsl.Output[dsl.Dataset],
):
    """Apply the feature definitions, fill Feast's offline and online store, join the training set."""
    from components.materialize_features.main import run

    run(
        snapshot=snapshot.path,
        feast_uri=feast_uri,
        training_set=training_set.path,
        window_days=window_days,
        run_uri=run_uri,
    )
