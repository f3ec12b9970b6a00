"""benchmarks/ab_test.py on a few replays: its figures mean what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ab_test import BEFORE, DAYS, Case, Outcome, Pool, replay, row_of, rows_of
from benchmarks.report import Row
from goalrank.ab_test import ALPHA, METRICS


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Users of gamma tastes who come back unevenly."""
    random = np.random.default_rng(0)
    lists_UD = random.poisson(random.gamma(1.0, 1.0, 800)[:, None], (800, BEFORE + DAYS)).astype(float)
    lists_UD[:, BEFORE] += lists_UD[:, BEFORE:].sum(axis=1) == 0
    level_U1 = random.gamma(4.0, 0.4, 800)[:, None]
    sums_UDM = np.stack([random.gamma(lists_UD * level_U1 + 1e-9) for _ in METRICS], axis=2)
    return Pool(sums_UDM, lists_UD)


def test_equal_arms_a_better_arm_and_a_worse_one(pool: Pool) -> None:
    def measure(case: Case) -> tuple[Row, list[Outcome]]:
        outcomes = [replay(pool, case, seed) for seed in range(case.replays)]
        return row_of(pool, case, outcomes), outcomes

    equal, _ = measure(Case(800, 3, 0.0, 40))
    better, outcomes = measure(Case(800, 2, 0.5, 20))
    worse, different = measure(Case(800, 2, -0.5, 10))
    assert equal["called_better"] <= equal["called_different"] <= ALPHA < equal["t_test_daily"]
    assert all(one.any_better for one in outcomes)
    assert all(one.any_decided and not one.any_better for one in different)
    assert better["found_better"] >= 0.9 and worse["found_better"] == 0.0
    assert max(equal["truth_left_out"], better["truth_left_out"]) <= ALPHA
    assert better["median_days"] == np.median([outcome.days_to_find for outcome in outcomes])


def test_rows_and_claims_of_the_real_world() -> None:
    rows, claims = rows_of(True, [Case(300, 2, 0.0, 2), Case(300, 2, 0.12, 2)])
    assert any("called better" in made["name"] and made["target"] == f"at most {ALPHA / 2:g}" for made in claims)
    assert [row["lift"] for row in rows] == [0.0, 0.12]
    assert all(set(claim) == {"name", "value", "target", "holds"} for claim in claims)
    # The pool is the world's: about a fifth of 6 items clicked, a list earning about 1.6.
    pool_row = rows[0]
    assert 200 < pool_row["lists_a_day"] < 400
