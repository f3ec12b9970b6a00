"""The A/B command's statistics on replays of the real thing: `python -m benchmarks.ab_test [--quick] [--json FILE]`.

Users and what they do are the simulated world's: a pool of all users who came in DAYS days, each with the lists they
were shown and the feedback they gave, day by day. A replay draws users from the pool with replacement, splits them by
the command's own hash, adds day after day and looks after each, through goalrank.ab_test itself. Arms are equal, or one
earns x% more reward for every list.

The BEFORE days before the test are remembered, as the command remembers the logs.

    equal    all arms alike: how often is any metric of any arm, on any day, called different? And called better?
    better   one arm earns more: how often is its reward called better by the last day?
    t-test   the same looks judged by a plain two-sample t-test at alpha, of the reward alone
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats

from benchmarks.replays import spread
from benchmarks.report import Claim, Row, claim, progress, run
from goalrank.ab_simulation import metrics_of
from goalrank.ab_test import ALPHA, METRICS, PRIMARY, SAMPLE_RATIO_ALPHA, AbTest
from goalrank.simulator import WorldConfig, day_requests

DAYS = 14
BEFORE = 8  # days before the test: what the first night has
POWER = 0.8


@dataclass(frozen=True)
class Pool:
    """What each user of the world did on each day, BEFORE days first: sums over lists, and how many there were."""

    sums_UDM: np.ndarray
    lists_UD: np.ndarray

    @classmethod
    def of_world(cls, config: WorldConfig) -> Pool:
        """Every user who came at least once during the test."""
        days = BEFORE + DAYS
        users = config.user_count(days)
        sums, lists = np.zeros((users, days, len(METRICS))), np.zeros((users, days))
        for day in range(days):
            requests = day_requests(config, day)
            found = metrics_of(requests.feedback)
            np.add.at(sums[:, day], requests.user_R, np.stack([found[metric] for metric in METRICS], axis=1))
            np.add.at(lists[:, day], requests.user_R, 1)
        came = lists[:, BEFORE:].sum(axis=1) > 0
        return cls(sums[came], lists[came])


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    users: int
    arms: int
    lift: float  # of the last arm's reward
    replays: int


FULL = [
    Case(2_500, 2, 0.0, 2000),
    Case(2_500, 3, 0.0, 2000),
    Case(2_500, 2, 0.10, 2000),
    Case(25_000, 2, 0.03, 2000),
    Case(200_000, 2, 0.01, 1000),  # a second a replay
    Case(300_000, 2, 0.01, 2000),  # nearly two, an hour of one core
]
QUICK = [Case(2_500, 2, 0.0, 400), Case(2_500, 3, 0.0, 400), Case(2_500, 2, 0.10, 200)]


@dataclass
class Outcome:
    """What happened in one replay, over all days."""

    any_decided: bool = False  # some interval of some arm and metric left out 0
    any_better: bool = False  # some such interval lay above 0
    found: bool = False  # the last arm's reward was called better
    missed: bool = False  # some interval of its reward did not hold the true difference
    split_refused: bool = False
    t_test: bool = False  # of equal arms only
    days_to_find: int = DAYS


def replay(pool: Pool, case: Case, seed: int) -> Outcome:
    """One A/B test of DAYS days."""
    random = np.random.default_rng([seed, case.users, case.arms])
    drawn_U = random.integers(len(pool.lists_UD), size=case.users)
    names = tuple(f"arm {number}" for number in range(case.arms))
    test = AbTest(names, names[0], f"replay {seed}")
    user_U = np.arange(case.users)
    arm_U = test.arm_numbers(user_U)
    treated_U, control_U = arm_U == case.arms - 1, arm_U == 0
    reward = METRICS.index(PRIMARY)
    outcome = Outcome()
    past_UM, past_U = pool.sums_UDM[drawn_U, :BEFORE].sum(axis=1), pool.lists_UD[drawn_U, :BEFORE].sum(axis=1)
    had_past = np.flatnonzero(past_U)
    past = {metric: past_UM[had_past, column] for column, metric in enumerate(METRICS)}
    test.remember(had_past, past, past_U[had_past])
    sums_UDM, lists_UD = pool.sums_UDM[:, BEFORE:], pool.lists_UD[:, BEFORE:]
    sum_U, count_U = np.zeros(case.users), np.zeros(case.users)
    pool_mean_U = sums_UDM[..., reward].cumsum(axis=1) / np.maximum(lists_UD.cumsum(axis=1), 1)
    seen_UD = lists_UD.cumsum(axis=1) > 0
    for day in range(DAYS):
        came = np.flatnonzero(lists_UD[drawn_U, day])
        values_RM = sums_UDM[drawn_U[came], day].copy()
        values_RM[:, reward] *= 1 + case.lift * treated_U[came]
        lists_R = lists_UD[drawn_U[came], day]
        test.add(came, {metric: values_RM[:, column] for column, metric in enumerate(METRICS)}, lists_R)
        look = test.look(f"day {day + 1}")
        intervals = [one for lifts in look.lifts.values() for one in lifts.values()]
        outcome.any_decided |= any(one.decided for one in intervals)
        outcome.any_better |= any(one.low > 0 for one in intervals)
        outcome.split_refused |= not look.sample_ratio.passed
        mine = look.lifts[names[-1]][PRIMARY]
        truth = case.lift * pool_mean_U[seen_UD[:, day], day].mean()
        outcome.missed |= not mine.low <= truth <= mine.high
        if mine.low > 0 and not outcome.found:
            outcome.found, outcome.days_to_find = True, day + 1
        if case.lift == 0:
            sum_U[came] += values_RM[:, reward]
            count_U[came] += lists_R
            mean_U, seen_U = sum_U / np.maximum(count_U, 1), count_U > 0
            p_value = stats.ttest_ind(mean_U[treated_U & seen_U], mean_U[control_U & seen_U]).pvalue
            outcome.t_test |= bool(p_value < ALPHA)
    return outcome


def row_of(pool: Pool, case: Case, outcomes: list[Outcome]) -> Row:
    """A row of the table."""
    count = len(outcomes)

    def share(name: str) -> float:
        return sum(getattr(outcome, name) for outcome in outcomes) / count

    found_days = [outcome.days_to_find for outcome in outcomes if outcome.found]
    row: Row = {
        "users": case.users,
        "lists_a_day": round(case.users * pool.lists_UD[:, BEFORE:].sum() / len(pool.lists_UD) / DAYS),
        "arms": case.arms,
        "lift": case.lift,
        "replays": count,
    }
    if case.lift == 0:
        decided = sum(outcome.any_decided for outcome in outcomes)
        # Clopper and Pearson, 1934: the exact upper end of 95%.
        below = float(stats.beta.ppf(0.975, decided + 1, count - decided)) if decided < count else 1.0
        row |= {"called_different": share("any_decided"), "at_most": below}
        row |= {"called_better": share("any_better"), "t_test_daily": share("t_test")}
    else:
        row |= {"found_better": share("found"), "median_days": float(np.median(found_days)) if found_days else None}
    return row | {"truth_left_out": share("missed"), "split_refused": share("split_refused")}


def rows_of(quick: bool, cases: list[Case] | None = None) -> tuple[list[Row], list[Claim]]:
    """All rows, and what is claimed of them."""
    pool = Pool.of_world(WorldConfig())
    progress(f"pool of {len(pool.lists_UD)} users, {pool.lists_UD.sum():.0f} lists in {BEFORE} + {DAYS} days")
    cases = cases or (QUICK if quick else FULL)
    rows, claims = [], []
    for case, outcomes in zip(cases, spread(partial(replay, pool), cases), strict=True):
        row = row_of(pool, case, outcomes)
        rows.append(row)
        if case.lift == 0:
            what = f"{case.arms} equal arms, {len(METRICS)} metrics, {DAYS} daily looks: any called different"
            claims.append(claim(what, row["called_different"], "at most", ALPHA))
            better = f"{case.arms} equal arms: any metric of any arm called better"
            claims.append(claim(better, row["called_better"], "at most", ALPHA / 2))
            claims.append(
                claim(f"{case.arms} equal arms: split refused", row["split_refused"], "at most", SAMPLE_RATIO_ALPHA)
            )
            claims.append(
                claim(f"{case.arms} equal arms: a daily t-test breaks", row["t_test_daily"], "at least", 2 * ALPHA)
            )
        else:
            what = f"+{case.lift:.0%} reward, {case.users} users, {row['lists_a_day']} lists a day, {DAYS} days: found"
            claims.append(claim(what, row["found_better"], "at least", POWER))
        claims.append(
            claim(
                f"{case.arms} arms, {case.lift:+.0%}: an interval of the reward ever leaves out the truth",
                row["truth_left_out"],
                "at most",
                ALPHA,
            )
        )
    return rows, claims


if __name__ == "__main__":
    run("ab_test", rows_of, __doc__.splitlines()[0])
