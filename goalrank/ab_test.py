"""An A/B/n test: who sees which arm, what was seen of each user, and what may be concluded at every look.

The unit is the user: a salted hash of the id says the arm, for good, so that assignment needs no table and two
experiments with other salts are independent. A user's value of a metric is the mean over the lists shown to them so
far; users who came for few lists count as much as those who came for many.

Every interval of every look holds at once with 1 - alpha: goalrank.sequential.lift makes each valid at all looks, and
Bonferroni divides alpha over the family of (arm, metric) pairs. Half of alpha goes to the primary metric, on which
decisions rest, half to the others together. So a look a day, and stopping at the first decision, cost nothing.

Users differ far more than policies do, so values are adjusted for what each user did before the test: the covariate
adjustment that the confidence sequence's paper allows for in randomised experiments, in the form of Deng, Xu, Kohavi
and Walker (WSDM 2013, CUPED). Who has no past is not adjusted. It moves no expectation, since the past is the
same whatever the arm.

Users' values ripen as they come back, so the intervals count information and not users (sequential.lift,
`unit_variance`); this assumes that a user's lists are alike in distribution over the days, up to what happens to all
arms alike.

Legend: R requests, U users seen, M metrics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from goalrank.errors import DataRefused, UsageError
from goalrank.sequential import MINIMUM_UNITS, Lift, SampleRatio, lift, sample_ratio

METRICS = ("reward", "clicks", "likes", "watch_seconds", "positives")
"""Each the sum over a list. positives: items that were clicked and then liked or watched for POSITIVE_SECONDS."""
PRIMARY = "reward"
PRIMARY_SHARE = 0.5
"""Of alpha, spent on the primary metric."""
POSITIVE_SECONDS = 30.0
ALPHA = 0.05
SAMPLE_RATIO_ALPHA = 0.01
"""An experiment whose split is off teaches nothing; the test of it has an alpha of its own."""

Decision = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Look:
    """What is known at the end of one day; lifts are against the control, in the metric's own unit per list."""

    date: str
    users: dict[str, int]
    requests: dict[str, int]
    means: dict[str, dict[str, float]]  # arm -> metric -> mean over users
    lifts: dict[str, dict[str, Lift]]  # arm (without the control) -> metric
    sample_ratio: SampleRatio  # p-value: the smallest of all looks so far

    def decisions(self) -> dict[str, Decision]:
        """What the primary metric says of each arm; nothing where the split is off."""
        return {arm: self.decision(arm, PRIMARY) for arm in self.lifts}

    def decision(self, arm: str, metric: str) -> Decision:
        """What one metric says of one arm."""
        found = self.lifts[arm][metric]
        if not self.sample_ratio.passed or not found.decided:
            return "undecided"
        return "better" if found.low > 0 else "worse"


def arm_numbers(user_ids: Sequence[int] | np.ndarray, shares: Sequence[float], salt: str) -> np.ndarray:
    """Arm of each user, 0..A-1: SHA-256 of salt and id as a number in [0, 1), cut by the cumulated shares."""
    point_U = np.array(
        [int.from_bytes(hashlib.sha256(f"{salt}:{int(user)}".encode()).digest()[:8], "big") for user in user_ids],
        dtype=np.float64,
    )
    cut_A = np.cumsum(shares)
    return np.minimum(np.searchsorted(cut_A, point_U / 2.0**64, side="right"), len(cut_A) - 1)


