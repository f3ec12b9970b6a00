"""Served logs of both versions since the promotion, as one value a user: the mean reward of their requests.

A user belongs to the version that answered their first request in these logs, or, where none could, to the one that
was to answer it (components/serve_model/holdback.py). All their later requests count for it, whoever answered them
(intention to treat): a champion that fails, so that users get the retriever's order, must neither look better by it nor
lose the users it fails. Requests without impressions are not in yet, and are left out.

Only Parquet files under SERVED/{requests,impressions}/dt=... are read. What the server still holds in its journal, to
wait for feedback on it, is younger than about 35 minutes and is seen by a later look.

Legend: U users, R requests, T champion's users, C predecessor's users.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import registry
from components.serve_model.holdback import RETRIEVER_POLICY, held_back
from goalrank import schema
from goalrank.errors import DataRefused

FIRST_USERS = 200
"""Users whose first request fixes the unit of information (sequential.lift's unit_variance): the first to come, hence
the same at every later look. Where fewer than FIRST_ACTIVE of them did anything: the first 400, 800, and so on."""
FIRST_ACTIVE = 10


@dataclass(frozen=True)
class Split:
    """Between whom the users are split, and how."""

    champion: str
    """Number of its version of the ranker."""
    predecessor: str
    holdback: float
    """Planned share of users that the predecessor answers."""

    @property
    def policies(self) -> tuple[str, str]:
        """requests.policy of answers by the champion and by the predecessor."""
        return f"{registry.RANKER}:{self.champion}", f"{registry.RANKER}:{self.predecessor}"

    def arm(self, user_id: int) -> int:
        """Who is to answer this user: 1 the champion, 0 the predecessor."""
        return int(not held_back(user_id, self.champion, self.predecessor, self.holdback))


@dataclass(frozen=True)
class Feedback:
    """What both versions' users did since the promotion."""

    champion_T: np.ndarray
    """Mean reward a request of each of the champion's users."""
    predecessor_C: np.ndarray
    unit_variance: float | None
    """Variance of one user's first reward, None while too few users (FIRST_USERS, FIRST_ACTIVE) have come."""
    requests: int
    fallbacks: int
    """Requests among them that no version answered."""
    switched: int
    """Users answered by both versions; they count for the first."""
    unassigned: int
    """Users whom only other versions answered."""
    seen_until: datetime | None


def read(served: Path, split: Split, since: datetime, until: datetime) -> Feedback:
    """Feedback on requests of [since, until).

    Args:
        served: folder of the served logs.
        split: whose users are compared.
        since, until: times of requests, UTC.

    Raises:
        DataRefused: a file cannot be read, lacks a column of the contract, or holds feedback that is not finite.
    """
    requests = _read(served, "requests", since, ["request_id", "user_id", "event_time", "policy"])
    inside = pc.and_(
        pc.greater_equal(requests["event_time"], pa.scalar(since, schema.TIMESTAMP)),
        pc.less(requests["event_time"], pa.scalar(until, schema.TIMESTAMP)),
    )
    columns = ["request_id", "click", "like", "watch_seconds"]
    shown = _read(served, "impressions", since, columns)
    rows = requests.filter(inside).join(_rewards(shown), "request_id", join_type="inner")
    rows = rows.sort_by([("event_time", "ascending"), ("request_id", "ascending")])
    if not rows.num_rows:
        nobody = np.empty(0)
        return Feedback(nobody, nobody, None, 0, 0, 0, 0, None)
    return by_user(rows, split)


def by_user(rows: pa.Table, split: Split) -> Feedback:
    """Values a user of requests (user_id, policy, event_time, reward) in the order of their times."""
    policy_R = rows["policy"].to_numpy()
    arm_R = np.select([policy_R == policy for policy in split.policies], [1, 0], default=-1)
    users_U, user_R = np.unique(rows["user_id"].to_numpy(), return_inverse=True)
    assigning_R = np.flatnonzero((arm_R >= 0) | (policy_R == RETRIEVER_POLICY))
    arm_U = np.full(len(users_U), -1)
    first_U = np.full(len(users_U), -1)
    seen_U, where = np.unique(user_R[assigning_R], return_index=True)  # the first occurrence: rows are in time's order
    arm_U[seen_U], first_U[seen_U] = arm_R[assigning_R[where]], assigning_R[where]
    for user in seen_U[arm_U[seen_U] < 0]:
        arm_U[user] = split.arm(int(users_U[user]))
    # From the first of these on: what another version answered before was nobody's.
    counted_R = (arm_U[user_R] >= 0) & (np.arange(len(user_R)) >= first_U[user_R])
    reward_R = rows["reward"].to_numpy()
    if wrong := int((~np.isfinite(reward_R)).sum()):
        raise DataRefused(f"the feedback on {wrong} of {len(reward_R)} requests is not finite; look at watch_seconds")
    sums_U = np.bincount(user_R[counted_R], reward_R[counted_R], minlength=len(users_U))
    means_U = sums_U / np.maximum(np.bincount(user_R[counted_R], minlength=len(users_U)), 1)
    other_R = (arm_R >= 0) & (arm_R != arm_U[user_R])
    return Feedback(
        champion_T=means_U[arm_U == 1],
        predecessor_C=means_U[arm_U == 0],
        unit_variance=_unit_variance(first_U, arm_U, reward_R),
        requests=int(counted_R.sum()),
        fallbacks=int((counted_R & (arm_R < 0)).sum()),
        switched=len(np.unique(user_R[other_R])),
        unassigned=int((arm_U < 0).sum()),
        seen_until=rows["event_time"][-1].as_py(),
    )


def _unit_variance(first_U: np.ndarray, arm_U: np.ndarray, reward_R: np.ndarray) -> float | None:
    """Variance within the arms of the first rewards of the users who came first; see FIRST_USERS."""
    order_U = np.argsort(np.where(arm_U >= 0, first_U, np.iinfo(first_U.dtype).max), kind="stable")
    count = FIRST_USERS
    while count <= (arm_U >= 0).sum():
        values, arms = reward_R[first_U[order_U[:count]]], arm_U[order_U[:count]]
        parts = [values[arms == arm] - values[arms == arm].mean() for arm in np.unique(arms)]
        if np.count_nonzero(values) >= FIRST_ACTIVE and (squares := float((np.concatenate(parts) ** 2).sum())) > 0:
            return squares / (count - len(parts))
        count *= 2
    return None


def _rewards(impressions: pa.Table) -> pa.Table:
    """(request_id, reward), a row a request (schema.RewardWeights)."""
    weights = schema.RewardWeights()
    minutes = pc.divide(pc.fill_null(impressions["watch_seconds"], 0.0), 60.0)
    reward = pc.add(
        pc.add(
            pc.multiply(pc.cast(impressions["click"], pa.float64()), weights.click),
            pc.multiply(pc.cast(impressions["like"], pa.float64()), weights.like),
        ),
        pc.multiply(minutes, weights.watch_minute),
    )
    table = pa.table({"request_id": impressions["request_id"], "reward": reward})
    return table.group_by("request_id").aggregate([("reward", "sum")]).rename_columns({"reward_sum": "reward"})


def _read(served: Path, table: str, since: datetime, columns: list[str]) -> pa.Table:
    """Rows that arrived on the day of `since` or later; nothing before it can be of a request after it."""
    first = f"dt={since.date().isoformat()}"
    wanted = pa.schema([schema.LOG_TABLES[table].field(name) for name in columns])
    parts = []
    for folder in sorted((served / table).glob("dt=*")):
        if folder.name < first:
            continue
        for file in sorted(folder.glob("*.parquet")):
            try:
                # A plain file: its folder's name must not become a column.
                parts.append(pq.ParquetFile(file).read(columns=columns).select(columns).cast(wanted))
            except FileNotFoundError:
                continue  # collected meanwhile
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise DataRefused(f"{file} cannot be read as {table} ({error}); mend it or take it away") from error
    return pa.concat_tables(parts) if parts else wanted.empty_table()
