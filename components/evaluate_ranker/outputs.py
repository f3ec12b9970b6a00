"""What an evaluation leaves behind: the lists, the report's figures, the metrics in the tracking run.

Shapes: R evaluation requests, L list length.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank.dataset import TrainingSet
from goalrank.verdict import EvaluationVerdict, to_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from components.evaluate_ranker.scoring import Answers

EXAMPLES = 5
"""Requests shown in the report."""


def item_ids(data: TrainingSet, indices_R: np.ndarray, lists_RL: np.ndarray) -> np.ndarray:
    """Item ids [R, L] of lists of candidate indices, -1 where a list is shorter."""
    rows_RL = data.candidates.values[data.candidates.starts[indices_R][:, None] + np.maximum(lists_RL, 0)]
    return np.where(lists_RL >= 0, data.items.item_id_I[rows_RL], -1)


def write_lists(path: str, data: TrainingSet, indices_R: np.ndarray, answers: dict[str, Answers]) -> None:
    """Parquet, a row a request: request_id, and for each policy its item ids and the judge's reward of them."""
    columns: dict[str, Any] = {"request_id": [data.request_ids[index] for index in indices_R]}
    for name, answer in answers.items():
        ids_RL = item_ids(data, indices_R, answer.lists_RL)
        columns[name] = pa.array([row[row >= 0] for row in ids_RL], pa.list_(pa.int64()))
        columns[f"{name}_reward"] = answer.rewards_R
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def read_titles(training_set: str) -> dict[int, str]:
    """Titles of the training set's items, where Feast knew one."""
    items = pq.read_table(Path(training_set) / "items.parquet", columns=["item_id", "title"])
    pairs = zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True)
    return {item: title for item, title in pairs if title}


def figures(
    decided: EvaluationVerdict,
    latency: dict[str, float],
    data: TrainingSet,
    indices_R: np.ndarray,
    answers: dict[str, Answers],
    titles: dict[int, str],
) -> dict[str, Any]:
    """What the report shows."""
    plain = decided.model_dump(mode="json")
    other = "champion" if decided.champion else "retriever"
    return {
        "decision": decided.decision,
        "requests": len(indices_R),
        "metrics": plain["metrics"],
        "difference": {**plain["difference"], "against": other} if plain["difference"] else None,
        "checks": plain["checks"],
        "slices": plain["slices"],
        "anchor": plain["anchor"],
        "anchor_difference": plain["anchor_difference"],
        "off_policy": plain["off_policy"],
        "examples": _examples(data, indices_R, answers, other, titles),
        **latency,
    }


def log(client: MlflowClient, run_id: str, decided: EvaluationVerdict, latency: dict[str, float]) -> None:
    """Metrics, decision and the verdict itself, in the night's tracking run."""
    from mlflow.entities import Metric

    # The night's own midnight: logging the same again writes the same row, not a second one.
    at = int(datetime.fromisoformat(decided.date).replace(tzinfo=UTC).timestamp() * 1000)
    numbers = {
        f"evaluation.{who}.{name}": value
        for who, row in decided.metrics.items()
        for name, value in (row or {}).items()
        if value is not None
    }
    numbers |= {f"evaluation.{name}": value for name, value in latency.items()}
    compared = {"difference": decided.difference, "anchor_difference": decided.anchor_difference}
    compared |= {f"slices.{part.name}": part.difference for part in decided.slices}
    for what, difference in compared.items():
        if difference is not None:
            numbers |= {f"evaluation.{what}.{name}": getattr(difference, name) for name in ("mean", "low", "high")}
    client.log_batch(run_id, metrics=[Metric(name, value, at, 0) for name, value in numbers.items()])
    client.set_tag(run_id, "decision", decided.decision)
    client.set_tag(run_id, "reason", decided.reason[:1000])
    client.log_text(run_id, to_json(decided), "verdict.json")


def _examples(
    data: TrainingSet, indices_R: np.ndarray, answers: dict[str, Answers], other: str, titles: dict[int, str]
) -> list[dict[str, Any]]:
    """Requests on which challenger and the other disagree most: at most places, then by judged reward."""
    ours, theirs = answers["challenger"], answers[other]
    places_R = (ours.lists_RL != theirs.lists_RL).sum(axis=1)
    chosen = np.lexsort((-np.abs(ours.rewards_R - theirs.rewards_R), -places_R))[:EXAMPLES]

    def named(answer: Answers) -> list[list[str]]:
        ids_RL = item_ids(data, indices_R[chosen], answer.lists_RL[chosen])
        return [[titles.get(int(item), f"item {item}") for item in row if item >= 0] for row in ids_RL]

    return [
        {"request_id": data.request_ids[index], "challenger": mine, "other": its, "against": other}
        for index, mine, its in zip(indices_R[chosen], named(ours), named(theirs), strict=True)
    ]
