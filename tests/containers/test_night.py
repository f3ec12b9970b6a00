"""The night with each step in a container of its own comes to the same end as the night without.

Tolerance: none. Same processor, versions and seeds, one thread: features, weights and lists are equal to the bit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines import STEPS

pytestmark = pytest.mark.timeout(3600)  # whichever test comes first builds the images and lives the nights

WEIGHTS = ("train-reward/reward_model", "train-reward/judge_model", "train-ranker/ranker")


def artifacts(result: dict[str, Any]) -> Path:
    """The folder of one night's artifacts."""
    (folder,) = (result["folder"] / "artifacts").glob("goalrank-nightly-*")
    return folder


def digests(result: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of the weights of a night's models."""
    files = {name: artifacts(result) / name / "weights.safetensors" for name in WEIGHTS}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def test_every_step_ran_in_its_own_container(in_containers: dict[str, Any]) -> None:
    assert in_containers["exit_code"] == 0, in_containers["reason"]
    log = (in_containers["folder"] / "pipeline.log").read_text()
    assert [stage["name"] for stage in in_containers["stages"]] == list(STEPS)
    owners = {
        json_file.stem: json_file.stat().st_uid for json_file in (in_containers["folder"] / "outcomes").glob("*.json")
    }
    assert owners == dict.fromkeys(STEPS, 1000), f"a step ran as another user; the log ends: {log[-2000:]}"


def test_both_nights_end_alike(in_containers: dict[str, Any], in_processes: dict[str, Any], summary: list[str]) -> None:
    for key in ("verdict", "exit_code", "snapshot_id", "model_version", "metrics"):
        assert in_containers[key] == in_processes[key], key
    walls = {name: one["seconds"]["wall"] for name, one in (("in", in_containers), ("without", in_processes))}
    summary.append(
        f"night: {in_containers['verdict']} in containers and without, same features and figures (snapshot "
        f"{in_containers['snapshot_id'][:12]}); {walls['in']:.0f} s in containers, {walls['without']:.0f} s without"
    )


def test_both_nights_learn_the_same_weights(
    in_containers: dict[str, Any], in_processes: dict[str, Any], summary: list[str]
) -> None:
    mine, others = digests(in_containers), digests(in_processes)
    assert mine == others
    summary.append(f"weights: equal to the bit ({', '.join(f'{name} {sha[:12]}' for name, sha in mine.items())})")


def test_both_nights_make_the_same_lists(
    in_containers: dict[str, Any], in_processes: dict[str, Any], summary: list[str]
) -> None:
    mine, others = (
        pq.read_table(artifacts(one) / "evaluate-ranker" / "lists") for one in (in_containers, in_processes)
    )
    assert mine.num_rows > 0
    assert mine.equals(others)
    summary.append(f"lists: equal, {mine.num_rows:,} of each policy with their rewards")
