"""Off-policy estimators of single items: each logged row is one shown item, its propensity and what it earned.

Legend: n logged rows. `model` is a prediction of the reward that has not seen these rows.
"""

from __future__ import annotations

import numpy as np

from goalrank.off_policy.estimation import Estimation, weighted
from goalrank.off_policy.propensities import require_finite, require_probabilities, require_propensities
from goalrank.off_policy.weights import ratios


def ips(reward_n: np.ndarray, target_n: np.ndarray, propensity_n: np.ndarray) -> Estimation:
    """mean(w r), w = pi / mu. Horvitz & Thompson 1952; Swaminathan & Joachims 2015, section 3, the IPS estimator.

    Args:
        reward_n: of each shown item.
        target_n: the target policy's probability of the same item in the same context.
        propensity_n: the logging policy's.

    Raises:
        DataRefused: propensities that are none, rewards that are not finite (so do all estimators here).
    """
    reward_n, target_n, propensity_n = _rows(reward_n, target_n, propensity_n)
    return weighted("ips", reward_n[:, None], ratios(target_n, propensity_n)[:, None], np.zeros(len(reward_n)), False)


def snips(reward_n: np.ndarray, target_n: np.ndarray, propensity_n: np.ndarray) -> Estimation:
    """sum(w r) / sum(w). Swaminathan & Joachims 2015, section 5, the self-normalised estimator.

    A little biased, O(1/n); its variance does not grow with the level of the rewards, and it stays within their range.
    """
    reward_n, target_n, propensity_n = _rows(reward_n, target_n, propensity_n)
    return weighted("snips", reward_n[:, None], ratios(target_n, propensity_n)[:, None], np.zeros(len(reward_n)), True)


def dr(
    reward_n: np.ndarray,
    target_n: np.ndarray,
    propensity_n: np.ndarray,
    model_n: np.ndarray,
    model_value_n: np.ndarray,
    *,
    self_normalised: bool = False,
) -> Estimation:
    """mean(q(x, pi) + w (r - q(x, a))). Dudik, Langford & Li 2011, section 3, the doubly robust estimator.

    Args:
        model_n: q(x, a), the model's reward of the shown item.
        model_value_n: q(x, pi), its expectation under the target policy in the same context.
        self_normalised: divide by the mean weight (Thomas & Brunskill 2016, weighted doubly robust).
    """
    reward_n, target_n, propensity_n = _rows(reward_n, target_n, propensity_n)
    model_n = require_finite(model_n, "model rewards", reward_n.shape)
    base_n = require_finite(model_value_n, "model values", reward_n.shape)
    weights_n1 = ratios(target_n, propensity_n)[:, None]
    return weighted("dr", (reward_n - model_n)[:, None], weights_n1, base_n, self_normalised)


def _rows(
    reward_n: np.ndarray, target_n: np.ndarray, propensity_n: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    propensity_n = require_propensities(propensity_n).ravel()
    return (
        require_finite(reward_n, "rewards", propensity_n.shape),
        require_probabilities(target_n, "target probabilities", propensity_n.shape),
        propensity_n,
    )
