"""From ratings to requests: the offline protocol's filter, halves, slates, splits and days (docs/method.md).

Rating data has no requests, so they are made: each user's second half, cut into consecutive slates counted back from
the end. The last slate is test, the one before it validation, the rest train; what lies before them is history.

The calendar is laid out anew, since a rating site's own times are bursts (most users rated everything in one evening):
the history day first, then 28 days of train slates, then the validation day, then the test day. Within a user the true
order is kept.

Legend: R ratings, U users, I items, Q requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from goalrank.errors import DataRefused
from goalrank.schema import LIST_LENGTH

IntArray = npt.NDArray[np.int64]

HISTORY_DAY = date(2003, 3, 1)
"""First day of imported logs; the 30 days of requests follow it."""

TRAIN_DAYS = 28
DAY_MICROSECONDS = 86_400_000_000

HISTORY, TRAIN, VALIDATION, TEST = range(4)
SPLITS = ("history", "train", "validation", "test")


@dataclass(frozen=True)
class Ratings:
    """One row a rating, as read: ids as they will stand in the logs, times in any unit (they only order)."""

    user_id_R: IntArray
    item_id_R: IntArray
    rating_R: npt.NDArray[np.float64]
    time_R: IntArray


@dataclass(frozen=True)
class Sequences:
    """Ratings after the filter, by user and in time order; ``user_R`` and ``item_R`` index the sorted id arrays."""

    user_ids_U: IntArray
    item_ids_I: IntArray
    user_R: IntArray
    item_R: IntArray
    rating_R: npt.NDArray[np.float64]
    start_U: IntArray
    length_U: IntArray

    @property
    def first_halves(self) -> IntArray:
        """How many ratings [U] make each user's first half, the only part the retriever learns from."""
        return self.length_U // 2

    @property
    def in_first_half(self) -> npt.NDArray[np.bool_]:
        """Which ratings [R] lie in their user's first half."""
        return np.arange(len(self.user_R)) < (self.start_U + self.first_halves)[self.user_R]


