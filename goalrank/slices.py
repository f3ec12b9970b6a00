"""Which requests belong to the slices that the verdict judges on their own.

A slice is told by what was known at the midnight before (or by how much the request offers), never by what a ranker
answers: a slice that depended on the lists would differ between the two rankers that are compared on it.

    new_users     the user has clicked fewer than NEW_USER_CLICKS items, or is not known at all
    heavy_users   the fifth of the requests whose users have seen most
    new_items     the fifth of the requests with most candidates shown fewer than NEW_ITEM_IMPRESSIONS times
    short_lists   fewer than 2 L candidates, or fewer than L items shown: little room to choose
    topic_<t>     the user's most clicked topic bucket; the TOPIC_SLICES with most requests, the others in topic_rest

Shapes: R requests, N candidates, T topic buckets.
"""

from __future__ import annotations

import numpy as np

from goalrank.dataset import TrainingSet
from goalrank.features import ITEM_DENSE, USER_DENSE
from goalrank.schema import LIST_LENGTH
from goalrank.verdict.thresholds import TOPIC_SLICES

NEW_USER_CLICKS = 5
"""A history this short says little about tastes: a list has six places."""

NEW_ITEM_IMPRESSIONS = 10
"""An item's click rate is smoothed with the weight of twenty impressions (goalrank/features.py): with half of that its
features are still mostly the prior."""

EXTREME_SHARE = 0.2
"""Of the requests, in the slices that compare users, or requests, with each other."""


def slices_of(data: TrainingSet, indices_R: np.ndarray) -> dict[str, np.ndarray]:
    """By name, which of the requests (bool [R]) belong to each slice; slices overlap, and some may be empty."""
    user_R = data.user_row_E[indices_R]
    seen_R = data.users.dense_UF[user_R, USER_DENSE.index("log_impressions")]
    rows_RN, mask_RN = data.candidates.gather(indices_R)
    shown_RN = data.items.dense_IF[rows_RN, ITEM_DENSE.index("log_impressions")]
    new_R = ((shown_RN < np.log1p(NEW_ITEM_IMPRESSIONS) / 3 - 1e-6) & mask_RN).sum(axis=1)
    short_R = data.candidates.lengths[indices_R] < 2 * LIST_LENGTH
    return {
        "new_users": (data.users.history_items_UH[user_R] != 0).sum(axis=1) < NEW_USER_CLICKS,
        "heavy_users": _most(seen_R),
        "new_items": _most(new_R),
        "short_lists": short_R | (data.slates.lengths[indices_R] < LIST_LENGTH),
        **_topics(data.users.topics_UT[user_R]),
    }


def _most(values_R: np.ndarray) -> np.ndarray:
    """The requests with the largest values, ties with the last of them included; none where all are alike."""
    if not len(values_R):
        return np.zeros(0, dtype=bool)
    return (values_R >= np.quantile(values_R, 1 - EXTREME_SHARE)) & (values_R > values_R.min())


def _topics(shares_RT: np.ndarray) -> dict[str, np.ndarray]:
    """Requests by their user's leading topic; those of users without a click belong to none."""
    leading_R = np.where(shares_RT.sum(axis=1) > 0, shares_RT.argmax(axis=1), -1)
    found, counts = np.unique(leading_R[leading_R >= 0], return_counts=True)
    largest = found[np.argsort(-counts, kind="stable")][:TOPIC_SLICES]
    slices = {f"topic_{topic}": leading_R == topic for topic in sorted(largest)}
    if len(found) > len(largest):
        slices["topic_rest"] = (leading_R >= 0) & ~np.isin(leading_R, largest)
    return slices
