"""Champion against challenger: the statistics, the decision, and the document that carries it.

The judge (a reward model neither ranker was optimised against) gives every evaluation request one reward for each
policy's list. The decision rests on the paired differences of these rewards, requests of one user kept together:

    first night        no champion: leave to bootstrap is needed, and the floor
    floor              challenger - retriever's order, interval's lower end above FLOOR
    superiority        challenger - champion, interval's lower end above SUPERIORITY: promote; otherwise keep
    refuse             anything not finite, or shown to be below the floor

A verdict is about one model version and one snapshot and is read back strictly: what is malformed is a no.

Shapes: R evaluation requests, C users (clusters), K bootstrap resamples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from goalrank.errors import ModelRefused

FORMAT: Literal[1] = 1

CONFIDENCE = 0.95
"""Two-sided; its lower end is a one-sided test at 2.5%, the share of equal challengers that may get promoted."""

FLOOR = 0.0
"""Judged reward a request above the retriever's order. Zero: a ranker that is not shown to beat the order it was given
costs a model server and earns nothing; any larger number would be in units of a particular service's feedback."""

SUPERIORITY = 0.0
"""Judged reward a request above the champion. Zero: the burden of proof lies in the interval, not in a margin."""

MINIMUM_USERS = 30
"""Below this many users the bootstrap distribution of a mean is too coarse and too narrow to decide on."""

RESAMPLES = 4000
"""The 2.5% point then rests on 100 resamples: its own Monte Carlo error is about a tenth of the interval's width."""

MAXIMUM_BYTES = 1_000_000
"""A verdict is a few kilobytes; what is larger is something else."""


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
    passed: bool


class Difference(_Document):
    """Mean paired difference of a metric with its confidence interval; metric units a request."""

    metric: str
    mean: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)


class _Verdict(_Document):
    format: Literal[1]
    model: ModelVersion
    snapshot_id: str = Field(min_length=1)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    reason: str = Field(min_length=1)
    checks: list[Check] = Field(min_length=1)


class EvaluationVerdict(_Verdict):
    """What evaluate_ranker decided about one version on one snapshot."""

    kind: Literal["evaluation"]
    champion: ModelVersion | None
    decision: Literal["promote", "keep", "refuse"]
    thresholds: dict[str, float]
    metrics: dict[str, dict[str, float | None] | None]
    difference: Difference | None

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationVerdict:
        if self.decision == "promote" and not all(check.passed for check in self.checks):
            failed = ", ".join(check.name for check in self.checks if not check.passed)
            raise ValueError(f"decision promote although these checks failed: {failed}")
        if self.decision == "keep" and self.champion is None:
            raise ValueError("decision keep although there is no champion to keep")
        if self.decision == "promote" and self.difference is None:
            raise ValueError("decision promote without the difference it rests on")
        return self


