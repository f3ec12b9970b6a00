"""What Feast knows: two entities, one source and one view per schema.FEATURE_VIEWS, and the service the models read.

Definitions only: `feast apply` (and the materialize_features step) imports every .py of this folder. Names and types
come from goalrank.schema, so a column cannot be called one thing by Spark and another by Feast.

GOALRANK_OFFLINE_ROOT is the folder (or s3:// prefix) that holds one folder of Parquet files per view;
GOALRANK_FEATURE_STORE says whether files (`local`) or Spark (`cluster`) read it.
"""

import os
from datetime import timedelta

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_source import DataSource
from feast.types import Array, Float64, Int64, String

from goalrank import schema

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)

FEAST_TYPES = {
    pa.int64(): Int64,
    pa.float64(): Float64,
    pa.string(): String,
    pa.list_(pa.int64()): Array(Int64),
    pa.list_(pa.string()): Array(String),
}


def source_of(view: schema.FeatureView) -> DataSource:
    """The Parquet files of one view; `created_timestamp` keeps rows made after an event out of its training row."""
    columns = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp"}
    path = f"{os.environ['GOALRANK_OFFLINE_ROOT'].rstrip('/')}/{view.name}"
    if os.environ.get("GOALRANK_FEATURE_STORE", "local") == "cluster":
        from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

        return SparkSource(name=f"{view.name}_source", path=path, file_format="parquet", **columns)
    return FileSource(name=f"{view.name}_source", path=path, **columns)


def view_of(view: schema.FeatureView) -> FeatureView:
    """One Feast view. No time to live: a row holds until the next one of its entity."""
    return FeatureView(
        name=view.name,
        entities=[user if view.entity == "user_id" else item],
        ttl=timedelta(0),
        schema=[Field(name=feature.name, dtype=FEAST_TYPES[feature.type]) for feature in view.features],
        source=source_of(view),
        online=True,
    )


user_profile = view_of(schema.USER_PROFILE)
user_stats = view_of(schema.USER_STATS)
user_history = view_of(schema.USER_HISTORY)
item_content = view_of(schema.ITEM_CONTENT)
item_stats = view_of(schema.ITEM_STATS)

ranker = FeatureService(
    name="ranker",
    features=[
        user_profile,
        user_stats,
        user_history,
        item_content,
        item_stats,
    ],
)
