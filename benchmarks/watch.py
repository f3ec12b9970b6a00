"""How often the watch rolls back an equal champion, and how soon a worse one: `python -m benchmarks.watch [--quick]`.

Each replay is one promotion under the watch's own parts (components/watch_champion: sums by user, decide), looked at
after every batch of requests until it rolls back. Users come again and again, differ widely in what they give (gamma),
and a worse champion earns a share less from each of them. A champion that fails on a share of its users leaves those to
the retriever's order, and what it loses it loses on them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from benchmarks.replays import spread
from benchmarks.report import Claim, Row, claim, run
from components.serve_model.holdback import RETRIEVER_POLICY
from components.watch_champion.feedback import Split, Sums
from components.watch_champion.main import ALPHA, Look, decide
from goalrank import schema

REWARD = 0.5
"""Of a request with the predecessor, on average: about one click in two lists."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    users: int
    holdback: float
    loss: float
    replays: int
    uneven: bool = False  # a few users make most requests
    failing: float = 0.0  # share of the champion's users that no version answers
    looks: int = 30

    @property
    def requests(self) -> int:
        """Between two looks."""
        return self.users // 5


FULL = [
    Case(4_000, 0.05, 0.0, 2000),
    Case(4_000, 0.05, 0.0, 1000, uneven=True),
    Case(4_000, 0.3, 0.0, 1000),
    Case(4_000, 0.05, 0.0, 1000, failing=0.8),
    Case(4_000, 0.05, 0.2, 200),
    Case(4_000, 0.05, 0.4, 200),
    Case(4_000, 0.05, 0.4, 200, failing=1.0),
    Case(20_000, 0.05, 0.8, 100, failing=0.3),
    Case(20_000, 0.05, 0.1, 100),
    Case(20_000, 0.05, 0.2, 100),
    Case(20_000, 0.2, 0.1, 100),
]
QUICK = [replace(case, replays=case.replays // 20) for case in FULL]


def rolled_back_after(case: Case, seed: int) -> int | None:
    """The look that rolled the champion back, None if none did."""
    random = np.random.default_rng([seed, case.users])
    split = Split(str(seed + 2), str(seed + 1), case.holdback)
    taste_U = random.gamma(1.0, 1.0, case.users)
    back_U = np.array([split.arm(user) == 0 for user in range(case.users)])
    fails_U = ~back_U & (random.random(case.users) < case.failing)
    worse_U = fails_U if case.failing else ~back_U
    weight_U = random.pareto(1.5, case.users) + 0.1 if case.uneven else np.ones(case.users)
    user_R = random.choice(case.users, case.looks * case.requests, p=weight_U / weight_U.sum())
    rate_R = REWARD * taste_U[user_R] * np.where(worse_U[user_R], 1.0 - case.loss, 1.0)
    champion, predecessor = split.policies
    policy_U = np.select([fails_U, back_U], [RETRIEVER_POLICY, predecessor], champion)
    rows = pa.table(
        {
            "request_id": np.arange(len(user_R)),
            "user_id": user_R,
            "policy": policy_U[user_R],
            "event_time": pa.array(np.arange(len(user_R)), schema.TIMESTAMP),
            "reward": random.poisson(rate_R).astype(np.float64),
        }
    )
    so_far: list[Sums] = []
    for look in range(1, case.looks + 1):
        seen = Look("watching", "", champion=split.champion, predecessor=split.predecessor)
        new = Sums.of(rows.slice((look - 1) * case.requests, case.requests), split)
        so_far = [Sums.together([*so_far, new])]
        decide(seen, so_far[0].feedback(), case.holdback)
        if seen.state == "rolled_back":
            return look
    return None


def rows_of(quick: bool) -> tuple[list[Row], list[Claim]]:
    """The table and its claims."""
    rows, claims = [], []
    cases = QUICK if quick else FULL
    for case, found in zip(cases, spread(rolled_back_after, cases), strict=True):
        looks = [look for look in found if look is not None]
        share = len(looks) / case.replays
        rows.append(
            {
                "users": case.users,
                "held back": case.holdback,
                "loss": case.loss,
                "uneven": case.uneven,
                "failing": case.failing,
                "replays": case.replays,
                "rolled back": share,
                "requests until then (median)": int(np.median(looks)) * case.requests if looks else "",
            }
        )
        if case.loss == 0:
            name = f"equal champion rolled back, {case.users} users, {case.holdback:.0%} held back"
            name += ", uneven" * case.uneven + f", {case.failing:.0%} failing" * bool(case.failing)
            claims.append(claim(name, share, "at most", ALPHA / 2))
    return rows, claims


if __name__ == "__main__":
    run("watch", rows_of, __doc__ or "")