class ServingVerdict(_Verdict):
    """What smoke_serve saw when the registered version answered logged requests."""

    kind: Literal["serving"]
    decision: Literal["pass", "refuse"]
    requests: int = Field(ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ServingVerdict:
        if self.decision == "pass" and not all(check.passed for check in self.checks):
            failed = ", ".join(check.name for check in self.checks if not check.passed)
            raise ValueError(f"decision pass although these checks failed: {failed}")
        if self.decision == "pass" and self.requests == 0:
            raise ValueError("decision pass without a single request asked")
        return self


# --------------------------------------------------------------------------------------------------------- statistics


def paired_bootstrap(
    differences_R: np.ndarray,
    users_R: Sequence[Any] | np.ndarray | None = None,
    *,
    metric: str = "judged_reward",
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Difference:
    """Bootstrap interval of the mean per-request difference, resampling whole users.

    A user's requests share tastes, so they are drawn together (cluster bootstrap; Davison & Hinkley 1997, section
    3.8). The percentile interval is expanded for small C as Hesterberg (2015, "What Teachers Should Know About the
    Bootstrap", section 5.3) derives: without it the test at 2.5% promotes more than 2.5% of equal challengers.

    Args:
        differences_R: challenger minus the other, one request each; finite.
        users_R: whose request it was; None takes each request as its own user.

    Raises:
        ModelRefused: there is no request, or a difference is not finite.
    """
    from scipy import stats  # a second to import, which those that only read verdicts need not spend

    differences_R = np.asarray(differences_R, dtype=np.float64)
    if differences_R.ndim != 1 or differences_R.size == 0:
        raise ModelRefused(f"differences of shape {differences_R.shape} found, expected one number a request, not none")
    if not np.isfinite(differences_R).all():
        bad = int(np.count_nonzero(~np.isfinite(differences_R)))
        raise ModelRefused(f"{bad} of {differences_R.size} differences of {metric} are not finite")
    if users_R is None:
        sums_C, counts_C = differences_R, np.ones_like(differences_R)
    else:
        _, user_index_R = np.unique(np.asarray(users_R), return_inverse=True)
        sums_C = np.bincount(user_index_R, weights=differences_R)
        counts_C = np.bincount(user_index_R).astype(np.float64)
    mean = float(differences_R.mean())
    clusters = sums_C.size
    if clusters < 2:
        return Difference(metric=metric, mean=mean, low=mean, high=mean, confidence=confidence)

    random = np.random.default_rng(seed)
    means_K = np.empty(resamples)
    chunk = max(1, 4_000_000 // clusters)  # 32 MB of indices at a time
    for first in range(0, resamples, chunk):
        size = min(chunk, resamples - first)
        drawn_KC = random.integers(0, clusters, size=(size, clusters))
        means_K[first : first + size] = sums_C[drawn_KC].sum(axis=1) / counts_C[drawn_KC].sum(axis=1)
    tail = (1 - confidence) / 2
    expanded = stats.norm.cdf(math.sqrt(clusters / (clusters - 1)) * stats.t.ppf(tail, clusters - 1))
    low, high = np.quantile(means_K, [expanded, 1 - expanded])
    return Difference(metric=metric, mean=mean, low=float(low), high=float(high), confidence=confidence)


# ----------------------------------------------------------------------------------------------------------- decision


def decide(
    *,
    model: ModelVersion,
    champion: ModelVersion | None,
    snapshot_id: str,
    date: str,
    rewards: Mapping[str, np.ndarray],
    users_R: Sequence[Any] | np.ndarray | None,
    metrics: Mapping[str, Mapping[str, float | None] | None],
    allow_bootstrap: bool,
    seed: int,
    more_checks: Sequence[Check] = (),
) -> EvaluationVerdict:
    """The verdict about `model`.

    Args:
        rewards: judged reward of each request's list [R] under "challenger", "retriever" and, if there is one,
            "champion".
        metrics: figures of "challenger", "champion" (None if there is none), "retriever", "random"; None stands for
            a figure that does not apply, NaN is not finite and refuses.
        more_checks: further gates; each must have passed for a promotion, none of them refuses by itself.
    """
    thresholds = {
        "floor": FLOOR,
        "superiority": SUPERIORITY,
        "confidence": CONFIDENCE,
        "minimum_users": float(MINIMUM_USERS),
    }
    columns = ["challenger", "retriever", *(["champion"] if champion else [])]
    not_finite = _not_finite(metrics) + [
        f"rewards.{name}" for name in columns if not np.isfinite(np.asarray(rewards[name], dtype=np.float64)).all()
    ]
    checks = [Check(name="finite", value=float(len(not_finite)), threshold=0.0, passed=not not_finite)]
    difference: Difference | None = None

    def verdict(decision: Literal["promote", "keep", "refuse"], reason: str) -> EvaluationVerdict:
        return EvaluationVerdict(
            format=FORMAT,
            kind="evaluation",
            model=model,
            champion=champion,
            snapshot_id=snapshot_id,
            date=date,
            decision=decision,
            reason=reason,
            thresholds=thresholds,
            checks=checks,
            metrics={name: None if row is None else _finite_or_none(row) for name, row in metrics.items()},
            difference=difference,
        )

    if not_finite:
        return verdict("refuse", f"not finite: {', '.join(not_finite)}; look at the training curves of this run")

    challenger_R = np.asarray(rewards["challenger"], dtype=np.float64)
    users = len(challenger_R) if users_R is None else len(np.unique(np.asarray(users_R)))
    checks.append(
        Check(name="users", value=float(users), threshold=float(MINIMUM_USERS), passed=users >= MINIMUM_USERS)
    )
    if users == 0:
        return verdict(
            "refuse", f"the evaluation day {date} has no request that offers a choice, so nothing was judged"
        )
    floor = paired_bootstrap(challenger_R - np.asarray(rewards["retriever"]), users_R, seed=seed)
    checks.append(Check(name="floor", value=floor.low, threshold=FLOOR, passed=floor.low > FLOOR))
    checks.extend(more_checks)
    above_retriever = f"{_interval(floor)} above the retriever's order"

    if champion is None:
        difference = floor
        checks.append(Check(name="bootstrap_allowed", value=None, threshold=None, passed=allow_bootstrap))
        failed = [check.name for check in checks if not check.passed]
        if not allow_bootstrap:
            return verdict(
                "refuse",
                "there is no champion yet and the settings do not allow a first one; set allow_bootstrap "
                "(GOALRANK_ALLOW_BOOTSTRAP=true or --allow-bootstrap) once to let the floor decide alone",
            )
        if failed:
            return verdict("refuse", _first_night_refusal(failed, floor, users))
        return verdict("promote", f"first champion: judged reward {above_retriever}")

    difference = paired_bootstrap(challenger_R - np.asarray(rewards["champion"]), users_R, seed=seed)
    superior = difference.low > SUPERIORITY
    checks.append(Check(name="superiority", value=difference.low, threshold=SUPERIORITY, passed=superior))
    failed = [check.name for check in checks if not check.passed]
    if users >= MINIMUM_USERS and floor.high <= FLOOR:
        return verdict(
            "refuse", f"below the absolute floor: judged reward {above_retriever}, expected more than {FLOOR:g}"
        )
    if model == champion:
        return verdict("keep", f"version {model.version} is the champion already: this night ran before")
    compared = f"judged reward {_interval(difference)} against champion version {champion.version}"
    if failed:
        return verdict("keep", f"champion kept, not passed: {', '.join(failed)}; {compared}")
    return verdict("promote", f"{compared}, and {above_retriever}")


def _first_night_refusal(failed: list[str], floor: Difference, users: int) -> str:
    if "users" in failed:
        return (
            f"{users} users in the evaluation day, at least {MINIMUM_USERS} needed to decide; use logs with more users"
        )
    if "floor" in failed:
        return (
            f"below the absolute floor: judged reward {_interval(floor)} above the retriever's order, expected the "
            f"lower end above {FLOOR:g}; train longer (a larger preset) or on more days"
        )
    return f"not passed: {', '.join(failed)}"


def _interval(difference: Difference) -> str:
    percent = round(difference.confidence * 100)
    return f"{difference.mean:+.4f} a request ({percent}% interval {difference.low:+.4f} to {difference.high:+.4f})"


def _not_finite(metrics: Mapping[str, Mapping[str, float | None] | None]) -> list[str]:
    return [
        f"{policy}.{name}"
        for policy, row in metrics.items()
        for name, value in (row or {}).items()
        if value is not None and not math.isfinite(value)
    ]


def _finite_or_none(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: float(value) if value is not None and math.isfinite(value) else None for name, value in row.items()}


# ----------------------------------------------------------------------------------------------------------- document


def to_json(verdict: EvaluationVerdict | ServingVerdict) -> str:
    """The document as text, fields in a fixed order, no NaN in it."""
    return json.dumps(verdict.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


@overload
def load_verdict(path: str | Path, kind: Literal["evaluation"]) -> EvaluationVerdict: ...
@overload
def load_verdict(path: str | Path, kind: Literal["serving"]) -> ServingVerdict: ...
def load_verdict(path: str | Path, kind: Literal["evaluation", "serving"]) -> EvaluationVerdict | ServingVerdict:
    """Read a verdict back, strictly.

    Raises:
        ModelRefused: the file is missing, too large, no JSON, has a key twice, a NaN, an unknown or missing field, a
            wrong type, an unknown decision, or contradicts itself. The message names the file and each fault.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise ModelRefused(f"{kind} verdict {path} cannot be read ({error.strerror}); run that step again") from None
    if len(content) > MAXIMUM_BYTES:
        raise ModelRefused(f"{kind} verdict {path} is larger than {MAXIMUM_BYTES} bytes, so it is not a verdict")
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{kind} verdict {path} is not valid JSON ({error}); run that step again") from None
    schema: type[EvaluationVerdict] | type[ServingVerdict]
    schema = EvaluationVerdict if kind == "evaluation" else ServingVerdict
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}" for fault in error.errors()[:5]
        )
        raise ModelRefused(f"{kind} verdict {path} is malformed: {faults}; run that step again") from None


def require_about(
    verdict: EvaluationVerdict | ServingVerdict, model: ModelVersion, snapshot_id: str, date: str
) -> None:
    """Refuse a verdict that is about another version, other weights, another snapshot or another night.

    Raises:
        ModelRefused: naming what was found and expected.
    """
    pairs = [
        ("model", verdict.model.name, model.name),
        ("version", verdict.model.version, model.version),
        ("weights", verdict.model.weights_sha256, model.weights_sha256),
        ("snapshot", verdict.snapshot_id, snapshot_id),
        ("date", verdict.date, date),
    ]
    wrong = [f"{what} {found}, expected {expected}" for what, found, expected in pairs if found != expected]
    if wrong:
        raise ModelRefused(f"the {verdict.kind} verdict is about something else: {'; '.join(wrong)}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