@dataclass(frozen=True)
class Requests:
    """Requests in logs' order (day, time, user); the slate of request q is rows start_Q[q] : start_Q[q] + length_Q[q]
    of the sequences."""

    user_Q: IntArray
    number_Q: IntArray  # the request's place among its user's own, from 0
    start_Q: IntArray
    length_Q: IntArray
    split_Q: IntArray  # HISTORY, TRAIN, VALIDATION or TEST
    day_Q: IntArray  # days after HISTORY_DAY
    time_Q: IntArray  # microseconds after the midnight that starts HISTORY_DAY

    def __len__(self) -> int:
        return len(self.user_Q)

    def take(self, rows: IntArray) -> Requests:
        """These requests alone, in the given order."""
        return Requests(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def days(self) -> list[date]:
        """Every day that has requests, oldest first; they follow each other without a gap."""
        return [HISTORY_DAY + timedelta(days=int(day)) for day in np.unique(self.day_Q)]


def core_filter(user_R: IntArray, item_R: IntArray, minimum: int) -> npt.NDArray[np.bool_]:
    """Which rows stay when users and items must have at least ``minimum`` rows, applied until nothing changes.

    Args:
        user_R, item_R: small non-negative indices.
    """
    keep_R = np.ones(len(user_R), dtype=bool)
    while True:
        users_U = np.bincount(user_R[keep_R], minlength=int(user_R.max(initial=0)) + 1)
        items_I = np.bincount(item_R[keep_R], minlength=int(item_R.max(initial=0)) + 1)
        still_R = keep_R & (users_U[user_R] >= minimum) & (items_I[item_R] >= minimum)
        if still_R.sum() == keep_R.sum():
            return keep_R
        keep_R = still_R


def sequences(ratings: Ratings, core: int) -> Sequences:
    """The filtered ratings by user in time order; equal times stay in the order of the file.

    Raises:
        DataRefused: the filter leaves nothing, or nobody with enough ratings for one slate.
    """
    total = len(ratings.user_id_R)
    _, user_R = np.unique(ratings.user_id_R, return_inverse=True)
    _, item_R = np.unique(ratings.item_id_R, return_inverse=True)
    keep_R = np.flatnonzero(core_filter(user_R, item_R, core))
    if not len(keep_R):
        raise DataRefused(
            f"{total} ratings found, none is left when every user and item must have at least {core}; "
            "expected enough for one request; lower the core filter or bring more ratings"
        )
    keep_R = keep_R[np.lexsort((ratings.time_R[keep_R], user_R[keep_R]))]
    user_ids_U, user_R = np.unique(ratings.user_id_R[keep_R], return_inverse=True)
    item_ids_I, item_R = np.unique(ratings.item_id_R[keep_R], return_inverse=True)
    length_U = np.bincount(user_R)
    start_U = np.concatenate(([0], np.cumsum(length_U)[:-1]))
    result = Sequences(user_ids_U, item_ids_I, user_R, item_R, ratings.rating_R[keep_R], start_U, length_U)
    longest = int(length_U.max())
    if longest - longest // 2 < LIST_LENGTH:
        raise DataRefused(
            f"the longest of {len(length_U)} users has {longest} ratings, expected at least {2 * LIST_LENGTH - 1}: "
            f"a request is {LIST_LENGTH} ratings of a user's second half; bring longer histories"
        )
    return result


def make_requests(rows: Sequences, seed: int) -> Requests:
    """Cut every sequence into requests and lay them out over the days.

    The first half, and the up to five ratings between it and the first slate, are history: requests without a choice.
    """
    slates_U = (rows.length_U - rows.first_halves) // LIST_LENGTH
    before_U = rows.length_U - slates_U * LIST_LENGTH
    history_U = -(-before_U // LIST_LENGTH)
    count_U = history_U + slates_U
    user_Q = np.repeat(np.arange(len(count_U)), count_U)
    number_Q = _places(count_U)
    in_history_Q = number_Q < history_U[user_Q]
    slate_Q = number_Q - history_U[user_Q]
    offset_Q = np.where(in_history_Q, number_Q * LIST_LENGTH, before_U[user_Q] + slate_Q * LIST_LENGTH)
    length_Q = np.where(in_history_Q, np.minimum(LIST_LENGTH, before_U[user_Q] - offset_Q), LIST_LENGTH)
    left_Q = slates_U[user_Q] - slate_Q  # slates from this one to the user's last
    split_Q = np.select([in_history_Q, left_Q == 1, left_Q == 2], [HISTORY, TEST, VALIDATION], TRAIN)
    day_Q = _days(split_Q, user_Q, slate_Q, slates_U, seed)
    time_Q = _times(user_Q, day_Q, len(count_U), seed)
    made = Requests(user_Q, number_Q, rows.start_U[user_Q] + offset_Q, length_Q, split_Q, day_Q, time_Q)
    return made.take(np.lexsort((user_Q, time_Q)))


def split_counts(requests: Requests) -> Mapping[str, int]:
    """How many requests each split has."""
    return {name: int((requests.split_Q == number).sum()) for number, name in enumerate(SPLITS)}


def _places(count_G: IntArray) -> IntArray:
    """0, 1, ... count-1 for each group, one after the other."""
    return np.arange(int(count_G.sum())) - np.repeat(np.cumsum(count_G) - count_G, count_G)


def _days(split_Q: IntArray, user_Q: IntArray, slate_Q: IntArray, slates_U: IntArray, seed: int) -> IntArray:
    """Day of each request. Train slates are sorted by how far their user has come and dealt out in equal days."""
    train = np.flatnonzero(split_Q == TRAIN)
    phase_U = np.random.default_rng([seed, 2]).random(len(slates_U))
    come_T = (slate_Q[train] + phase_U[user_Q[train]]) / (slates_U[user_Q[train]] - 2)
    order_T = np.lexsort((slate_Q[train], user_Q[train], come_T))
    days = min(TRAIN_DAYS, len(train))  # few requests make fewer days: a day without requests is refused downstream
    day_Q = np.zeros(len(split_Q), dtype=np.int64)
    day_Q[train[order_T]] = 1 + np.arange(len(train)) * days // max(len(train), 1)
    day_Q[split_Q == VALIDATION] = days + 1
    day_Q[split_Q == TEST] = days + 1 + bool((split_Q == VALIDATION).any())
    return day_Q


def _times(user_Q: IntArray, day_Q: IntArray, users: int, seed: int) -> IntArray:
    """Event times: a user's requests of one day at equal distances, begun at the user's own time of day."""
    starts = np.flatnonzero(np.concatenate(([True], (np.diff(user_Q) != 0) | (np.diff(day_Q) != 0))))
    count_G = np.diff(np.concatenate((starts, [len(user_Q)])))
    phase_U = np.random.default_rng([seed, 3]).random(users)
    within_Q = (_places(count_G) + phase_U[user_Q]) / np.repeat(count_G, count_G)
    microsecond_Q = np.minimum((within_Q * DAY_MICROSECONDS).astype(np.int64), DAY_MICROSECONDS - 1)
    return day_Q * DAY_MICROSECONDS + microsecond_Q
