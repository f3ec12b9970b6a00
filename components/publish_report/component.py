"""kfp signature of the exit handler that publishes the night's report."""

from kfp import dsl

from components.images import SERVING_IMAGE


@dsl.component(base_image=SERVING_IMAGE, install_kfp_package=False)
def publish_report(run_uri: str, date: str, tracking_uri: str, status: dsl.PipelineTaskFinalStatus):
    """Write report.json, report.html and model_card.md of the night, whatever became of it."""
    from components.publish_report.main import run

    run(run_uri=run_uri, date=date, tracking_uri=tracking_uri, state=status.state)
