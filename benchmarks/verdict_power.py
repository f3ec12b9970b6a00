"""What the verdict promotes: equal challengers, better ones, and thirty nights in a row.

    python -m benchmarks.verdict_power [--quick] [--json benchmarks/results/verdict_power.json]

Every replay calls goalrank.verdict.decide as a night does, slices, anchor, floor and gates included, 4,000 resamples.
A replayed night draws whole users, with replacement, from one real night of the default world
(benchmarks/verdict_night.py): their requests, the champion's judged rewards, the challenger's, the anchor's and the
retriever's differences to them, their slices. So spread, skew, the likeness of one user's requests and the slices'
sizes are those of a night; only the truth is set:

    equal       the real differences, minus their mean: the mean difference of challenger and champion is exactly 0
                (on single slices it is what it was on that night)
    mirrored    their sign turned: what is a long tail of gains becomes one of losses, the harder case for a bootstrap
    swapped     their sign drawn for each user: no skew, and exactly 0 on every slice too
    +1%         equal, plus 1% of the champion's reward of each request
    erring      the judge is off by JUDGE_ERROR, drawn once a night: its error is the same for all requests

But for the erring arms, "equal" and "better" are meant in the judge's eyes: a bootstrap over users knows nothing of a
judge that is wrong about all of them. How wrong it was on real nights: benchmarks/judge_error.py.

The off-policy check is drawn too, apart from the judged rewards: an estimate with the standard error that the default
world's first night had (OFF_POLICY_ERROR), failed where significantly below zero.

Chains are nights in a row of one service: the promoted challenger is the next night's champion, and the anchor is the
champion of seven nights before. The rule of a careless gate, "promote unless shown to be worse", is replayed beside.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import stats
from threadpoolctl import threadpool_limits

from benchmarks.report import Claim, Row, claim, progress, run
from benchmarks.verdict_night import FILE
from goalrank.verdict import (
    ANCHOR_DAYS,
    ANCHOR_MARGIN,
    LATENCY_BUDGET_MS,
    SIZE_BUDGET_MB,
    SLICE_MARGIN,
    EvaluationVerdict,
    ModelVersion,
    OffPolicySection,
    Status,
    decide,
    off_policy_gate,
    within_budget,
)

REPLAYS = 2000
USERS = (50, 100, 200, 400, 800, 1500)
"""The last is a night of the default world: some 3,000 requests."""
NIGHT_USERS = USERS[-1]
NIGHTS = 30
CHAIN_USERS = 200
OFF_POLICY_ERROR = 0.055
"""Standard error of the off-policy difference, as a share of the champion's reward."""

JUDGE_ERROR = 0.008
"""Spread of judged minus true differences over the nights of a replay (benchmarks/results/judge_error.json)."""

MODELS = [ModelVersion(name="ranker", version=str(1 + at), weights_sha256=f"{at:064x}") for at in range(NIGHTS + 2)]


