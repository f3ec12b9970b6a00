"""The kfp signature of smoke_serve."""

from kfp import dsl

from components.images import SERVING_IMAGE


@dsl.component(base_image=SERVING_IMAGE, install_kfp_package=False)
def smoke_serve(
    registration: dsl.Input[dsl.Artifact],
    snapshot: dsl.Input[dsl.Artifact],
    training_set: dsl.Input[dsl.Dataset],
    feast_uri: str,
    tracking_uri: str,
    run_uri: str,
    verdict: dsl.Output[dsl.Artifact],
    requests: int = 20,
):
    """Let the registered version answer logged requests; write the serving verdict."""
    from components.smoke_serve.main import run

    run(
        registration=registration.path,
        snapshot=snapshot.path,
        training_set=training_set.path,
        feast_uri=feast_uri,
        tracking_uri=tracking_uri,
        verdict=verdict.path,
        run_uri=run_uri,
        requests=requests,
    )
