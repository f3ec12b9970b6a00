"""docs/capacity.md says what benchmarks/cluster_plan.py computes, and that computes what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cluster_plan
from benchmarks.cluster_plan import (
    BEGIN,
    DOCUMENT,
    END,
    EXECUTOR_CORES,
    HEADROOM,
    IMPRESSIONS,
    MEASURED_USE,
    RESULTS,
    SINGLE_USE,
    figures,
    text,
    with_block,
)
from benchmarks.features_scale import FULL, NIGHT
from benchmarks.gpu_step import GOAL, PEAK_BF16
from benchmarks.ranker_steps import CANDIDATES
from benchmarks.reward_step import gflop_request
from goalrank.encoders import ModelSizes
from goalrank.presets import preset
from goalrank.schema import LIST_LENGTH

FEATURES = [
    {"job": FULL, "read": 1_000_000, "cpu_s": 80.0, "logs_mb": 30.0, "made_mb": 50.0},
    {"job": FULL, "read": 3_000_000, "cpu_s": 160.0, "logs_mb": 90.0, "made_mb": 150.0},
    {"job": NIGHT, "read": 100_000, "cpu_s": 50.0, "peak_mb": 1600.0},
    {"job": NIGHT, "read": 30_000, "cpu_s": 43.0, "peak_mb": 1500.0},
]
SCALE = [
    {"what": "training", "processes": 1, "size": 1000, "requests_s": 100.0, "gflop_request": 0.5, "speedup": 1.0},
    {"what": "training", "processes": 2, "size": 1000, "speedup": 1.75},
    {"what": "100 M model", "processes": 0, "size": 100_000_000, "gradient_mb": 400.0, "gflop_request": 10.0},
    {"what": "Spark", "processes": 2, "size": 3_000_000, "speedup": 1.6},
]


def value_of(rows: list[dict[str, Any]], name: str) -> str:
    (found,) = [row["value"] for row in rows if row["what"] == name]
    return found


def test_the_document_is_what_the_results_give() -> None:
    """As `python -m benchmarks.cluster_plan --write` leaves it."""
    document = DOCUMENT.read_text(encoding="utf-8")
    assert with_block(document, cluster_plan.computed()) == document


def best_utilisation() -> float:
    """Of preset large's own batch, as committed."""
    rows = json.loads((RESULTS / "gpu_step.json").read_text(encoding="utf-8"))["rows"]
    return max(row["utilisation"] for row in rows if row["preset"] == "large" and row["batches"] == 1)


def in_float32() -> float:
    """Of preset large's step without bf16, as committed."""
    rows = json.loads((RESULTS / "gpu_step.json").read_text(encoding="utf-8"))["rows"]
    (found,) = [row["utilisation"] for row in rows if row["preset"] == "large" and row["way"] == "teacher-forced"]
    return float(found)


def test_the_plan_by_hand() -> None:
    measured, plan = figures(FEATURES, SCALE)
    assert value_of(measured, "a full rebuild, processor seconds for each million impressions more") == "40 s"
    assert value_of(measured, "a night, the same") == "100 s"
    assert value_of(measured, "a night, processor seconds whatever the size") == "40 s"
    assert value_of(measured, "two executors over one, halved: efficiency") == "0.8"
    assert value_of(measured, "logs, bytes an impression") == "30 B"
    seconds = 100.0 * IMPRESSIONS / 1e6 + 40.0
    assert value_of(plan, "extraction in 1 h: cores") == f"{math.ceil(HEADROOM * seconds / 3600 / 0.8)}"
    assert value_of(plan, "logs a day") == "30 GB"
    assert value_of(plan, "logs, features and examples of 30 days") == "2.4 TB"
    assert value_of(plan, "weights, gradients and Adam's moments") == "1.6 GB"
    assert value_of(plan, "requests a day") == f"{IMPRESSIONS / LIST_LENGTH / 1e6:,.0f} M"
    hours = [float(row["value"].split()[0].replace(",", "")) for row in plan if "GPU hours" in row["what"]]
    assert hours[0] == pytest.approx(hours[2] * GOAL / MEASURED_USE, rel=0.02)
    assert pytest.approx(best_utilisation(), rel=0.01) == MEASURED_USE
    executors = math.ceil(math.ceil(HEADROOM * seconds / 3600 / 0.8) / EXECUTOR_CORES)
    large = preset("large")
    seen = (large.reward_steps + large.reward_steps // 2) * large.batch_requests
    assert value_of(plan, "requests that guide and judge see in a night") == f"{seen / 1e6:.3g} M"
    gflop = float(value_of(plan, "reward model of preset large: arithmetic of a request's step").split()[0])
    rewarding = seen * gflop * 1e9 / (PEAK_BF16["H100"] * SINGLE_USE) / 3600
    on_gpu = float(value_of(plan, "... one GPU, guide, judge and ranker").split()[0])
    assert float(value_of(plan, "... hours of one GPU").split()[0]) == pytest.approx(rewarding, rel=0.01)
    assert on_gpu == pytest.approx(rewarding + hours[0], rel=0.02)
    assert value_of(plan, "a night, machine hours: executors and their driver") == f"{executors + 1} h"
    assert float(value_of(plan, "... in all").split()[0]) == pytest.approx(executors + 1 + on_gpu, rel=0.01)
    assert pytest.approx(in_float32(), rel=0.01) == SINGLE_USE


def test_a_reward_models_arithmetic_is_its_layers_forward_and_backward() -> None:
    """Six operations a weight and position: of attention layers of 8 D^2 weights; what else there is adds a part."""
    sizes = ModelSizes.from_preset(preset("small"))
    deeper = replace(sizes, candidate_layers=sizes.candidate_layers + 1)
    layer = 6 * 8 * sizes.width**2 * CANDIDATES / 1e9
    assert layer < gflop_request(deeper) - gflop_request(sizes) < 2 * layer


def test_a_night_of_one_size_is_laid_on_its_impressions() -> None:
    measured, _ = figures(FEATURES[:3], SCALE)
    assert value_of(measured, "a night, the same") == "500 s"
    assert value_of(measured, "a night, processor seconds whatever the size") == "0 s"


def test_quick_results_are_called_provisional() -> None:
    documents = [
        {"benchmark": name, "rows": rows} for name, rows in (("features_scale", FEATURES), ("scale_out", SCALE))
    ]
    full, quick = ([{**document, "quick": flag} for document in documents] for flag in (False, True))
    assert "Provisional" not in text(*full)
    assert text(*quick).startswith("Provisional: features_scale and scale_out ran with --quick.")


def test_results_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "scale_out.json").write_text("{}")
    said = cluster_plan.computed(tmp_path)
    assert said.startswith("Not measured yet") and "features_scale" in said and "scale_out" not in said


def test_a_document_without_its_marks_is_refused() -> None:
    assert with_block(f"a\n{BEGIN}\nold\n{END}\nb\n", "new\n") == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    with pytest.raises(ValueError, match="once each in capacity.md"):
        with_block(f"a {BEGIN}", "new")
