"""A simulated day ranked by somebody else than the world's own logging policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank import simulator
from goalrank.simulator import Requests, WorldConfig
from goalrank.simulator.world import FIRST_ITEM_ID

CONFIG = WorldConfig(
    seed=3, users=80, items=60, requests_per_day=300, candidates=12, new_items_per_day=2, late_tails=0.05
)
OURS = "goalrank-ranker:7"


def first_candidates(config: WorldConfig, day: int) -> Requests:
    """Everybody is shown the first candidates, in order."""
    requests = simulator.day_requests(config, day)
    slate_RL = np.tile(np.arange(config.list_length), (config.requests_per_day, 1))
    certain_RL, ours_R = np.ones(slate_RL.shape), np.full(len(slate_RL), OURS)
    return simulator.served(requests, slate_RL, certain_RL, ours_R)


def test_the_same_lists_earn_the_same_feedback() -> None:
    own = simulator.day_requests(CONFIG, 2)
    again = simulator.served(own, own.slate_RL, own.propensity_RL, own.policy_R)
    for name in ("click", "like", "watch_seconds"):
        np.testing.assert_array_equal(getattr(again.feedback, name), getattr(own.feedback, name))


def test_served_feedback_is_as_good_as_the_world_expects() -> None:
    days = [first_candidates(replace(CONFIG, requests_per_day=4000), day) for day in (1, 2)]
    for day in days:
        expected_R = simulator.expected_reward(day.facts, day.slate_RL[:, None])[:, 0]
        sampled_R = day.feedback.reward()
        error = (sampled_R - expected_R).std() / np.sqrt(len(sampled_R))
        assert abs((sampled_R - expected_R).mean()) < 4 * error


def rows(logs: Path, table: str, day: int) -> pa.Table:
    return pq.ParquetFile(logs / table / f"dt={CONFIG.date_of(day)}" / "part-00000.parquet").read()


def test_logs_say_who_ranked_and_late_rows_are_of_the_served_day(tmp_path: Path) -> None:
    simulator.write_day(CONFIG, 1, str(tmp_path))
    for day in (2, 3):
        simulator.write_day(
            CONFIG,
            day,
            str(tmp_path),
            lambda config, asked: (
                first_candidates(config, asked) if asked >= 2 else simulator.day_requests(config, asked)
            ),
        )
    own, third = simulator.day_requests(CONFIG, 1), rows(tmp_path, "requests", 3)
    second = rows(tmp_path, "requests", 2)
    late = [name for name in second["request_id"].to_pylist() if name in set(own.request_id_R)]
    assert late, "some requests of the day before arrive late"
    policies = dict(zip(second["request_id"].to_pylist(), second["policy"].to_pylist(), strict=True))
    assert all(policies[name] in ("plackett_luce", "uniform") for name in late)
    assert {policy for name, policy in policies.items() if name not in late} == {OURS}
    assert set(third["policy"].to_pylist()) == {OURS}

    candidates = {}
    for day in (2, 3):
        table = rows(tmp_path, "requests", day)
        candidates |= dict(zip(table["request_id"].to_pylist(), table["candidates"].to_pylist(), strict=True))
    served_on_2 = set(simulator.day_requests(CONFIG, 2).request_id_R)
    arrived = [row for row in rows(tmp_path, "impressions", 3).to_pylist() if row["request_id"] in served_on_2]
    assert arrived, "tails of the served day arrive late"
    for row in arrived:
        assert row["item_id"] == candidates[row["request_id"]][row["position"] - 1] >= FIRST_ITEM_ID
        assert row["propensity"] == 1.0