@dataclass
class AbTest:
    """One experiment: its plan, and everything seen so far."""

    arms: tuple[str, ...]
    control: str
    salt: str
    shares: dict[str, float] = field(default_factory=dict)  # empty: equal
    alpha: float = ALPHA
    looks: list[Look] = field(default_factory=list)
    _arm_of: dict[int, int] = field(default_factory=dict, repr=False)
    _row_of: dict[int, int] = field(default_factory=dict, repr=False)
    _sums_UM: np.ndarray = field(default_factory=lambda: np.zeros((0, len(METRICS))), repr=False)
    _lists_U: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    _arm_U: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    _past: dict[int, np.ndarray] = field(default_factory=dict, repr=False)  # user -> mean of each metric
    _past_UM: np.ndarray = field(default_factory=lambda: np.zeros((0, len(METRICS))), repr=False)  # NaN: none
    _unit_variance: dict[tuple[str, str], float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: fewer than two arms, a name twice, a control that is no arm, shares of other arms.
        """
        if len(self.arms) < 2 or len(set(self.arms)) != len(self.arms):
            raise UsageError(f"arms {', '.join(self.arms) or 'none'} found, expected two or more, each named once")
        if self.control not in self.arms:
            raise UsageError(f"control {self.control!r} found, expected one of {', '.join(self.arms)}")
        self.shares = self.shares or {arm: 1.0 / len(self.arms) for arm in self.arms}
        sample_ratio(dict.fromkeys(self.arms, 0), self.shares)  # refuses shares that make no sense

    def arm_numbers(self, user_ids: np.ndarray) -> np.ndarray:
        """Row of `arms` for each user id; ids may repeat."""
        unique, inverse = np.unique(user_ids, return_inverse=True)
        new = [user for user in unique.tolist() if user not in self._arm_of]
        found = arm_numbers(new, [self.shares[arm] for arm in self.arms], self.salt)
        self._arm_of.update(zip(new, found.tolist(), strict=True))
        return np.array([self._arm_of[user] for user in unique.tolist()], dtype=np.int64)[inverse]

    def remember(self, user_ids: np.ndarray, values: Mapping[str, np.ndarray], lists: np.ndarray | None = None) -> None:
        """Take in what users did before the test, as :meth:`add` takes in what they do in it; before the first add.

        Raises:
            DataRefused: as :meth:`add`.
        """
        values_RM = np.stack([_column(values, metric, len(user_ids)) for metric in METRICS], axis=1)
        unique, inverse = np.unique(user_ids, return_inverse=True)
        sums_UM, lists_U = np.zeros((len(unique), len(METRICS))), np.zeros(len(unique))
        np.add.at(sums_UM, inverse, values_RM)
        np.add.at(lists_U, inverse, np.ones(len(inverse)) if lists is None else lists)
        self._past = dict(zip(unique.tolist(), sums_UM / np.maximum(lists_U, 1.0)[:, None], strict=True))

    def add(self, user_ids: np.ndarray, values: Mapping[str, np.ndarray], lists: np.ndarray | None = None) -> None:
        """Take in one day's lists: the user of each, and each metric's value of it.

        Args:
            user_ids: (R,), repeats allowed.
            values: each of METRICS, (R,).
            lists: how many lists each row sums up, (R,); by default one.

        Raises:
            DataRefused: a metric is missing, has another length, or is not finite.
        """
        values_RM = np.stack([_column(values, metric, len(user_ids)) for metric in METRICS], axis=1)
        unique, inverse = np.unique(user_ids, return_inverse=True)
        new = [user for user in unique.tolist() if user not in self._row_of]
        self._row_of.update({user: len(self._lists_U) + number for number, user in enumerate(new)})
        self._sums_UM = np.concatenate([self._sums_UM, np.zeros((len(new), len(METRICS)))])
        self._lists_U = np.concatenate([self._lists_U, np.zeros(len(new))])
        self._arm_U = np.concatenate([self._arm_U, self.arm_numbers(np.array(new, dtype=np.int64))])
        unknown_M = np.full(len(METRICS), np.nan)
        past = [self._past.get(user, unknown_M) for user in new]
        self._past_UM = np.concatenate([self._past_UM, np.array(past).reshape(-1, len(METRICS))])
        row_R = np.array([self._row_of[user] for user in unique.tolist()], dtype=np.int64)[inverse]
        np.add.at(self._sums_UM, row_R, values_RM)
        np.add.at(self._lists_U, row_R, np.ones(len(row_R)) if lists is None else lists)

    def look(self, date: str) -> Look:
        """Conclude from what was seen so far, and keep it among `looks`."""
        mean_UM = self._sums_UM / np.maximum(self._lists_U, 1.0)[:, None]
        rows = {arm: np.flatnonzero(self._arm_U == number) for number, arm in enumerate(self.arms)}
        users = {arm: len(rows_u) for arm, rows_u in rows.items()}
        ratio = sample_ratio(users, self.shares, SAMPLE_RATIO_ALPHA)
        smallest = min([ratio.p_value, *(look.sample_ratio.p_value for look in self.looks)])
        found = Look(
            date=date,
            users=users,
            requests={arm: int(self._lists_U[rows_u].sum()) for arm, rows_u in rows.items()},
            means={
                arm: {
                    metric: float(mean_UM[rows_u, column].mean()) if len(rows_u) else math.nan
                    for column, metric in enumerate(METRICS)
                }
                for arm, rows_u in rows.items()
            },
            lifts={
                arm: {
                    metric: self._lift(arm, metric, mean_UM[:, column], rows[arm], rows[self.control])
                    for column, metric in enumerate(METRICS)
                }
                for arm in self.arms
                if arm != self.control
            },
            sample_ratio=SampleRatio(smallest, smallest > SAMPLE_RATIO_ALPHA),
        )
        self.looks.append(found)
        return found

    def level(self, metric: str) -> float:
        """The alpha of one interval of that metric: its part of the family's."""
        pairs = len(self.arms) - 1
        if metric == PRIMARY:
            return self.alpha * PRIMARY_SHARE / pairs
        return self.alpha * (1 - PRIMARY_SHARE) / (pairs * (len(METRICS) - 1))

    def _lift(self, arm: str, metric: str, value_U: np.ndarray, treated: np.ndarray, controls: np.ndarray) -> Lift:
        """The interval; infinite while an arm has too few users or nobody's value differs from anybody's."""
        past_U = self._past_UM[:, METRICS.index(metric)]
        treatment, control = adjusted(value_U[treated], value_U[controls], past_U[treated], past_U[controls])
        smaller = min(len(treatment), len(control))
        spread = float(treatment.var(ddof=1) + control.var(ddof=1)) / 2 if smaller >= MINIMUM_UNITS else 0.0
        if spread <= 0:
            mean = float(treatment.mean() - control.mean()) if smaller else math.nan
            return Lift(mean, -math.inf, math.inf, len(treatment), len(control))
        variance = self._unit_variance.setdefault((arm, metric), spread)
        return lift(treatment, control, self.level(metric), unit_variance=variance)


def adjusted(
    treatment: np.ndarray, control: np.ndarray, treatment_past: np.ndarray, control_past: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values of two arms less what the users' past foretells: y - theta (x - mean x).

    theta is the slope of value on past within the arms, both pooled; mean x is over the users of both who have a past.
    NaN means no past: the value stays as it is. With too few pasts, or all alike, nothing is adjusted.
    """
    known_T, known_C = ~np.isnan(treatment_past), ~np.isnan(control_past)
    if min(known_T.sum(), known_C.sum()) < MINIMUM_UNITS:
        return treatment, control
    covariance = variance = 0.0
    for value, past in ((treatment[known_T], treatment_past[known_T]), (control[known_C], control_past[known_C])):
        covariance += float(((value - value.mean()) * (past - past.mean())).sum())
        variance += float(((past - past.mean()) ** 2).sum())
    if variance <= 0:
        return treatment, control
    theta = covariance / variance
    middle = float(np.concatenate([treatment_past[known_T], control_past[known_C]]).mean())
    return (
        treatment - theta * np.where(known_T, treatment_past - middle, 0.0),
        control - theta * np.where(known_C, control_past - middle, 0.0),
    )


def _column(values: Mapping[str, np.ndarray], metric: str, length: int) -> np.ndarray:
    if metric not in values:
        raise DataRefused(f"metrics {sorted(values)} found, expected {', '.join(METRICS)}")
    column = np.asarray(values[metric], dtype=np.float64)
    if column.shape != (length,) or not np.isfinite(column).all():
        raise DataRefused(f"{metric} has shape {column.shape}, expected {length} finite values, one a list")
    return column
