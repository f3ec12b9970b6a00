"""materialize_features: apply the definitions, fill offline and online store, join the training set."""

from __future__ import annotations

import os
from pathlib import Path

import goalrank_platform
from components.extract_features.snapshots import Snapshot
from components.feature_store import create_store, offline_engine
from components.materialize_features.definitions import apply, check_supply, load_definitions
from components.materialize_features.offline import drop_older, prepare_offline
from components.materialize_features.online import materialize_online, record_online
from components.materialize_features.skew import check_skew
from components.materialize_features.training_set import write_training_set
from components.step import Step, run_alone
from goalrank.errors import UsageError


def run(
    snapshot: str, feast_uri: str, training_set: str, window_days: int, run_uri: str, feature_repo: str = ""
) -> None:
    """Bring tonight's features into Feast and the training set out of it.

    Args:
        snapshot: the snapshot artifact of extract_features.
        feast_uri: folder of the feature store.
        training_set: directory to write (the training set artifact).
        window_days: arrival days whose examples are used, the night's date the last.
        run_uri: folder of this run.
        feature_repo: folder of the Feast definitions, by default the platform's own.

    Raises:
        DataRefused: the definitions do not supply every feature, the snapshot and Feast's answers disagree, or the
            online store answers otherwise than the offline store (skew.py). In the last two cases tonight's rows are
            online already, so the next night writes all rows.
        TryAgain: the online store, the registry's database or the offline store's engine is away.
    """
    with Step("materialize_features", run_uri) as step:
        if window_days < 1:
            raise UsageError(f"window_days is {window_days}, expected 1 or more")
        loaded = Snapshot.load(snapshot)
        repository = feature_repo or str(goalrank_platform.root() / "feature_repo")
        with step.tool("feast"):
            import feast  # noqa: F401  heavy: its import is a tool's cost, not the work's

        views = 5
        offline_root = Path(feast_uri).resolve() / "offline" / loaded.snapshot_id
        objects = load_definitions(repository, offline_root)
        check_supply(objects)
        folder = prepare_offline(loaded, feast_uri)
        step.progress(0, views, "feast apply")
        with step.tool("feast"):
            store = create_store(feast_uri, repository=str(goalrank_platform.root() / "feature_repo"))
        done = 0

        def told(note: str) -> None:
            nonlocal done
            step.progress(min(done, views - 1), views, note)
            done += 1

        with offline_engine(store, step, loaded.size()):
            apply(store, objects)
            step.figures["online"] = materialize_online(store, loaded, folder, feast_uri, told)
            write_training_set(store, loaded, folder, training_set, window_days, step)
            check_skew(store, training_set, loaded.date, step)
        record_online(feast_uri, loaded, folder)
        drop_older(feast_uri, keep={loaded.snapshot_id, f".{loaded.snapshot_id}.{os.getpid()}"})
        step.reason = f"{step.figures['examples_rows']} examples, online up to the end of {loaded.date}"


if __name__ == "__main__":
    run_alone(run)
