"""decide(): judged rewards and gates in, a verdict out.

The judge (a reward model neither ranker was optimised against) gives every evaluation request one reward for each
policy's list. The decision rests on the paired differences of these rewards, requests of one user kept together:

    first night    no champion: leave to bootstrap is needed, and the floor
    floor          challenger - retriever's order, interval's lower end above FLOOR
    superiority    challenger - champion, interval's lower end above SUPERIORITY: this alone promotes
    slices         challenger - champion on each slice, lower end above -SLICE_MARGIN of the champion's reward there
    anchor         challenger - last week's champion, lower end above -ANCHOR_MARGIN of the anchor's reward
    gates          off-policy estimate, latency, size: measured elsewhere
    refuse         anything not finite on either side, or shown to be below the floor

Superiority promotes, all else only blocks: whatever the other checks do, an equal challenger is promoted no more often
than superiority's own level. Shapes: R evaluation requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from goalrank.verdict import thresholds as at
from goalrank.verdict.consistency import thresholds
from goalrank.verdict.document import (
    FORMAT,
    Check,
    Difference,
    EvaluationVerdict,
    ModelVersion,
    OffPolicySection,
    Slice,
    Status,
    judged_now,
)
from goalrank.verdict.slices import add_slices, judge_slices, slices_check
from goalrank.verdict.statistics import Comparisons


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
    gates: Sequence[Check] = (),
    slices: Mapping[str, np.ndarray] | None = None,
    anchor: ModelVersion | None = None,
    no_anchor: str = "no version has been champion for so long",
    off_policy: OffPolicySection | None = None,
    not_finite: Sequence[str] = (),
    resamples: int = at.RESAMPLES,
) -> EvaluationVerdict:
    """The verdict about `model`.

    Args:
        rewards: judged reward of each request's list [R] under "challenger", "retriever" and, where there is one,
            "champion" and "anchor".
        users_R: whose request it was; None takes each request as its own user.
        metrics: figures of "challenger", "champion" (None if there is none), "retriever", ...; None stands for a
            figure that does not apply, NaN is not finite and refuses.
        allow_bootstrap: may a first model become champion?
        seed: of the resamples.
        gates: further checks; each must have passed for a promotion, none of them refuses by itself. A promotion needs
            those of consistency.ALWAYS_ASKED that are not made here: latency, size, off_policy.
        slices: by name, which requests (bool [R]) belong to it.
        anchor: the version that was champion some time ago; None where there is none, and `no_anchor` says why.
        off_policy: the section for the document; its check is among the gates.
        not_finite: names of weights and losses, of either side, found not to be finite; rewards are not read then.
    """
    night = _Night(model, champion, anchor, snapshot_id, date, metrics, off_policy, resamples)
    bad = [*not_finite, *_not_finite(metrics)]
    if not not_finite:
        columns = ["challenger", "retriever", *(["champion"] if champion else []), *(["anchor"] if anchor else [])]
        rewards = {name: np.asarray(rewards[name], dtype=np.float64) for name in columns}
        bad += [f"rewards.{name}" for name in columns if not np.isfinite(rewards[name]).all()]
    named = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    night.check("finite", not bad, float(len(bad)), 0.0, named)
    if bad:
        return night.verdict(
            "refuse",
            f"not finite: {named}; look at the training curves of this run, or roll back if it is the champion's",
        )

    challenger_R = rewards["challenger"]
    compared = Comparisons(len(challenger_R), users_R, seed=seed, resamples=resamples)
    night.requests, night.users = len(challenger_R), compared.users()
    night.check("users", night.users >= at.MINIMUM_USERS, float(night.users), float(at.MINIMUM_USERS))
    if night.users == 0:
        return night.verdict(
            "refuse", f"the evaluation day {date} has no request that offers a choice, so nothing was judged"
        )
    compared.add("floor", challenger_R - rewards["retriever"])
    if champion is not None:
        compared.add("champion", challenger_R - rewards["champion"])
        add_slices(compared, challenger_R - rewards["champion"], slices or {})
        if anchor is not None:
            compared.add("anchor", challenger_R - rewards["anchor"])

    floor = compared.interval("floor")
    above_retriever = f"{_interval(floor)} above the retriever's order"
    night.check("floor", floor.low > at.FLOOR, floor.low, at.FLOOR, above_retriever, shown=floor.high <= at.FLOOR)
    night.checks.extend(gates)
    if champion is None:
        night.difference = floor
        return _first_night(night, floor, allow_bootstrap, above_retriever)

    night.difference = compared.interval("champion", at.PROMOTION_CONFIDENCE)
    against = f"judged reward {_interval(night.difference)} against champion version {champion.version}"
    low, high = night.difference.low, night.difference.high
    night.check("superiority", low > at.SUPERIORITY, low, at.SUPERIORITY, against, shown=high < at.SUPERIORITY)
    night.slices = judge_slices(compared, rewards["champion"], slices or {})
    night.checks.append(slices_check(night.slices))
    if anchor is None:
        night.checks.append(Check(name="anchor", value=None, threshold=None, status="not_applicable", detail=no_anchor))
    else:
        _hold_against(night, anchor, compared, rewards["anchor"])

    if night.users >= at.MINIMUM_USERS and floor.high <= at.FLOOR:
        return night.verdict(
            "refuse", f"below the absolute floor: judged reward {above_retriever}, expected more than {at.FLOOR:g}"
        )
    if model == champion:
        return night.verdict("keep", f"version {model.version} is the champion already: this night ran before")
    if failed := [_why(check) for check in night.checks if not check.passed]:
        return night.verdict("keep", f"champion kept, not passed: {'; '.join(failed)}; {against}")
    return night.verdict("promote", f"{against}, and {above_retriever}")


class _Night:
    """What is known of the verdict so far."""

    def __init__(
        self,
        model: ModelVersion,
        champion: ModelVersion | None,
        anchor: ModelVersion | None,
        snapshot_id: str,
        date: str,
        metrics: Mapping[str, Mapping[str, float | None] | None],
        off_policy: OffPolicySection | None,
        resamples: int,
    ) -> None:
        self._about: dict[str, Any] = {"model": model, "champion": champion, "anchor": anchor}
        self._about |= {"snapshot_id": snapshot_id, "date": date}
        self._metrics, self._off_policy, self._resamples = metrics, off_policy, resamples
        self.checks: list[Check] = []
        self.slices: list[Slice] = []
        self.difference: Difference | None = None
        self.anchor_difference: Difference | None = None
        self.requests = self.users = 0

    def check(
        self, name: str, passed: bool, value: float, threshold: float, detail: str = "", shown: bool = True
    ) -> None:
        """Note a check; one that is not passed has failed where the contrary is `shown`, else it is inconclusive."""
        status: Status = "passed" if passed else "failed" if shown else "inconclusive"
        self.checks.append(Check(name=name, value=value, threshold=threshold, status=status, detail=detail))

    def verdict(self, decision: Literal["promote", "keep", "refuse"], reason: str) -> EvaluationVerdict:
        """The document."""
        return EvaluationVerdict(
            format=FORMAT,
            kind="evaluation",
            **self._about,
            decision=decision,
            reason=reason,
            judged_at=judged_now(),
            requests=self.requests,
            users=self.users,
            thresholds={**thresholds(), "resamples": float(self._resamples)},
            checks=self.checks,
            metrics={name: None if row is None else _finite_or_none(row) for name, row in self._metrics.items()},
            difference=self.difference,
            anchor_difference=self.anchor_difference,
            slices=self.slices,
            off_policy=self._off_policy,
        )


def _first_night(night: _Night, floor: Difference, allow_bootstrap: bool, above_retriever: str) -> EvaluationVerdict:
    status: Status = "passed" if allow_bootstrap else "failed"
    night.checks.append(Check(name="bootstrap_allowed", value=None, threshold=None, status=status))
    failed = {check.name: check for check in night.checks if not check.passed}
    if not allow_bootstrap:
        return night.verdict(
            "refuse",
            "there is no champion yet and the settings do not allow a first one; set allow_bootstrap "
            "(GOALRANK_ALLOW_BOOTSTRAP=true or --allow-bootstrap) once to let the floor decide alone",
        )
    if "users" in failed:
        return night.verdict(
            "refuse",
            f"{night.users} users in the evaluation day, at least {at.MINIMUM_USERS} needed to decide; use logs with "
            "more users",
        )
    if "floor" in failed:
        return night.verdict(
            "refuse",
            f"below the absolute floor: judged reward {above_retriever}, expected the lower end above {at.FLOOR:g}; "
            "train longer (a larger preset) or on more days",
        )
    if failed:
        return night.verdict("refuse", f"not passed: {'; '.join(map(_why, failed.values()))}")
    return night.verdict("promote", f"first champion: judged reward {above_retriever}")


def _hold_against(night: _Night, anchor: ModelVersion, compared: Comparisons, anchor_R: np.ndarray) -> None:
    """Many nights of small losses, each within its night's noise, must not add up unseen."""
    difference = night.anchor_difference = compared.interval("anchor")
    margin = at.ANCHOR_MARGIN * abs(float(anchor_R.mean()))
    told = f"judged reward {_interval(difference)} against version {anchor.version}, may lose {margin:.4f}"
    night.check("anchor", difference.low > -margin, difference.low, -margin, told, shown=difference.high < -margin)


def _why(check: Check) -> str:
    named = check.name if check.status == "failed" else f"{check.name} ({check.status})"
    # The promotion's own interval is told at the end of the reason anyway.
    return named if check.name in ("superiority", "users") or not check.detail else f"{named}: {check.detail}"


def _interval(difference: Difference) -> str:
    percent = f"{difference.confidence * 100:g}"
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
