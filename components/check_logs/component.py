"""The pipeline's view of this step; the work is in main.py."""

from typing import NamedTuple

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
    workspace_uri: str = "",
) -> NamedTuple("Night", [("night", str), ("folder", str)]):  # type: ignore[valid-type]
    """Say which night this is, hold the log partitions it reads against the data contract, refuse what breaks it."""
    from typing import NamedTuple

    from components.check_logs.main import run
    from components.the_night import day_of, folder_of

    run_uri = folder_of(run_uri)
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
        workspace_uri=workspace_uri,
    )
    return NamedTuple("Night", [("night", str), ("folder", str)])(day_of(date, run_uri), run_uri)  # type: ignore[operator]
