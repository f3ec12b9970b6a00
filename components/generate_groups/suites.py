"""What the helper lists must be before a ranker learns from them, as Great Expectations suites.

`description` is what is expected, `notes` how to mend it. Columns come from prepare.py.
"""

from __future__ import annotations

from great_expectations import expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from components.gate_limits import GROUPS_WITHOUT_SIGNAL, GROUPS_WITHOUT_SPREAD, REWARD_RANGE, Limit

HELPERS = "run generate_groups again; if it stays, a helper policy (goalrank/policies.py) has a bug"
REWARD = "look at the reward model's calibration and curves in the report; mend its training, or try another seed"


def groups() -> list[Expectation]:
    """Suite of the groups, one row a training request (prepare.group_rows)."""
    return [
        _exactly(1, "rows_of_request", "one group for each training request", HELPERS),
        _exactly(0, "lists_missing", "as many lists as the preset asks for", HELPERS),
        _exactly(0, "items_missing", "full lists: the list length, or all candidates where fewer", HELPERS),
        _exactly(0, "items_outside", "every item of a list among the candidates of its request", HELPERS),
        _exactly(0, "items_repeated", "distinct items in each list", HELPERS),
        _exactly(0, "rewards_not_finite", "finite rewards of every list by every head", REWARD),
        _exactly(0, "rewards_negative", "no negative reward: clicks, likes and watch time count up", REWARD),
        _exactly(0, "rewards_off_mean", "the reward of a list to be the mean of its heads'", HELPERS),
    ]


def whole() -> list[Expectation]:
    """Suite of all groups together, one row (prepare.whole)."""
    return [
        _exactly(0, "groups_missing", "a group for every training request that the ranker may learn from", HELPERS),
        *_limited(
            GROUPS_WITHOUT_SPREAD,
            "share_without_spread",
            "at most {limit:.0%} of the groups with lists that all earn the same",
            REWARD,
        ),
        *_limited(
            GROUPS_WITHOUT_SIGNAL,
            "share_without_signal",
            "at most {limit:.0%} of the groups with lists that differ by less than the reward model's noise",
            "more days of logs or a larger preset sharpen the reward model; the groups left decide alone",
        ),
        *_limited(
            REWARD_RANGE,
            "reward_against_logged",
            "no reward above {limit:g} times the largest that a logged list earned",
            REWARD,
        ),
    ]


def _limited(limit: Limit, column: str, expected: str, mend: str) -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=column,
            max_value=value,
            severity=severity,
            description=expected.format(limit=value),
            notes=mend,
        )
        for value, severity in ((limit.critical, FailureSeverity.CRITICAL), (limit.warning, FailureSeverity.WARNING))
        if value is not None
    ]


def _exactly(value: int, column: str, expected: str, mend: str) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=value,
        max_value=value,
        severity=FailureSeverity.CRITICAL,
        description=expected,
        notes=mend,
    )
