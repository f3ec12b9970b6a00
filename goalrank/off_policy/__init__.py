"""Off-policy evaluation: what a ranker would have earned, from the logs of another one and their propensities.

    propensities.py  what may be divided by              weights.py     importance weights, effective sample size
    estimation.py    an answer and its influences        intervals.py   clustered by user
    item_level.py    IPS, SNIPS, DR of single items      list_level.py  the same of lists, prefixes and positions
    logged.py        which logged lists can be used      rankers.py     rankers and reward model along them
    comparison.py    challenger against champion         result.py      estimates, status, the minimum sample size

All but logged.py and rankers.py are functions of arrays and know no model. Each estimator returns an Estimation: the
value, and each request's influence on it, whose mean is the value and whose scatter is its uncertainty.
"""

from goalrank.off_policy.estimation import Estimation, logged_value
from goalrank.off_policy.intervals import cluster_intervals
from goalrank.off_policy.item_level import dr, ips, snips
from goalrank.off_policy.list_level import cascade_dr, item_position_dr, list_dr, list_ips, list_snips, rips
from goalrank.off_policy.propensities import require_propensities
from goalrank.off_policy.result import (
    MINIMUM_ESS,
    Estimate,
    OffPolicyResult,
    Status,
    conclude,
    not_applicable,
    with_intervals,
)
from goalrank.off_policy.weights import effective_sample_size, ratios, window_weights

__all__ = [
    "MINIMUM_ESS",
    "Estimate",
    "Estimation",
    "OffPolicyResult",
    "Status",
    "cascade_dr",
    "cluster_intervals",
    "conclude",
    "dr",
    "effective_sample_size",
    "ips",
    "item_position_dr",
    "list_dr",
    "list_ips",
    "list_snips",
    "logged_value",
    "not_applicable",
    "ratios",
    "require_propensities",
    "rips",
    "snips",
    "window_weights",
    "with_intervals",
]
