"""One real night's judged rewards, which the verdict's power is measured on.

    python -m benchmarks.verdict_night WORKSPACE

Reads the newest night of a workspace and scores the newest three registered rankers (challenger, champion, anchor) and
the retriever's order on its evaluation day, by its judge, as evaluate_ranker does. The result, a Parquet file of a few
hundred kilobytes, is committed, so that the benchmark needs no workspace.

Columns, one row a request: user (0, 1, ...), champion (judged reward), challenger, anchor and retriever (each minus the
champion's), and a boolean for each slice.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import progress

FILE = Path(__file__).with_name("verdict_night.parquet")


def judged_night(workspace: Path) -> pa.Table:
    """The table described above.

    Raises:
        FileNotFoundError: no night of the workspace came as far as its judge.
    """
    from components import registry
    from components.evaluate_ranker import models, scoring
    from goalrank.checkpoint import load_model
    from goalrank.dataset import TrainingSet
    from goalrank.slices import slices_of

    nights = sorted(workspace.glob("nights/*/*/artifacts/*/train-reward/judge_model"))
    if not nights:
        raise FileNotFoundError(f"{workspace} holds no night with a judge; run `goalrank nightly` three times")
    artifacts = nights[-1].parent.parent
    data = TrainingSet.load(artifacts / "materialize-features" / "training_set")
    judge = load_model(nights[-1])
    client = registry.connect(f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}")
    newest = sorted(client.search_model_versions(f"name = '{registry.RANKER}'"), key=lambda found: int(found.version))
    rankers = {}
    with tempfile.TemporaryDirectory() as aside:
        for who, version in zip(("anchor", "champion", "challenger"), newest[-3:], strict=True):
            model = registry.identity(version)
            rankers[who] = models.load_ranker(registry.fetch_model(client, model, aside), model)
            progress(f"{who}: version {model.version}")
    indices_R = data.evaluation_indices()
    answers = scoring.answer_all(
        data, indices_R, rankers, judge, 0, lambda done, of: progress(f"{done} of {of} requests")
    )
    champion_R = answers["champion"].rewards_R
    _, user_R = np.unique(data.examples.column("user_id").to_numpy()[indices_R], return_inverse=True)
    columns = {"user": user_R.astype(np.int32), "champion": champion_R.astype(np.float32)}
    columns |= {
        name: (answers[name].rewards_R - champion_R).astype(np.float32)
        for name in ("challenger", "anchor", "retriever")
    }
    return pa.table(columns | slices_of(data, indices_R))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    pq.write_table(judged_night(parser.parse_args().workspace), FILE, compression="zstd")
    progress(f"{FILE} written")
