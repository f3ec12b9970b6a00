"""The offline protocol on MovieLens-1M (docs/method.md, offline protocol for ratings), as a problem of the study.

Histories are the schema.HISTORY_LENGTH newest ratings before the request, clicked or not (the protocol says up to 200:
that makes a training step three to five times as dear). Aggregates of users and items hold nothing of the validation
and test slates; a training request's item aggregates are as of its day's midnight, so its own slate is not in them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.quality.features import Logs, When, training_tables, windows
from benchmarks.quality.problem import TEST, TRAIN, VALIDATION, Figures, Problem, spread_sample, write_problem
from benchmarks.quality.settings import Scale
from goalrank import metrics
from goalrank.errors import UsageError
from goalrank.movielens import import_movielens
from goalrank.schema import LIST_LENGTH

KINDS = ("matched", "retrieved")
FILES = ("ratings.dat", "movies.dat", "users.dat")
DATA = Path(os.environ.get("MOVIELENS", Path(__file__).parents[3] / "shared" / "data" / "ml-1m"))
"""Where GroupLens' files are looked for."""
_SAMPLE_SEED = 17


class MovieLens(Problem):
    """Labels do not depend on the list: a positive is a slate item rated 4 or more."""

    selected_by = f"map@{LIST_LENGTH}"

    def figures(self, split: str, lists_RL: np.ndarray, scores_RN: np.ndarray | None) -> Figures:
        """H, NDCG, MAP, F1 at 6, any hit; with scores AUC over the candidates and NDCG of the shown six alone."""
        rows_R = self.rows[split]
        mask_RN = self.data.candidates.gather(rows_R)[1]
        feedback = self.data.feedback(rows_R)
        slate_RL, click_RL = feedback.slate_BL.numpy(), feedback.click_BL.numpy() > 0
        shown_RN, positives_RN = np.zeros_like(mask_RN), np.zeros_like(mask_RN)
        np.put_along_axis(shown_RN, slate_RL, True, axis=1)
        np.put_along_axis(positives_RN, slate_RL, click_RL, axis=1)
        nothing_R = np.full(len(rows_R), np.nan)
        scored = scores_RN is not None
        return {
            f"h@{LIST_LENGTH}": metrics.hit_at_k(lists_RL, positives_RN, LIST_LENGTH),
            f"ndcg@{LIST_LENGTH}": metrics.ndcg_at_k(lists_RL, positives_RN, LIST_LENGTH),
            f"map@{LIST_LENGTH}": metrics.map_at_k(lists_RL, positives_RN, LIST_LENGTH),
            f"f1@{LIST_LENGTH}": metrics.f1_at_k(lists_RL, positives_RN, LIST_LENGTH),
            f"any_hit@{LIST_LENGTH}": metrics.any_hit_at_k(lists_RL, positives_RN, LIST_LENGTH),
            "auc": metrics.auc(scores_RN, positives_RN, mask_RN) if scored else nothing_R,
            "ndcg_shown": metrics.ndcg_within_shown(scores_RN, positives_RN, shown_RN) if scored else nothing_R,
        }


def require_files(folder: Path) -> None:
    """Refuse to begin without the data.

    Raises:
        UsageError: a file is missing.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{folder} has no {', '.join(missing)}, expected GroupLens' MovieLens-1M; unpack ml-1m.zip somewhere and "
            "name the folder with --data (or in MOVIELENS)"
        )


def prepare(source: Path, kind: str, folder: Path, scale: Scale, scratch: Path) -> None:
    """GroupLens' files -> the files of the problem, in a folder that exists.

    Requests are seeded samples of each split, the same for both kinds of candidates.

    Args:
        source: the folder with FILES.
        kind: of candidates.
        folder: exists.
        scale: limits.
        scratch: an empty folder for the logs.

    Raises:
        DataRefused: a file has a bad line.
    """
    import_movielens(str(source), str(scratch), candidates=kind, seed=0)
    logs = Logs.read(scratch)
    splits = pq.read_table(scratch / "splits.parquet")
    name_Q = splits["request_id"].to_numpy(zero_copy_only=False).astype(str)
    split_Q = splits["split"].to_numpy(zero_copy_only=False).astype(str)
    limits = {TRAIN: scale.train_requests, VALIDATION: scale.validation_requests, TEST: scale.test_requests}
    drawn = {
        split: spread_sample(np.flatnonzero(split_Q == split), limit, _SAMPLE_SEED) for split, limit in limits.items()
    }
    validation_day, test_day = logs.days[-2:]
    when = When(at_request=True, closed=validation_day, every_impression=True)
    tables = training_tables(logs, when, np.concatenate([name_Q[rows] for rows in drawn.values()]))
    split_of = {name: split for split, rows in drawn.items() for name in name_Q[rows]}
    split_E = np.array([split_of[name] for name in tables[0]["request_id"].to_pylist()])
    card = {"date": test_day, "days": logs.days, "snapshot_id": "quality-movielens"}
    write_problem(folder, tables, split_E, windows(logs, validation_day, every_impression=True), json.dumps(card))
