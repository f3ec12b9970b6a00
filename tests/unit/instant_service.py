"""A ranking service that stands in a moment: an untrained ranker, a store that answers at once. All else is real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from components import registry
from components.serve_model.champion import Champion, Models
from components.serve_model.feature_rows import FeatureRows
from components.serve_model.metrics import Metrics
from components.serve_model.ranking import Ranking
from components.serve_model.served_log import ServedLog
from components.serve_model.service import Service
from goalrank import schema
from goalrank.encoders import ModelSizes
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.verdict import ModelVersion

INFER = f"/v2/models/{registry.RANKER}/infer"


class NobodyKnown:
    """A store that answers at once: odd ids have a row, even ones none."""

    def rows(self, entity: str, keys: Sequence[int]) -> pa.Table:
        wanted = schema.training_rows_schema(entity)
        columns: list[pa.Array] = [pa.array(list(keys), pa.int64())]
        for field in list(wanted)[1:]:
            counted = pa.types.is_integer(field.type)
            columns.append(pa.array([3 if counted and key % 2 else None for key in keys], field.type))
        return pa.Table.from_arrays(columns, schema=wanted)

    def stamp(self) -> tuple[int, ...]:
        return (1,)


def champion(version: str = "1", seed: int = 0) -> Champion:
    """An untrained ranker."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = Ranker(ModelSizes.from_preset(preset("tiny"))).eval()
    return Champion(model, ModelVersion(name=registry.RANKER, version=version, weights_sha256="0" * 64))


def service(logs: Path, models: Models | Champion | None = None, reader: Any = None, **more: Any) -> Service:
    """What it logs goes to `logs`; `more` as Ranking takes it."""
    ranking = Ranking(FeatureRows(reader or NobodyKnown()), models or champion(), **more)
    return Service(ranking, ServedLog(logs), Metrics())


def request(number: int = 1, candidates: int = 4, **more: Any) -> dict[str, Any]:
    """A request that is valid, the same for the same number."""
    offered = [{"item_id": number + 3 * at + 1, "score": float(number * at % 5)} for at in range(candidates)]
    return {"user_id": number + 1, "candidates": offered, **more}


def tensors(*requests: dict[str, Any], **inputs: list[Any]) -> dict[str, Any]:
    """Requests of equal width in the Open Inference Protocol; `inputs` adds request_id or list_length."""
    size = [len(requests), len(requests[0]["candidates"])]

    def each(name: str) -> list[Any]:
        return [candidate[name] for one in requests for candidate in one["candidates"]]

    columns: list[tuple[str, list[int], str, list[Any]]] = [
        ("user_id", size[:1], "INT64", [one["user_id"] for one in requests]),
        ("candidates", size, "INT64", each("item_id")),
        ("scores", size, "FP64", each("score")),
    ]
    kinds = {"request_id": "BYTES", "list_length": "INT64"}
    columns += [(name, [len(data)], kinds[name], data) for name, data in inputs.items()]
    return {
        "inputs": [
            {"name": name, "shape": shape, "datatype": kind, "data": data} for name, shape, kind, data in columns
        ]
    }
