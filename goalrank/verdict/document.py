"""The verdict as a document: JSON, every field checked, and contradictions refused wherever it is built or read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from goalrank.verdict import consistency

FORMAT: Literal[3] = 3

MAXIMUM_BYTES = 1_000_000
"""A verdict is a few kilobytes; what is larger is something else."""

Status = Literal["passed", "failed", "inconclusive", "not_applicable"]
"""failed: shown to be on the wrong side. inconclusive: not shown to be on the right one. Both stop a promotion."""


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ModelVersion(_Document):
    """One registered version, and the digest of its weights."""

    name: str = Field(min_length=1)
    version: str = Field(pattern=r"^[1-9][0-9]*$")
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Check(_Document):
    """One question asked; value and threshold are None where a number does not apply or was not finite."""

    name: str = Field(min_length=1)
    value: float | None
    threshold: float | None
    status: Status
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether it stands in the way of nothing."""
        return self.status in ("passed", "not_applicable")


class Difference(_Document):
    """Mean paired difference of a metric with its confidence interval; metric units a request."""

    metric: str
    mean: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> Difference:
        if self.low > self.high:
            raise ValueError(f"interval from {self.low:g} to {self.high:g} found, expected its lower end first")
        return self


class Slice(_Document):
    """Challenger minus champion on the requests of one slice; margin in metric units a request."""

    name: str = Field(min_length=1)
    requests: int = Field(ge=0)
    users: int = Field(ge=0)
    champion: float | None
    difference: Difference | None
    margin: float | None
    status: Status


class OffPolicyEstimate(_Document):
    """One estimator's value of one policy, or of a difference; None where it was not finite."""

    estimator: str
    value: float | None
    low: float | None
    high: float | None
    effective_sample_size: float | None
    requests: int = Field(ge=0)


class OffPolicySection(_Document):
    """What logged propensities say, under the setting that says how much they must."""

    setting: Literal["required", "veto"]
    status: Status
    reason: str
    estimates: dict[str, OffPolicyEstimate]

    @property
    def counts_as(self) -> Status:
        """The check's status under the setting: where it is a mere veto, "inconclusive" does not apply."""
        return "not_applicable" if self.setting == "veto" and self.status == "inconclusive" else self.status


class _Verdict(_Document):
    format: Literal[3]
    model: ModelVersion
    snapshot_id: str = Field(min_length=1)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    reason: str = Field(min_length=1)
    judged_at: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")
    """By the judging machine's clock, in UTC. In the document, since a file's own time does not survive a copy."""
    checks: list[Check] = Field(min_length=1)

    @field_validator("judged_at")
    @classmethod
    def _a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value

    def age_hours(self, now: datetime | None = None) -> float:
        """Hours since it was judged; negative for one from the future."""
        return ((now or datetime.now(UTC)) - datetime.fromisoformat(self.judged_at)).total_seconds() / 3600

    def _named(self) -> dict[str, Check]:
        checks = {check.name: check for check in self.checks}
        if len(checks) != len(self.checks):
            raise ValueError("a check stands twice")
        return checks


class EvaluationVerdict(_Verdict):
    """What evaluate_ranker decided about one version on one snapshot."""

    kind: Literal["evaluation"]
    champion: ModelVersion | None
    anchor: ModelVersion | None
    decision: Literal["promote", "keep", "refuse"]
    requests: int = Field(ge=0)
    users: int = Field(ge=0)
    thresholds: dict[str, float]
    metrics: dict[str, dict[str, float | None] | None]
    difference: Difference | None
    anchor_difference: Difference | None
    slices: list[Slice]
    off_policy: OffPolicySection | None

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationVerdict:
        checks = self._named()
        if wrong := consistency.other_thresholds(self.thresholds):
            raise ValueError(wrong)
        if self.decision == "keep" and self.champion is None:
            raise ValueError("decision keep although there is no champion to keep")
        if "slices" in checks and checks["slices"].status != slices_status(self.slices):
            raise ValueError(f"check slices is {checks['slices'].status}, its slices say otherwise")
        if self.decision == "promote" and (against := list(consistency.against_promotion(self))):
            raise ValueError(f"decision promote although {'; '.join(against)}")
        return self


class ServingVerdict(_Verdict):
    """What smoke_serve saw when the registered version answered logged requests."""

    kind: Literal["serving"]
    decision: Literal["pass", "refuse"]
    requests: int = Field(ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ServingVerdict:
        self._named()
        if self.decision == "pass" and (against := list(consistency.against_pass(self))):
            raise ValueError(f"decision pass although {'; '.join(against)}")
        return self


def judged_now() -> str:
    """The present, as a verdict's `judged_at`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def slices_status(slices: Sequence[Slice]) -> Status:
    """The status of the check on slices: the worst of theirs; where nobody looked at any, nothing is shown."""
    return together(part.status for part in slices) if slices else "inconclusive"


def together(statuses: Iterable[Status]) -> Status:
    """The status of several questions that must all be answered well: the worst; not applicable where none was."""
    found = set(statuses)
    order: tuple[Status, ...] = ("failed", "inconclusive", "passed")
    return next((status for status in order if status in found), "not_applicable")


def to_json(verdict: EvaluationVerdict | ServingVerdict) -> str:
    """The document as text, fields in a fixed order, no NaN in it."""
    return json.dumps(verdict.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
