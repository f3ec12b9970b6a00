"""The pipeline's view of this step; the work is in main.py."""

from kfp import dsl

from components.images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def check_logs(
    logs_uri: str,
    snapshots_uri: str,
    date: str,
    full_rebuild: bool,
    run_uri: str,
    spark_master: str,
    spark_memory: str,
    data_docs: dsl.Output[dsl.Artifact],
    window_days: int = 30,
):
    """Hold the log partitions tonight reads against the data contract; refuse the night if they break it."""
    from components.check_logs.main import run

    run(
        logs_uri=logs_uri,
        snapshots_uri=snapshots_uri,
        date=date,
        full_rebuild=full_rebuild,
        window_days=window_days,
        data_docs=data_docs.path,
        run_uri=run_uri,
        spark_master=spark_master,
        spark_memory=spark_memory,
    )
