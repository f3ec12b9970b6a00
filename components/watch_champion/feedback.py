"""Served logs of both versions since the promotion, as one value a user: the mean reward of their requests.

A user belongs to the version that answered their first request in these logs, or, where none could, to the one that
was to answer it (components/serve_model/holdback.py). All their requests count for it, whoever answered them (intention
to treat): a champion that fails, so that users get the retriever's order, must neither look better by it nor lose the
users it fails. Requests without impressions are not in yet, and are left out.

Only Parquet files under SERVED/{requests,impressions}/dt=... are read, each pair of a name once (tally.py). What the
server still holds in its journal, to wait for feedback on it, is younger than about 35 minutes and is seen by a later
look.

Legend: U users, R requests, T champion's users, C predecessor's users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components import registry
from components.serve_model.holdback import RETRIEVER_POLICY, held_back

FIRST_USERS = 200
"""Users whose first request fixes the unit of information (sequential.lift's unit_variance): the first to come, hence
the same at every later look. Where fewer than FIRST_ACTIVE of them did anything: the first 400, 800, and so on."""
FIRST_ACTIVE = 10

NOBODYS = -1
"""Arm of a request that another version answered, and of a user whom only other versions answered."""


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


SUMMED = ("reward", "requests", "fallbacks", "by_champion", "by_predecessor")
FIRST = ("nobodys", "event_time", "request_id")
"""What orders a user's requests: the first of them by these makes the user one of the arm's."""


class Sums:
    """A row a user: what their requests add up to, and which of them was the first; requests themselves are not kept.

    Columns of the table: user_id, SUMMED, FIRST, and of the first request arm (1 champion, 0 predecessor, NOBODYS) and
    first_reward.
    """

    def __init__(self, table: pa.Table, seen_until: datetime) -> None:
        self._table, self._seen_until = table, seen_until

    @classmethod
    def of(cls, rows: pa.Table, split: Split) -> Sums:
        """Of requests (request_id, user_id, event_time, policy, reward), at least one, in any order."""
        policy_R, user_R = rows["policy"].to_numpy(), rows["user_id"].to_numpy()
        by_champion_R, by_predecessor_R = (policy_R == policy for policy in split.policies)
        fallback_R = policy_R == RETRIEVER_POLICY
        arm_R = np.select([by_champion_R, by_predecessor_R], [1, 0], default=NOBODYS)
        planned_U, user_F = np.unique(user_R[fallback_R], return_inverse=True)
        arm_R[fallback_R] = np.array([split.arm(user) for user in planned_U.tolist()], dtype=arm_R.dtype)[user_F]
        columns = {
            "user_id": user_R,
            "reward": rows["reward"],
            "requests": np.ones(len(user_R), np.int64),
            "fallbacks": fallback_R.astype(np.int64),
            "by_champion": by_champion_R.astype(np.int64),
            "by_predecessor": by_predecessor_R.astype(np.int64),
            "nobodys": (arm_R == NOBODYS).astype(np.int8),
            "event_time": rows["event_time"],
            "request_id": rows["request_id"],
            "arm": arm_R,
            "first_reward": rows["reward"],
        }
        return cls(_by_user(pa.table(columns)), pc.max(rows["event_time"]).as_py())

    @classmethod
    def together(cls, parts: Sequence[Sums]) -> Sums:
        """Of one or more parts that share no request."""
        seen_until = max(part._seen_until for part in parts)
        return cls(_by_user(pa.concat_tables(part._table for part in parts)), seen_until)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def feedback(self) -> Feedback:
        """A value a user."""
        of_U = {name: self._table[name].to_numpy() for name in (*SUMMED, "arm")}
        arm_U = of_U["arm"]
        mean_U = of_U["reward"] / of_U["requests"]
        other_U = np.select([arm_U == 1, arm_U == 0], [of_U["by_predecessor"], of_U["by_champion"]])
        return Feedback(
            champion_T=mean_U[arm_U == 1],
            predecessor_C=mean_U[arm_U == 0],
            unit_variance=self._unit_variance(),
            requests=int(of_U["requests"][arm_U != NOBODYS].sum()),
            fallbacks=int(of_U["fallbacks"].sum()),
            switched=int((other_U > 0).sum()),
            unassigned=int((arm_U == NOBODYS).sum()),
            seen_until=self._seen_until,
        )

    def _unit_variance(self) -> float | None:
        """Variance within the arms of the first rewards of the users who came first; see FIRST_USERS."""
        firsts = self._table.select([*FIRST, "arm", "first_reward"]).sort_by([(name, "ascending") for name in FIRST])
        arm_U, reward_U = firsts["arm"].to_numpy(), firsts["first_reward"].to_numpy()
        count = FIRST_USERS
        while count <= (arm_U != NOBODYS).sum():
            values, arms = reward_U[:count], arm_U[:count]
            parts = [values[arms == arm] - values[arms == arm].mean() for arm in np.unique(arms)]
            if np.count_nonzero(values) >= FIRST_ACTIVE and (squares := float((np.concatenate(parts) ** 2).sum())) > 0:
                return squares / (count - len(parts))
            count *= 2
        return None


def _by_user(table: pa.Table) -> pa.Table:
    """Rows of one user made one: SUMMED added, of everything else the first by FIRST."""
    table = table.sort_by([(name, "ascending") for name in ("user_id", *FIRST)])
    user_R = table["user_id"].to_numpy()
    starts_U = np.flatnonzero(np.concatenate([[True], user_R[1:] != user_R[:-1]]))
    made = table.take(pa.array(starts_U))
    for name in SUMMED:
        sums_U = np.add.reduceat(table[name].to_numpy(), starts_U)
        made = made.set_column(made.column_names.index(name), name, pa.array(sums_U))
    return made.combine_chunks()


def nothing_yet() -> Feedback:
    """Before the first request is in."""
    nobody = np.empty(0)
    return Feedback(nobody, nobody, None, 0, 0, 0, 0, None)
