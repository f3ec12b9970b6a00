"""The comparison the night makes: one policy against another, or against the logged lists, on the same log.

The deciding estimator is `item_position_dr` (goalrank.off_policy.list_level says why); beside it stand the others, for
the report.

Legend: R requests, L positions.
"""

from __future__ import annotations

import numpy as np

from goalrank.off_policy import list_level
from goalrank.off_policy.estimation import Estimation, logged_value
from goalrank.off_policy.rankers import Target
from goalrank.off_policy.result import MINIMUM_ESS, OffPolicyResult, conclude, with_intervals

DECIDING = "item_position_dr"
OTHERS = ("list_ips", "list_snips", "list_dr", "rips", "cascade_dr")


def compare_policies(
    reward_RL: np.ndarray,
    propensity_RL: np.ndarray,
    users_R: np.ndarray | None,
    model_RL: np.ndarray,
    challenger: Target,
    champion: Target | None,
    *,
    note: str = "",
    minimum: float = MINIMUM_ESS,
) -> OffPolicyResult:
    """The challenger against the champion; against the logging policy's own value where there is none.

    Args:
        reward_RL: of each shown item, in units of schema.RewardWeights.
        propensity_RL: of each shown item given those above it.
        users_R: whose request it was; None takes each request as its own user.
        model_RL: the control variate's reward of each position of the logged list, seen down to that position.
        challenger, champion: from goalrank.off_policy.rankers.
        note: more for the reason.
        minimum: effective samples below which nothing is concluded.

    Raises:
        DataRefused: propensities that are none, or numbers that are not finite.
    """
    targets = {"challenger": challenger} | ({"champion": champion} if champion is not None else {})
    logging = logged_value(reward_RL)

    def estimate(name: str, target: Target) -> Estimation:
        return _estimate(name, reward_RL, propensity_RL, model_RL, target)

    estimations = {name: estimate(DECIDING, target) for name, target in targets.items()}
    estimations["logging_policy"] = logging
    other = "logging_policy" if champion is None else "champion"
    estimations["difference"] = estimations["challenger"].minus(estimations[other])
    for name in OTHERS:
        base = logging if champion is None else estimate(name, champion)
        estimations[f"difference.{name}"] = estimate(name, challenger).minus(base)
    return conclude(
        with_intervals(estimations, users_R),
        against="the logging policy" if champion is None else "the champion",
        note=note,
        minimum=minimum,
    )


def _estimate(
    name: str, reward_RL: np.ndarray, propensity_RL: np.ndarray, model_RL: np.ndarray, target: Target
) -> Estimation:
    plain = {"list_ips": list_level.list_ips, "list_snips": list_level.list_snips, "rips": list_level.rips}
    modelled = {
        "list_dr": list_level.list_dr,
        "cascade_dr": list_level.cascade_dr,
        "item_position_dr": list_level.item_position_dr,
    }
    log = (reward_RL, target.probability_RL, propensity_RL)
    if name in plain:
        return plain[name](*log)
    return modelled[name](*log, model_RL, target.model_value_R)
