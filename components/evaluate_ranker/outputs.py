"""What an evaluation leaves behind: the lists, the report's figures, the metrics in the tracking run.

Shapes: R evaluation requests, N candidates, L list length.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.evaluate_ranker.differences import JUDGED
from goalrank.dataset import TrainingSet
from goalrank.schema import TOPIC_BUCKETS
from goalrank.verdict import EvaluationVerdict, to_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from components.evaluate_ranker.scoring import Answers

EXAMPLES = 20
"""Requests shown in the report."""


@dataclass(frozen=True)
class Item:
    """What the report says of an item; `topics` are the bits of its topic mask."""

    title: str | None
    topics: list[int]


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


def read_items(training_set: str) -> dict[int, Item]:
    """Titles and topics of the training set's items, as far as Feast knew them."""
    read = pq.read_table(Path(training_set) / "items.parquet", columns=["item_id", "title", "topic_mask"])
    columns = (read[name].to_pylist() for name in ("item_id", "title", "topic_mask"))
    return {
        item: Item(title or None, [bit for bit in range(TOPIC_BUCKETS) if (mask or 0) >> bit & 1])
        for item, title, mask in zip(*columns, strict=True)
    }


def figures(
    decided: EvaluationVerdict,
    latency: dict[str, float],
    data: TrainingSet,
    indices_R: np.ndarray,
    answers: dict[str, Answers],
    items: dict[int, Item],
    differences: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    """What the report shows.

    Args:
        differences: challenger minus the other, by who that is and by metric (differences.py).
    """
    plain = decided.model_dump(mode="json")
    other = compared_with(decided)
    return {
        "decision": decided.decision,
        "model": plain["model"],
        "champion": plain["champion"],
        "judged_at": decided.judged_at,
        "thresholds": plain["thresholds"],
        "requests": len(indices_R),
        "users": decided.users,
        "metrics": plain["metrics"],
        "difference": {**plain["difference"], "against": other} if plain["difference"] else None,
        # The judged reward's own is the verdict's, at the confidence that promotes.
        "metric_differences": {name: one for name, one in differences[other].items() if name != JUDGED},
        "retriever_differences": differences["retriever"],
        "checks": plain["checks"],
        "slices": plain["slices"],
        "anchor": plain["anchor"],
        "anchor_difference": plain["anchor_difference"],
        "off_policy": plain["off_policy"],
        "examples": _examples(data, indices_R, answers, other, items),
        **latency,
    }


def compared_with(decided: EvaluationVerdict) -> str:
    """Whose answers the challenger's are held against: the champion's, on a first night the retriever's order."""
    return "champion" if decided.champion else "retriever"


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
    data: TrainingSet, indices_R: np.ndarray, answers: dict[str, Answers], other: str, items: dict[int, Item]
) -> list[dict[str, Any]]:
    """Requests on which challenger and the other disagree most: at most places, then by judged reward."""
    ours, theirs = answers["challenger"], answers[other]
    places_R = (ours.lists_RL != theirs.lists_RL).sum(axis=1)
    chosen = np.lexsort((-np.abs(ours.rewards_R - theirs.rewards_R), -places_R))[:EXAMPLES]
    feedback = data.feedback(indices_R[chosen])
    clicked_RL = np.where(feedback.click_BL.numpy() > 0, feedback.slate_BL.numpy(), -1)

    def told(answer: Answers) -> list[list[dict[str, Any]]]:
        ids_RL = item_ids(data, indices_R[chosen], answer.lists_RL[chosen])
        return [[_told(int(item), items) for item in row if item >= 0] for row in ids_RL]

    rows = zip(chosen, told(ours), told(theirs), item_ids(data, indices_R[chosen], clicked_RL), strict=True)
    return [
        {
            "request_id": data.request_ids[indices_R[index]],
            "against": other,
            "places": int(places_R[index]),
            "judged": {"challenger": float(ours.rewards_R[index]), "other": float(theirs.rewards_R[index])},
            "clicked": [int(item) for item in clicked if item >= 0],
            "challenger": mine,
            "other": its,
        }
        for index, mine, its, clicked in rows
    ]


def _told(item: int, items: dict[int, Item]) -> dict[str, Any]:
    known = items.get(item, Item(None, []))
    return {"item_id": item, "title": known.title or f"item {item}", "topics": known.topics}
