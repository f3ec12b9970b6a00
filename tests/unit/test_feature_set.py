"""The feature set's digest: the same everywhere, changed by what a model would feel and by nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from goalrank import features, schema

TODAY = "135daed62f70da82"
"""Changing it makes this release refuse every version registered so far: only with a reason, and with the runbook's
section "Another release" in mind."""


@pytest.fixture(autouse=True)
def anew():
    schema.feature_set.cache_clear()
    yield
    schema.feature_set.cache_clear()


def test_it_is_what_registered_versions_carry() -> None:
    assert schema.feature_set() == TODAY


def test_it_is_the_same_in_another_process() -> None:
    program = "from goalrank import schema; print(schema.feature_set())"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(next(iter(schema.__file__.rsplit("/goalrank/", 1))))}
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert printed.stdout.strip() == TODAY, printed.stderr


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (schema, "FEATURE_MEANING", schema.FEATURE_MEANING + 1),
        (features, "PRIOR_COUNT", features.PRIOR_COUNT * 1.1),
        (features, "PRIOR_CLICK_RATE", features.PRIOR_CLICK_RATE + 0.01),
        (features, "MAX_ATTRIBUTES", features.MAX_ATTRIBUTES + 1),
        (features, "TOPIC_BUCKETS", features.TOPIC_BUCKETS * 2),
        (features, "HISTORY_LENGTH", features.HISTORY_LENGTH + 1),
        (features, "stable_hash", lambda text: len(text)),
    ],
)
def test_it_changes_with_meaning_and_encoding(monkeypatch, module, name: str, value: object) -> None:
    monkeypatch.setattr(module, name, value)
    assert schema.feature_set() != TODAY


@pytest.mark.parametrize("field", [pa.field("active_days", pa.int32()), pa.field("days_active", pa.int64())])
def test_it_changes_with_a_column(monkeypatch, field: pa.Field) -> None:
    view = schema.USER_STATS
    changed = tuple(field if one.name == "active_days" else one for one in view.features)
    monkeypatch.setitem(
        schema.FEATURE_VIEWS, view.name, schema.FeatureView(view.name, view.entity, changed, view.dense_days)
    )
    assert schema.feature_set() != TODAY


def test_the_probe_is_far_from_where_rounding_turns() -> None:
    """Machines differ in the last bits of a logarithm: no probed value may lie where that would round otherwise."""
    users = features._probe_rows(features.USER_VIEWS)
    items = features._probe_rows(features.ITEM_VIEWS).append_column("item_id", pa.array([1, 2, 3], pa.int64()))
    for rows in (features.encode_users(users), features.encode_items(items)):
        for array in vars(rows).values():
            scaled = array.astype(np.float64) * 10**features.PROBE_DECIMALS
            assert array.dtype.kind == "i" or np.abs(scaled % 1 - 0.5).min() > 0.005
