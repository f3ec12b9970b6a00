"""The pipeline's view of this step; the work is in main.py."""

from kfp import dsl

from components.images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def extract_features(
    logs_uri: str,
    snapshots_uri: str,
    date: str,
    full_rebuild: bool,
    window_days: int,
    run_uri: str,
    spark_master: str,
    spark_memory: str,
    snapshot: dsl.Output[dsl.Artifact],
    snapshot_id: dsl.OutputPath(str),  # type: ignore[valid-type]
):
    """Turn the logs up to tonight into a snapshot of features, examples and state, incrementally where possible."""
    from components.extract_features.main import run
    from components.extract_features.snapshots import Snapshot
    from goalrank.naming import arrival_day

    run(
        logs_uri=logs_uri,
        snapshots_uri=snapshots_uri,
        date=arrival_day("date", date),
        full_rebuild=full_rebuild,
        window_days=window_days,
        snapshot=snapshot.path,
        run_uri=run_uri,
        spark_master=spark_master,
        spark_memory=spark_memory,
    )
    with open(snapshot_id, "w", encoding="utf-8") as file:
        file.write(Snapshot.load(snapshot.path).snapshot_id)
