"""kfp signature of the exit handler that publishes the night's report."""

from kfp import dsl

from components.images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def publish_report(run_uri: str, date: str, status: dsl.PipelineTaskFinalStatus):
    """Write report.json and report.html of the night, whatever became of it."""
    from components.publish_report.main import run

    run(run_uri=run_uri, date=date, state=status.state)
