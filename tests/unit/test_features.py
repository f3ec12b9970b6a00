"""Feature rows become the arrays they should, nulls and strange lengths included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from goalrank.errors import DataRefused
from goalrank.features import (
    ITEM_DENSE,
    MAX_ATTRIBUTES,
    USER_DENSE,
    encode_items,
    encode_users,
    stable_hash,
    topic_bits,
)
from goalrank.schema import HISTORY_LENGTH, TOPIC_BUCKETS, training_rows_schema

AS_OF = 1_767_225_600_000_000

KNOWN_USER = {
    "user_id": 7,
    "as_of": AS_OF,
    "attributes": ["age=25", "country=fr"],
    "impressions": 40,
    "clicks": 10,
    "likes": 2,
    "watch_ms": 600_000,
    "active_days": 3,
    "topic_clicks": [3, 1] + [0] * (TOPIC_BUCKETS - 2),
    "history_items": [11, 12, 13],
    "history_topics": [1, 2, 3],
}
KNOWN_ITEM = {
    "item_id": 5,
    "as_of": AS_OF,
    "topic_mask": 0b101,
    "duration_seconds": 60.0,
    "title": "A film",
    "impressions_7d": 10,
    "clicks_7d": 4,
    "likes_7d": 1,
    "impressions_total": 100,
    "clicks_total": 40,
    "likes_total": 10,
    "watch_ms_total": 400_000,
    "age_days": 9,
}


def table(rows: list[dict], entity: str) -> pa.Table:
    return pa.Table.from_pylist(rows, training_rows_schema(entity))


def unknown(row: dict, entity: str) -> dict:
    return {name: value if name in (entity, "as_of") else None for name, value in row.items()}


def test_users_shapes_and_values() -> None:
    users = encode_users(table([KNOWN_USER], "user_id"))
    assert users.dense_UF.shape == (1, len(USER_DENSE)) and users.dense_UF.dtype == np.float32
    assert users.history_items_UH.shape == (1, HISTORY_LENGTH)
    assert users.attributes_UA.shape == (1, MAX_ATTRIBUTES)
    np.testing.assert_array_equal(users.history_items_UH[0, :4], [11, 12, 13, 0])  # right-padded, oldest first
    np.testing.assert_array_equal(users.history_topics_UH[0, :4], [1, 2, 3, 0])
    np.testing.assert_allclose(users.topics_UT[0, :3], [0.75, 0.25, 0])
    assert users.attributes_UA[0, 0] == stable_hash("age=25") and users.attributes_UA[0, 2] == 0
    dense = dict(zip(USER_DENSE, users.dense_UF[0], strict=True))
    assert dense["log_impressions"] == pytest.approx(np.log(41) / 3)
    assert dense["click_logit"] > 0 and dense["missing"] == 0


def test_items_shapes_and_values() -> None:
    items = encode_items(table([KNOWN_ITEM], "item_id"))
    assert items.dense_IF.shape == (1, len(ITEM_DENSE)) and items.item_id_I.tolist() == [5]
    np.testing.assert_array_equal(np.flatnonzero(items.topics_IT[0]), [0, 2])
    dense = dict(zip(ITEM_DENSE, items.dense_IF[0], strict=True))
    assert dense["log_watch_seconds_per_click"] == pytest.approx(np.log(11) / 3)
    assert dense["click_logit"] > dense["click_logit_7d"] > 0  # the same rate, on more evidence


def test_unknown_rows_have_a_defined_fallback() -> None:
    users = encode_users(table([unknown(KNOWN_USER, "user_id"), KNOWN_USER], "user_id"))
    assert users.dense_UF[0, USER_DENSE.index("missing")] == 1
    assert np.delete(users.dense_UF[0], USER_DENSE.index("missing")).tolist() == [0] * (len(USER_DENSE) - 1)
    assert not users.history_items_UH[0].any() and not users.attributes_UA[0].any() and not users.topics_UT[0].any()
    assert users.history_items_UH[1, 0] == 11  # the null row does not shift the next one's lists
    items = encode_items(table([unknown(KNOWN_ITEM, "item_id")], "item_id"))
    ones = [ITEM_DENSE.index("missing"), ITEM_DENSE.index("duration_missing")]
    assert items.dense_IF[0, ones].tolist() == [1, 1]
    assert not np.delete(items.dense_IF[0], ones).any() and not items.topics_IT.any()


def test_columns_that_are_all_null_without_a_type() -> None:
    """What a store returns when it knows none of the keys."""
    rows = pa.table({name: pa.nulls(1) for name in training_rows_schema("user_id").names})
    assert np.isfinite(encode_users(rows).dense_UF).all()


def test_long_lists_keep_the_newest_history() -> None:
    row = {
        **KNOWN_USER,
        "history_items": list(range(1, HISTORY_LENGTH + 11)),
        "attributes": [f"a={n}" for n in range(20)],
    }
    row["history_topics"] = [1] * len(row["history_items"])
    users = encode_users(table([row], "user_id"))
    assert users.history_items_UH[0, 0] == 11 and users.history_items_UH[0, -1] == HISTORY_LENGTH + 10
    assert (users.attributes_UA[0] != 0).all()


def test_all_values_are_finite_and_moderate_for_wild_numbers() -> None:
    wild = {**KNOWN_ITEM, "impressions_total": 10**12, "clicks_total": 10**12 + 5, "age_days": -4}
    wild["duration_seconds"] = float("nan")
    dense_IF = encode_items(table([wild], "item_id")).dense_IF
    assert np.isfinite(dense_IF).all() and np.abs(dense_IF).max() < 20


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataRefused, match="feature column 'topic_clicks' is missing"):
        encode_users(table([KNOWN_USER], "user_id").drop_columns(["topic_clicks"]))


def test_a_column_of_another_type_is_named() -> None:
    broken = table([KNOWN_ITEM], "item_id").drop_columns(["clicks_7d"]).append_column("clicks_7d", pa.array(["many"]))
    with pytest.raises(DataRefused, match="feature column 'clicks_7d' is string, expected int64"):
        encode_items(broken)


def test_hashes_are_the_same_in_another_process() -> None:
    code = "from goalrank.features import stable_hash; print(stable_hash('age=25'))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == stable_hash("age=25") > 0


def test_topic_bits() -> None:
    bits = topic_bits(np.array([0, 1, 1 << (TOPIC_BUCKETS - 1)]))
    assert bits.sum(axis=1).tolist() == [0, 1, 1] and bits[2, -1] == 1
