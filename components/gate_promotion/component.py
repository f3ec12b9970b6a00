"""The kfp signature of gate_promotion."""

from kfp import dsl

from components.images import SERVING_IMAGE


@dsl.component(base_image=SERVING_IMAGE, install_kfp_package=False)
def gate_promotion(
    registration: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    serving: dsl.Input[dsl.Artifact],
    run_uri: str,
) -> bool:
    """Whether promotion may run: one unnamed output, since kfp skips an If on a named one in silence."""
    from components.gate_promotion.main import gate

    return gate(
        registration=registration.path,
        evaluation=evaluation.path,
        serving=serving.path,
        run_uri=run_uri,
    )
