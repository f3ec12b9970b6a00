"""What an estimator answers, and the weighted mean that all of them are.

Legend: R requests (or logged rows), K columns of weights: one a position of the lists, or a single one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from goalrank.off_policy.weights import difference_sample_size, effective_sample_size, overall_sample_size


@dataclass(frozen=True)
class Estimation:
    """An estimator's answer before an interval is put around it."""

    estimator: str
    value: float
    influence_R: np.ndarray
    """Mean: the value. Deviations from it: first-order effect of each request (exact for means, linearised else)."""
    weights_RK: np.ndarray
    """One a position, or one a list; of a difference, the difference."""
    shares_K: np.ndarray
    """Of the logged reward, by position; they sum to 1."""
    effective_sample_size: float
    """What the weights are worth (goalrank.off_policy.weights)."""

    def minus(self, other: Estimation) -> Estimation:
        """The difference of two policies' values on the same log, request by request.

        It rests on the requests that the two weigh differently, so these alone are counted, for each policy by itself.
        Where a challenger differs from the policy that wrote the log, only what was explored tells anything of it: a
        thousand requests on which both agree do not make up for that.
        """
        weights_RK = self.weights_RK - other.weights_RK
        worth = difference_sample_size(weights_RK, self.shares_K)
        return Estimation(
            estimator=self.estimator,
            value=self.value - other.value,
            influence_R=self.influence_R - other.influence_R,
            weights_RK=weights_RK,
            shares_K=self.shares_K,
            effective_sample_size=min(worth, self.effective_sample_size, other.effective_sample_size),
        )


def logged_value(reward_RL: np.ndarray) -> Estimation:
    """What the logged lists earned: the logging policy's own value, needing no weights."""
    rewards_R = np.asarray(reward_RL, dtype=np.float64).sum(axis=1)
    return Estimation(
        estimator="mean",
        value=float(rewards_R.mean()),
        influence_R=rewards_R,
        weights_RK=np.ones((len(rewards_R), 1)),
        shares_K=np.ones(1),
        effective_sample_size=float(len(rewards_R)),
    )


def weighted(
    name: str,
    residual_RK: np.ndarray,
    weights_RK: np.ndarray,
    base_R: np.ndarray,
    self_normalised: bool,
    reward_RK: np.ndarray | None = None,
) -> Estimation:
    """mean(base) + sum over columns of the weighted mean of the residuals, and the influence of each request.

    The influence on a ratio sum(w e) / sum(w) = c is c + w (e - c) / mean(w): the delta method (Owen 2013, eq. 9.7).
    """
    if self_normalised:
        mean_K = weights_RK.mean(axis=0)
        share_RK = np.divide(weights_RK, mean_K, out=np.zeros_like(weights_RK), where=mean_K > 0)
        centre_K = (share_RK * residual_RK).mean(axis=0)
        terms_R = (centre_K + share_RK * (residual_RK - centre_K)).sum(axis=1)
    else:
        terms_R = (weights_RK * residual_RK).sum(axis=1)
    influence_R = base_R + terms_R
    earned_K = np.ones(1) if reward_RK is None else np.abs(reward_RK).sum(axis=0)
    share_K = earned_K / earned_K.sum() if earned_K.any() else np.full(len(earned_K), 1 / len(earned_K))
    return Estimation(
        estimator=name,
        value=float(influence_R.mean()),
        influence_R=influence_R,
        weights_RK=weights_RK,
        shares_K=share_K,
        effective_sample_size=overall_sample_size(effective_sample_size(weights_RK), share_K),
    )
