"""Ranker or reward model as an MLflow pyfunc, kept as code (models-from-code): no pickle, weights in safetensors.

MLflow copies this file beside the model and runs it on loading, so it needs nothing but goalrank and MLflow.

Input, one row a request (column types in signature.py; a feature may be missing or null):
    user         {feature: value} of schema.USER_VIEWS
    candidates   [{"item_id", "score", feature: value of schema.ITEM_VIEWS}, ...]
    lists        [[item_id, ...], ...]: reward model only, the lists to judge, items among the candidates
Output: ranker, a list of item ids a request; reward model, the expected reward of each list, a request each.
"""

import hashlib
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import torch

from goalrank import schema
from goalrank.checkpoint import load_model
from goalrank.dataset import batch_from_rows
from goalrank.errors import CheckpointDamaged, DataRefused


class ListModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """The model in its folder of artifacts, answering requests given as rows."""

    def load_context(self, context: Any) -> None:
        """Load the weights once their SHA-256 is the one recorded at registration."""
        folder = Path(context.artifacts["model"])
        recorded = context.model_config["weights_sha256"]
        found = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        if found != recorded:
            raise CheckpointDamaged(f"weights have SHA-256 {found}, expected {recorded}; register the model again")
        self.kind = context.model_config["kind"]
        self.model = load_model(str(folder))

    # No type hints: MLflow would act on them.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Lists of item ids (ranker) or rewards of the given lists (reward model), one entry a request."""
        rows = model_input.to_dict("records")
        batch = batch_from_rows(*_tables(rows))
        ids = [[int(candidate["item_id"]) for candidate in row["candidates"]] for row in rows]
        with torch.inference_mode():
            encoded = self.model.encode(batch)
            if self.kind == "ranker":
                length = int((params or {}).get("length", schema.LIST_LENGTH))
                lists_BL = self.model.greedy(encoded, length).tolist()
                return [[ids[row][index] for index in chosen if index >= 0] for row, chosen in enumerate(lists_BL)]
            asked = [[list(map(int, one)) for one in row["lists"]] for row in rows]
            rewards_BG = self.model.reward(encoded, _indices(ids, asked)).tolist()
        return [rewards[: len(lists)] for rewards, lists in zip(rewards_BG, asked, strict=True)]


def _tables(rows: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table, list[int], list[list[int]], list[list[float]]]:
    """(users, items, user_index, candidate_rows, scores) of the requests, for batch_from_rows."""
    users = [row["user"] for row in rows]
    items = [candidate for row in rows for candidate in row["candidates"]]
    candidate_rows, first = [], 0
    for row in rows:
        candidate_rows.append(list(range(first, first + len(row["candidates"]))))
        first += len(row["candidates"])
    scores = [[float(candidate["score"]) for candidate in row["candidates"]] for row in rows]
    user_fields = [field for view in schema.USER_VIEWS for field in view.features]
    item_fields = [pa.field("item_id", pa.int64()), *(field for view in schema.ITEM_VIEWS for field in view.features)]
    return _table(users, user_fields), _table(items, item_fields), list(range(len(rows))), candidate_rows, scores


def _table(rows: list[dict[str, Any]], fields: list[pa.Field]) -> pa.Table:
    columns = [pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True) for field in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _indices(ids: list[list[int]], asked: list[list[list[int]]]) -> torch.Tensor:
    """Lists of item ids as indices among each request's candidates, [B, G, L], -1 where a list is shorter."""
    count = max((len(lists) for lists in asked), default=0)
    length = max((len(one) for lists in asked for one in lists), default=0)
    indices_BGL = torch.full((len(asked), count, length), -1, dtype=torch.int64)
    for row, lists in enumerate(asked):
        position = {item: index for index, item in enumerate(ids[row])}
        for number, one in enumerate(lists):
            strange = [item for item in one if item not in position]
            if strange:
                raise DataRefused(f"items {strange} of list {number} found, expected items among the candidates")
            indices_BGL[row, number, : len(one)] = torch.tensor([position[item] for item in one])
    return indices_BGL


mlflow.models.set_model(ListModel())
