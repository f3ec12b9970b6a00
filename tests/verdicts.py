"""Sound verdicts for tests of what reads them; the evaluation's comes from decide() itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from goalrank import verdict as v
from goalrank.verdict.consistency import SERVED

NO_PROPENSITIES = v.OffPolicySection(
    setting="required", status="not_applicable", reason="no propensities", estimates={}
)

GATES = (
    v.off_policy_gate(NO_PROPENSITIES),
    v.within_budget("latency", 5.0, v.LATENCY_BUDGET_MS, "ms"),
    v.within_budget("size", 1.0, v.SIZE_BUDGET_MB, "MB"),
)
"""What evaluate_ranker measures outside decide(), all well."""


def promoting(
    model: v.ModelVersion, champion: v.ModelVersion | None, snapshot_id: str, date: str, **more: Any
) -> v.EvaluationVerdict:
    """A verdict that promotes: a challenger better by 0.5 than all else, 100 users with two requests each."""
    random = np.random.default_rng(0)
    base_R = random.normal(2.0, 1.0, 200)
    names = ["challenger", "retriever", *(["champion"] if champion else [])]
    rewards = {name: base_R + random.normal(0.5 * (name == "challenger"), 0.1, 200) for name in names}
    arguments: dict[str, Any] = {"slices": {"first half": np.arange(200) < 100}} if champion else {}
    decided = v.decide(
        model=model,
        champion=champion,
        snapshot_id=snapshot_id,
        date=date,
        rewards=rewards,
        users_R=np.arange(200) // 2,
        metrics={name: {"judged_reward": float(values_R.mean())} for name, values_R in rewards.items()},
        allow_bootstrap=True,
        seed=0,
        gates=GATES,
        off_policy=NO_PROPENSITIES,
        **(arguments | more),
    )
    assert decided.decision == "promote", decided.reason
    return decided


def passing(model: v.ModelVersion, snapshot_id: str, date: str) -> v.ServingVerdict:
    """A serving verdict that passes."""
    return v.ServingVerdict(
        format=v.FORMAT,
        kind="serving",
        model=model,
        snapshot_id=snapshot_id,
        date=date,
        decision="pass",
        reason="20 logged requests answered as offline",
        judged_at=v.judged_now(),
        checks=[v.Check(name=name, value=0.0, threshold=0.0, status="passed") for name in SERVED],
        requests=20,
    )