@dataclass(frozen=True)
class Pool:
    """One real night, requests sorted by user."""

    columns: dict[str, np.ndarray]  # float64 [R]: champion, challenger, anchor, retriever (the latter as differences)
    slices: dict[str, np.ndarray]  # bool [R]
    starts_C: np.ndarray
    counts_C: np.ndarray

    def draw(self, random: np.random.Generator, users: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and user numbers of a night on which that many users came."""
        drawn_C = random.integers(0, len(self.counts_C), users)
        counts_C = self.counts_C[drawn_C]
        first_R = np.repeat(np.cumsum(counts_C) - counts_C, counts_C)
        rows_R = np.repeat(self.starts_C[drawn_C], counts_C) + np.arange(counts_C.sum()) - first_R
        return rows_R, np.repeat(np.arange(users), counts_C)


@lru_cache(maxsize=1)
def pool() -> Pool:
    """The committed night; challenger's and anchor's differences centred over all requests."""
    table = pq.read_table(FILE).sort_by("user")
    numbers = ("champion", "challenger", "anchor", "retriever")
    columns = {name: table[name].to_numpy().astype(np.float64) for name in numbers}
    for name in ("challenger", "anchor"):
        columns[name] = columns[name] - columns[name].mean()
    slices = {
        name: table[name].to_numpy(zero_copy_only=False)
        for name in table.column_names
        if name not in (*numbers, "user")
    }
    _, starts_C, counts_C = np.unique(table["user"].to_numpy(), return_index=True, return_counts=True)
    return Pool(columns, slices, starts_C, counts_C)


def replay(
    random: np.random.Generator,
    users: int,
    *,
    gain: float,
    anchor_gain: float | None = None,
    form: str = "real",
    lost: tuple[str, float] | None = None,
    judge_error: float = 0.0,
    off_policy_concludes: bool = True,
    night: int = 1,
    seed: int = 0,
) -> EvaluationVerdict:
    """The verdict of one replayed night.

    Args:
        users: how many came.
        gain: the challenger's true advantage over the champion, a share of its reward.
        anchor_gain: the anchor's over the champion; None: the champion is its own anchor.
        form: of the differences: real, mirrored or swapped.
        lost: a slice, and the challenger's true advantage there instead.
        judge_error: standard deviation of what the judge adds to the challenger's advantage.
        off_policy_concludes: False where the logs hold too few effective samples, as a served one with 2% explored.
        night: only names the versions.
        seed: of the resamples, as the pipeline's setting; kept from night to night.
    """
    real = pool()
    rows_R, user_R = real.draw(random, users)
    taken = {name: values[rows_R] for name, values in real.columns.items()}
    signs_C = {"real": np.ones(users), "mirrored": -np.ones(users), "swapped": np.sign(random.random(users) - 0.5)}
    sign_R = signs_C[form][user_R]
    champion_R = taken["champion"]
    judged = gain + (random.normal(0.0, judge_error) if judge_error else 0.0)
    challenger_R = champion_R * (1 + judged) + sign_R * taken["challenger"]
    if lost:
        chosen_R = real.slices[lost[0]]
        centred_R = taken["challenger"] - real.columns["challenger"][chosen_R].mean()
        there_R = champion_R * (1 + lost[1]) + sign_R * centred_R
        challenger_R = np.where(chosen_R[rows_R], there_R, challenger_R)
    rewards = {
        "champion": champion_R,
        "challenger": challenger_R,
        "retriever": champion_R + taken["retriever"],
    }
    if anchor_gain is not None:
        rewards["anchor"] = champion_R * (1 + anchor_gain) + sign_R * taken["anchor"]
    shown_worse = random.normal(gain / OFF_POLICY_ERROR) < stats.norm.ppf(0.025)
    status: Status = "inconclusive" if not off_policy_concludes else "failed" if shown_worse else "passed"
    drawn = OffPolicySection(setting="required", status=status, reason="drawn", estimates={})
    gates = [
        off_policy_gate(drawn),
        within_budget("latency", 10.0, LATENCY_BUDGET_MS, "ms"),
        within_budget("size", 1.0, SIZE_BUDGET_MB, "MB"),
    ]
    return decide(
        model=MODELS[night],
        champion=MODELS[night - 1],
        snapshot_id="replayed",
        date="2026-01-08",
        rewards=rewards,
        users_R=user_R,
        metrics={},
        allow_bootstrap=False,
        seed=seed,
        gates=gates,
        off_policy=drawn,
        slices={name: chosen[rows_R] for name, chosen in real.slices.items()},
        anchor=None if anchor_gain is None else MODELS[-1],
        no_anchor="the champion has reigned for a week",
    )


# ------------------------------------------------------------------------------------------------------- single nights


ARMS: dict[str, dict[str, Any]] = {
    "equal": {"gain": 0.0},
    "equal, mirrored": {"gain": 0.0, "form": "mirrored"},
    "equal, swapped": {"gain": 0.0, "form": "swapped"},
    "+1%": {"gain": 0.01},
    "+1%, mirrored": {"gain": 0.01, "form": "mirrored"},
    "+0.5%": {"gain": 0.005},
    "+2%": {"gain": 0.02},
    "-1%": {"gain": -0.01},
    "+2%, new users at -2%, the margin": {"gain": 0.02, "lost": ("new_users", -SLICE_MARGIN)},
    "+2%, heavy users at -2%, mirrored": {"gain": 0.02, "lost": ("heavy_users", -SLICE_MARGIN), "form": "mirrored"},
    "+2%, new users at -4%": {"gain": 0.02, "lost": ("new_users", -2 * SLICE_MARGIN)},
    "equal, erring judge": {"gain": 0.0, "judge_error": JUDGE_ERROR},
    "+1%, erring judge": {"gain": 0.01, "judge_error": JUDGE_ERROR},
    "-1%, erring judge": {"gain": -0.01, "judge_error": JUDGE_ERROR},
    "+1%, served log with 2% explored": {"gain": 0.01, "off_policy_concludes": False},
    "+2%, but 1% below the anchor": {"gain": 0.02, "anchor_gain": 1.02 / (1 - ANCHOR_MARGIN) - 1},
}
CURVES = ("equal", "equal, mirrored", "equal, swapped", "+1%", "+1%, mirrored")
"""Arms replayed at every size; the others at the default night's."""


def single_nights(arm: str, users: int, replays: int, first: int = 0) -> Row:
    """Shares over `replays` nights of one arm."""
    promoted, superior, requests, blocked = 0, 0, 0, Counter[str]()
    for number in range(first, first + replays):
        verdict = replay(np.random.default_rng([1, users, number]), users, **({"anchor_gain": 0.0} | ARMS[arm]))
        promoted += verdict.decision == "promote"
        requests += verdict.requests
        failed = {check.name for check in verdict.checks if not check.passed}
        if "superiority" not in failed:
            superior += 1
            blocked.update(failed)
    low, high = wilson(promoted, replays)
    return {
        "arm": arm,
        "users": users,
        "requests": round(requests / replays),
        "replays": replays,
        "promoted": promoted / replays,
        "low": low,
        "high": high,
        "superior": superior / replays,
        "blocked though superior": " ".join(f"{name}:{count / replays:.3f}" for name, count in blocked.most_common()),
    }


# --------------------------------------------------------------------------------------------------------------- chains


@dataclass(frozen=True)
class Chain:
    """A service's thirty nights: how good each night's challenger is, and who may be promoted."""

    challenger: Callable[[np.random.Generator, float], float]
    """Quality of tonight's challenger, a share of the first champion's reward above it, given the champion's."""
    careless: bool = False
    """Promote unless shown to be worse than the champion."""
    anchored: bool = True
    judge_error: float = 0.0
    rarer: int = 1
    """One replay where the claimed ones have so many."""


def _equal(random: np.random.Generator, champion: float) -> float:
    return champion


def _near_champion(random: np.random.Generator, champion: float) -> float:
    return champion + random.normal(0, 0.005)


def _near_start(random: np.random.Generator, champion: float) -> float:
    return random.normal(0, 0.01)


def _worse(random: np.random.Generator, champion: float) -> float:
    return champion - 0.005


CHAINS = {
    "equal": Chain(_equal),
    "champion's +- 0.5%": Chain(_near_champion),
    "champion's +- 0.5%, erring judge": Chain(_near_champion, judge_error=JUDGE_ERROR, rarer=4),
    "start's +- 1%": Chain(_near_start, rarer=4),
    "0.5% worse each night": Chain(_worse, rarer=4),
    "careless: champion's +- 0.5%": Chain(_near_champion, careless=True, anchored=False, rarer=10),
    "careless: 0.5% worse each night": Chain(_worse, careless=True, anchored=False, rarer=10),
    "careless but anchored: 0.5% worse each night": Chain(_worse, careless=True, rarer=10),
}


def live(chain: Chain, number: int, users: int) -> tuple[float, int]:
    """The last champion's quality after thirty nights, relative to the first's, and how many were promoted."""
    random = np.random.default_rng([2, number])
    champion, reigned, promotions = 0.0, [0.0], 0  # reigned[n]: quality of the champion on night n
    for night in range(1, NIGHTS + 1):
        challenger = chain.challenger(random, champion)
        anchor = reigned[max(0, night - 1 - ANCHOR_DAYS)]
        own = anchor == champion and len(set(reigned[max(0, night - 1 - ANCHOR_DAYS) :])) == 1
        verdict = replay(
            random,
            users,
            gain=(1 + challenger) / (1 + champion) - 1,
            anchor_gain=None if own else (1 + anchor) / (1 + champion) - 1,
            form=("real", "mirrored", "swapped")[random.integers(3)],
            judge_error=chain.judge_error,
            night=night,
        )
        if _may_rise(chain, verdict):
            champion, promotions = challenger, promotions + 1
        reigned.append(champion)
    return champion, promotions


def _may_rise(chain: Chain, verdict: EvaluationVerdict) -> bool:
    if not chain.careless:
        return verdict.decision == "promote"
    assert verdict.difference is not None
    shown_worse = verdict.difference.high < 0
    anchor = next(check for check in verdict.checks if check.name == "anchor")
    return not shown_worse and (anchor.passed or not chain.anchored)


def chains(name: str, count: int, users: int, first: int = 0) -> Row:
    """What became of `count` services."""
    ended = [live(CHAINS[name], number, users) for number in range(first, first + count)]
    quality = np.array([champion for champion, _ in ended])
    worse = int((quality < -ANCHOR_MARGIN).sum())
    low, high = wilson(worse, count)
    return {
        "arm": f"{NIGHTS} nights, {name}",
        "users": users,
        "replays": count,
        "worse than start by margin": worse / count,
        "low": low,
        "high": high,
        "mean end": float(quality.mean()),
        "lowest end": float(quality.min()),
        "promotions": float(np.mean([promotions for _, promotions in ended])),
    }


# --------------------------------------------------------------------------------------------------------------- report


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927)."""
    interval = stats.binomtest(hits, of).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def measure(quick: bool) -> tuple[list[Row], list[Claim]]:
    """All rows; --quick takes fewer replays and fewer sizes."""
    replays, sizes, lives = (300, (100, NIGHT_USERS), 20) if quick else (REPLAYS, USERS, REPLAYS)
    jobs: list[tuple[Callable[..., Row], tuple[Any, ...]]] = []
    for arm in ARMS:
        every = sizes if arm in CURVES else (NIGHT_USERS,)
        jobs += [(single_nights, (arm, users, replays)) for users in every]
    for name, chain in CHAINS.items():
        if not (quick and chain.careless):
            jobs.append((chains, (name, max(20, lives // chain.rarer), CHAIN_USERS)))
    rows = []
    # One thread each: threads that share a product of small matrices wait for one another (nine times slower).
    # Fewer processes than processors serve best: the product is bound by memory.
    processes = min(2, os.cpu_count() or 1)
    with ProcessPoolExecutor(max_workers=processes, initializer=threadpool_limits, initargs=(1,)) as workers:
        waiting = [(work, arguments, workers.submit(work, *arguments)) for work, arguments in jobs]
        for number, (_, arguments, done) in enumerate(waiting, start=1):
            rows.append(done.result())
            progress(f"{number} of {len(jobs)}: {', '.join(map(str, arguments))}")
    return rows, claims(rows)


def claims(rows: list[Row]) -> list[Claim]:
    """What docs/experiments.md says, from the rows."""
    nights = {(row["arm"], row["users"]): row for row in rows}
    single = [row for row in rows if "promoted" in row]
    equal = [row for row in single if row["arm"] in CURVES and row["arm"].startswith("equal")]
    better = [row for row in single if row["arm"] in CURVES and row["arm"].startswith("+1%")]
    at_margin = [row for row in single if any(word in row["arm"] for word in ("the margin", "at -2%", "anchor"))]
    # A chain whose every challenger is exactly equal cannot end worse, whatever is promoted: no claim is made of it.
    real = [
        row for row in rows if "mean end" in row and "careless" not in row["arm"] and "nights, equal" not in row["arm"]
    ]
    sizes = {row["users"] for row in better}
    enough = [users for users in sizes if all(row["promoted"] >= 0.8 for row in better if row["users"] >= users)]
    requests = max((row["requests"] for row in better if row["users"] == min(enough, default=0)), default=np.inf)
    night = [nights[arm, NIGHT_USERS]["promoted"] for arm in ("+1%", "+1%, mirrored")]
    return [
        claim(
            "equal in the judge's eyes, promoted, worst form and size",
            max(r["promoted"] for r in equal),
            "at most",
            0.025,
        ),
        claim("the same, Wilson interval's upper end", max(row["high"] for row in equal), "at most", 0.025),
        claim("+1% in the judge's eyes, promoted, default night, worst form", min(night), "at least", 0.8),
        claim("requests a night from which +1% is promoted in 80%", float(requests), "at most", 3000),
        claim(
            f"truly equal, judge off by {JUDGE_ERROR:.1%}: promoted",
            nights["equal, erring judge", NIGHT_USERS]["promoted"],
            "at most",
            0.025,
        ),
        claim(
            f"truly 1% worse, judge off by {JUDGE_ERROR:.1%}: promoted",
            nights["-1%, erring judge", NIGHT_USERS]["promoted"],
            "at most",
            0.025,
        ),
        claim(
            f"+1%, judge off by {JUDGE_ERROR:.1%}: promoted",
            nights["+1%, erring judge", NIGHT_USERS]["promoted"],
            "at least",
            0.8,
        ),
        claim(
            "+2% promoted, a slice or the anchor at its margin", max(r["promoted"] for r in at_margin), "at most", 0.025
        ),
        *(claim(f"{r['arm']}: worse by the margin", r["worse than start by margin"], "at most", 0.01) for r in real),
    ]


if __name__ == "__main__":
    run("verdict_power", measure, __doc__ or "")
