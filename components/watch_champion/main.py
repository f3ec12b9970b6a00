"""watch_champion: one look at how the new champion fares against its predecessor; a shown loss rolls it back.

A promotion is watched for a stated time. Meanwhile the server goes on answering a share of users (the holdback) with
the version before, so the two are compared on concurrent traffic, a value a user (feedback.py), by statistics that hold
however often one looks (goalrank/sequential.py):

    nothing       no promotion to watch: none yet, the newest move is a roll-back, there was no predecessor, no holdback
    waiting       too few users yet
    watching      no loss shown so far
    alert         users did not come in the planned shares: the comparison is worth nothing, so nothing is decided
    rolled_back   the interval of the difference lies below zero (would_roll_back: a dry run)
    over          the time is up and no loss was shown: the champion stays, nobody watches any longer
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from components import registry
from components.promote_model import journal, lineage
from components.promote_model.rollback import roll_back
from components.step import Step, run_alone
from components.watch_champion import feedback
from components.watch_champion.tally import Tally
from goalrank import sequential
from goalrank.errors import DataRefused, ModelRefused, UsageError

WATCH_DAYS = 7.0
"""Default time a promotion is watched for."""

ALPHA = 0.05
"""Two-sided: the chance that a champion as good as its predecessor is ever rolled back is at most half of it."""

RATIO_ALPHA = 0.001
"""Chance of an alert, ever, while the split is as planned."""

SETTLING = timedelta(seconds=60)
"""Not compared after a promotion: servers look at the registry every few seconds, each on its own time."""

State = Literal["nothing", "waiting", "watching", "alert", "rolled_back", "would_roll_back", "over"]


@dataclass
class Look:
    """What one look saw and did. Rewards are per request, averaged over users."""

    state: State
    reason: str
    champion: str | None = None
    predecessor: str | None = None
    promoted_at: str | None = None
    watched_until: str | None = None
    seen_until: str | None = None
    users: dict[str, int] | None = None
    rewards: dict[str, float] | None = None
    requests: int = 0
    fallbacks: int = 0
    switched_users: int = 0
    """Answered by both versions; they count for the first."""
    unassigned_users: int = 0
    """Answered by other versions only."""
    difference: dict[str, float] | None = None
    """mean, low, high of champion minus predecessor."""
    sample_ratio_p: float | None = None
    rollback: dict[str, Any] | None = None


@dataclass
class Kept:
    """What a look leaves to the next one, so that it need not read again what was read."""

    tally: Tally | None = None

    def of(self, served: Path, split: feedback.Split, since: datetime, until: datetime) -> Tally:
        """The tally of the promotion that is watched now."""
        if self.tally is None or self.tally.about != (served, split, since, until):
            self.tally = Tally(served, split, since, until)
        return self.tally


def run(
    served_uri: str,
    tracking_uri: str,
    journal_uri: str,
    run_uri: str,
    holdback: float,
    watch_days: float = WATCH_DAYS,
    dry_run: bool = False,
) -> None:
    """Look once; the outcome is written before anything is raised.

    Args:
        served_uri: folder of the served logs (WORKSPACE/served).
        tracking_uri: MLflow.
        journal_uri: promotions' journal.
        run_uri: folder for the outcome.
        holdback: share of users that the server answers with the predecessor.
        watch_days: how long a promotion is watched.
        dry_run: decide, and change nothing.

    Raises:
        ModelRefused: the champion loses and was (or would be) rolled back.
        DataRefused: the split between the versions is broken, or a served log cannot be read.
        TryAgain: MLflow is away, or another promoter is at work.
    """
    with Step("watch_champion", run_uri) as step:
        seen = look(served_uri, tracking_uri, journal_uri, holdback, watch_days, dry_run=dry_run)
        step.figures, step.reason = asdict(seen), seen.reason
        raise_for(seen)


def raise_for(seen: Look) -> None:
    """Turn a look that somebody must hear of into an error.

    Raises:
        ModelRefused: rolled back. DataRefused: alert.
    """
    if seen.state in ("rolled_back", "would_roll_back"):
        raise ModelRefused(seen.reason)
    if seen.state == "alert":
        raise DataRefused(seen.reason)


def look(
    served_uri: str,
    tracking_uri: str,
    journal_uri: str,
    holdback: float,
    watch_days: float = WATCH_DAYS,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    kept: Kept | None = None,
) -> Look:
    """Look at the newest promotion's feedback up to now and act on it.

    Give every look the same `kept`, and it reads only what was served since the look before.

    Raises:
        UsageError: holdback or watch_days are out of range.
        DataRefused: a served log cannot be read, or a value in it is not finite.
        ModelRefused: the journal is damaged, or the version to return to cannot serve.
        TryAgain: MLflow is away, or another promoter is at work.
    """
    if not 0 <= holdback < 1 or not watch_days > 0:
        raise UsageError(f"holdback {holdback}, watch_days {watch_days} found, expected a share below 1 and some days")
    now = now or datetime.now(UTC)
    if not dry_run:
        journal.repair(tracking_uri, journal_uri, "watch")
    seen, since, until = _watched(journal.read(journal_uri), timedelta(days=watch_days))
    if seen.state != "watching":
        return seen
    if holdback == 0:
        seen.state, seen.reason = "nothing", "no user is held back (holdback 0), so there is nothing to compare with"
        return seen
    split = feedback.Split(str(seen.champion), str(seen.predecessor), holdback)
    tally = (kept or Kept()).of(Path(served_uri), split, since, until)
    decide(seen, tally.feedback(now), holdback)
    if seen.state == "rolled_back":
        # Only from this champion: should another have been promoted meanwhile, its own watch begins.
        seen.rollback = roll_back(
            tracking_uri,
            journal_uri,
            seen.reason,
            to=seen.predecessor,
            by="watch",
            champion=seen.champion,
            dry_run=dry_run,
        )
        seen.state = "would_roll_back" if dry_run else "rolled_back"
    elif seen.state in ("waiting", "watching") and now >= until:
        seen.state, seen.reason = "over", f"watched for {watch_days:g} days without a shown loss: {seen.reason}"
    return seen


def decide(seen: Look, found: feedback.Feedback, holdback: float) -> None:
    """Judge the feedback and write state, reason and figures into `seen`; nothing else is touched."""
    counts = {"champion": len(found.champion_T), "predecessor": len(found.predecessor_C)}
    seen.users, seen.requests, seen.fallbacks = counts, found.requests, found.fallbacks
    seen.switched_users, seen.unassigned_users = found.switched, found.unassigned
    seen.seen_until = found.seen_until.isoformat() if found.seen_until else None
    shares = {"champion": 1 - holdback, "predecessor": holdback}
    ratio = sequential.sample_ratio(counts, shares, RATIO_ALPHA)
    seen.sample_ratio_p = ratio.p_value
    if not ratio.passed:
        everybody = sum(counts.values())
        seen.state, seen.reason = (
            "alert",
            f"{counts['predecessor']} of {everybody} users were answered by version {seen.predecessor}, expected "
            f"{holdback:.1%} (p = {ratio.p_value:.2g}): the split is broken, so nothing is decided; look whether every "
            f"server has taken version {seen.champion} over, and with which holdback it was started{_failures(found)}",
        )
        return
    if min(counts.values()) < sequential.MINIMUM_UNITS or found.unit_variance is None:
        seen.state, seen.reason = (
            "waiting",
            f"{counts['champion']} users of version {seen.champion} and {counts['predecessor']} of version "
            f"{seen.predecessor} seen; needed are {sequential.MINIMUM_UNITS} of each, {feedback.FIRST_USERS} in all, "
            f"{feedback.FIRST_ACTIVE} of them with feedback",
        )
        return
    lift = sequential.lift(found.champion_T, found.predecessor_C, ALPHA, unit_variance=found.unit_variance)
    seen.rewards = {"champion": float(found.champion_T.mean()), "predecessor": float(found.predecessor_C.mean())}
    seen.difference = {"mean": lift.mean, "low": lift.low, "high": lift.high}
    measured = (
        f"reward a request {seen.rewards['champion']:.4f} with version {seen.champion} ({counts['champion']} users), "
        f"{seen.rewards['predecessor']:.4f} with version {seen.predecessor} ({counts['predecessor']} users), "
        f"difference {lift.mean:+.4f} ({1 - ALPHA:.0%} interval at all looks {lift.low:+.4f} to {lift.high:+.4f})"
        + _failures(found)
    )
    if lift.high < 0:
        seen.state, seen.reason = "rolled_back", f"live feedback shows a loss: {measured}"
    else:
        seen.state, seen.reason = "watching", f"no loss shown so far: {measured}"


def _failures(found: feedback.Feedback) -> str:
    """What to look at where requests were answered by no version; '' where none was."""
    if not found.fallbacks:
        return ""
    return (
        f"; {found.fallbacks} of {found.requests} requests got the retriever's order, from no version: look whether "
        'goalrank_fallbacks_total{kind="model_failed"} rises'
    )


def _watched(events: list[dict[str, Any]], watched_for: timedelta) -> tuple[Look, datetime, datetime]:
    """The promotion to watch (state watching) or why there is none, and from when to when."""
    newest = lineage.follow(events).newest
    nothing = datetime.fromtimestamp(0, UTC)
    if newest is None:
        return Look("nothing", "nothing was promoted yet"), nothing, nothing
    (ranker,) = [move for move in newest["moves"] if move["name"] == registry.RANKER]
    if newest["kind"] != lineage.PROMOTION:
        reason = f"the newest move is a roll-back to version {ranker['to']} ({newest['reason']})"
        return Look("nothing", reason, champion=ranker["to"]), nothing, nothing
    if ranker["from"] is None:
        reason = f"version {ranker['to']} is the first champion: it has no predecessor to be compared with"
        return Look("nothing", reason, champion=ranker["to"]), nothing, nothing
    (done,) = [event["at"] for event in events if event["event"] == "done" and event["id"] == newest["id"]]
    promoted = datetime.fromisoformat(done)
    since, until = promoted + SETTLING, promoted + watched_for
    seen = Look("watching", "", champion=ranker["to"], predecessor=ranker["from"], promoted_at=promoted.isoformat())
    seen.watched_until = until.isoformat()
    return seen, since, until


if __name__ == "__main__":
    run_alone(run)
