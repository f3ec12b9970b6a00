"""The kfp signature of promote_model."""

from kfp import dsl

from components.images import SERVING_IMAGE


@dsl.component(base_image=SERVING_IMAGE, install_kfp_package=False)
def promote_model(
    registration: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    serving: dsl.Input[dsl.Artifact],
    tracking_uri: str,
    journal_uri: str,
    date: str,
    run_uri: str,
):
    """Move the champion alias to tonight's version, journalled."""
    from components.promote_model.main import run
    from goalrank.naming import arrival_day

    run(
        registration=registration.path,
        evaluation=evaluation.path,
        serving=serving.path,
        tracking_uri=tracking_uri,
        journal_uri=journal_uri,
        date=arrival_day("date", date),
        run_uri=run_uri,
    )
