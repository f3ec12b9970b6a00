"""Checks on what was measured elsewhere: the off-policy estimate, and the budgets of latency and size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from goalrank.errors import UsageError
from goalrank.verdict.document import Check, OffPolicyEstimate, OffPolicySection, Status

OFF_POLICY_SETTINGS: tuple[Literal["required", "veto"], ...] = ("required", "veto")
"""required: an inconclusive estimate blocks promotion. veto: only a significant loss does."""


class _Estimated(Protocol):
    """What is read of goalrank.off_policy.Estimate."""

    @property
    def estimator(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def effective_sample_size(self) -> float: ...
    @property
    def requests(self) -> int: ...


class _Compared(Protocol):
    """What is read of goalrank.off_policy.OffPolicyResult."""

    @property
    def status(self) -> Status: ...
    @property
    def reason(self) -> str: ...
    @property
    def estimates(self) -> Mapping[str, Any]: ...


def require_off_policy_setting(setting: str) -> Literal["required", "veto"]:
    """The setting, if it is one.

    Raises:
        UsageError: it is neither of OFF_POLICY_SETTINGS.
    """
    for known in OFF_POLICY_SETTINGS:
        if known == setting:
            return known
    raise UsageError(f"off_policy {setting!r} found, expected one of {', '.join(OFF_POLICY_SETTINGS)}")


def off_policy_section(result: _Compared, setting: str) -> OffPolicySection:
    """The document's section; numbers that are not finite become None.

    Raises:
        UsageError: the setting is neither of OFF_POLICY_SETTINGS.
    """
    return OffPolicySection(
        setting=require_off_policy_setting(setting),
        status=result.status,
        reason=result.reason,
        estimates={name: _estimate(found) for name, found in result.estimates.items()},
    )


def off_policy_gate(section: OffPolicySection) -> Check:
    """The check, as it counts under the section's setting."""
    status, detail = section.counts_as, section.reason
    if status != section.status:
        detail = f"{section.status}, and the setting asks for a veto only: {detail}"
    difference = section.estimates.get("difference")
    return Check(
        name="off_policy",
        value=None if difference is None else difference.value,
        threshold=None,
        status=status,
        detail=detail,
    )


def within_budget(name: str, value: float | None, budget: float, unit: str) -> Check:
    """A check that a measured cost is at most its budget; what was not measured is inconclusive."""
    if value is None or not math.isfinite(value):
        return Check(name=name, value=None, threshold=budget, status="inconclusive", detail="not measured")
    status: Status = "passed" if value <= budget else "failed"
    return Check(
        name=name, value=value, threshold=budget, status=status, detail=f"{value:.4g} of at most {budget:g} {unit}"
    )


def _estimate(found: _Estimated) -> OffPolicyEstimate:
    return OffPolicyEstimate(
        estimator=found.estimator,
        value=_finite(found.value),
        low=_finite(found.low),
        high=_finite(found.high),
        effective_sample_size=_finite(found.effective_sample_size),
        requests=int(found.requests),
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
