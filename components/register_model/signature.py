"""The pyfunc models' signature, written down from the data contract instead of being inferred from an example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from goalrank import schema

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


def signature_of(kind: str) -> ModelSignature:
    """Signature of the 'ranker' or the 'reward' model: see pyfunc_model.py for what the columns mean."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    user = [_property(field) for view in schema.USER_VIEWS for field in view.features]
    candidate = [
        Property("item_id", DataType.long),
        Property("score", DataType.double),
        *(_property(field) for view in schema.ITEM_VIEWS for field in view.features),
    ]
    inputs: list[Any] = [
        ColSpec(Object(user), "user"),
        ColSpec(Array(Object(candidate)), "candidates"),
    ]
    if kind == "reward":
        inputs.append(ColSpec(Array(Array(DataType.long)), "lists"))
        return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec(Array(DataType.double))]))
    return ModelSignature(
        inputs=Schema(inputs),
        outputs=Schema([ColSpec(Array(DataType.long))]),
        params=ParamSchema([ParamSpec("length", DataType.integer, schema.LIST_LENGTH)]),
    )


def _property(field: pa.Field) -> Any:
    from mlflow.types.schema import Array, Property

    kind = Array(_scalar(field.type.value_type)) if pa.types.is_list(field.type) else _scalar(field.type)
    return Property(field.name, kind, required=False)


def _scalar(kind: pa.DataType) -> Any:
    from mlflow.types import DataType

    names = {pa.int64(): DataType.long, pa.float64(): DataType.double, pa.string(): DataType.string}
    return names[kind]
