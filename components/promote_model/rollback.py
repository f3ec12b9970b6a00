"""Rolling back: ranker and reward model return to a version that was champion once, journalled like a promotion.

Same lock, same intent before any alias moves, same repair after a crash. Where it goes:

    without `to`      to `previous`, once: what a roll-back led to is not rolled back from again without being told to
    to a version      to one that was champion once, by the journal; also forward again, which undoes a roll-back
    to "none"         nobody is champion: the next night's challenger has the absolute floor to pass

`previous` is afterwards the champion before the one restored, as the journal has it (lineage.py), or nobody.
"""

from __future__ import annotations

import re
import tempfile
from typing import TYPE_CHECKING, Any

from components import registry
from components.promote_model import journal, lineage
from goalrank import naming
from goalrank.errors import ModelRefused, TryAgain, UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOBODY = "none"
"""Value of `to` that takes the champion's alias away."""

MAXIMUM_REASON = 500


def roll_back(
    tracking_uri: str,
    journal_uri: str,
    reason: str,
    *,
    to: str | None = None,
    dry_run: bool = False,
    by: str = "hand",
    champion: str | None = None,
) -> dict[str, Any]:
    """Return to an earlier champion.

    Args:
        tracking_uri: MLflow.
        journal_uri: folder of promotions.jsonl and the lock.
        reason: why, for the journal.
        to: version of the ranker, "none", or None for `previous`.
        dry_run: look at everything, the target's files included, and change nothing.
        by: who asked, for the journal: hand or watch.
        champion: the ranker's version to roll back from; refused with TryAgain where another is champion by now.

    Returns:
        rolled_back (False: that version is the champion already, or a dry run), from, to, previous, moves, reason,
        repaired (if a crash was mended).

    Raises:
        UsageError: no reason, no such version, or nothing to roll back to; nothing was changed.
        ModelRefused: the version was never champion, its features have changed since, or its files are damaged.
        TryAgain: another promoter is at work, the champion has just changed, or MLflow is away.
    """
    reason = _checked_reason(reason)
    if to is not None and to != NOBODY:
        naming.require_version("--to", to)
    if not journal.read(journal_uri) and not registry.exists(tracking_uri):
        raise UsageError("nothing was ever promoted here, so there is nothing to roll back; is the workspace right?")
    client = registry.connect(tracking_uri)
    with registry.reaching(tracking_uri):
        if dry_run:
            pending = journal.open_intent(journal_uri)
            plan = _plan(client, journal_uri, to, champion)
            if pending:
                plan["pending"] = f"{pending['kind']} {pending['id']} was interrupted; it would be finished first"
            return plan | {"rolled_back": False, "dry_run": True, "reason": reason}
        with journal.lock(journal_uri, f"roll-back by {by}"):
            interrupted = journal.open_intent(journal_uri)
            repaired = journal.repair_locked(client, tracking_uri, journal_uri)
            if interrupted and repaired and (finished := _finished(interrupted, to, journal_uri)):
                # Typed again after a crash: it is done now, and a second step back was not asked for.
                return finished | {"repaired": repaired}
            plan = _plan(client, journal_uri, to, champion)
            if plan["moves"]:
                number = journal.begin(
                    journal_uri,
                    kind=lineage.ROLLBACK,
                    by=by,
                    reason=reason,
                    date=plan["date"],
                    snapshot_id=plan["snapshot_id"],
                    run_uri="",
                    moves=plan["moves"],
                )
                journal.apply(client, plan["moves"])
                journal.end(journal_uri, number)
            done = {"rolled_back": bool(plan["moves"]), "reason": reason}
            return plan | done | ({"repaired": repaired} if repaired else {})


def _checked_reason(reason: str) -> str:
    stripped = reason.strip()
    if not stripped or len(stripped) > MAXIMUM_REASON or re.search(r"[\x00-\x1f\x7f]", stripped):
        raise UsageError(
            f"--reason of {len(stripped)} characters found, expected one line of 1 to {MAXIMUM_REASON}: it is what the "
            "history shows"
        )
    return stripped


def _finished(intent: dict[str, Any], to: str | None, journal_uri: str) -> dict[str, Any] | None:
    """What an interrupted roll-back, now repaired, came to; None if it was abandoned or is not what is asked for."""
    ranker = next((move for move in intent["moves"] if move["name"] == registry.RANKER), None)
    newest = lineage.follow(journal.read(journal_uri)).newest
    if intent["kind"] != lineage.ROLLBACK or ranker is None or newest is None or newest["id"] != intent["id"]:
        return None
    if to is not None and (None if to == NOBODY else to) != ranker["to"]:
        return None
    found = {key: ranker[key] for key in ("from", "to", "previous")}
    return found | {"rolled_back": True, "moves": intent["moves"], "reason": intent["reason"]}


def _plan(client: MlflowClient, journal_uri: str, to: str | None, expected: str | None) -> dict[str, Any]:
    """From where to where the aliases go, the target looked at; no moves where it is the champion already."""
    past = lineage.follow(journal.read(journal_uri))
    now = _alias(client, registry.RANKER, registry.CHAMPION)
    if expected is not None and now != expected:
        raise TryAgain(f"the champion is version {now or NOBODY} by now, expected {expected}; nothing was rolled back")
    if to is None:
        to = _previous(client, past, now)
    wanted = None if to == NOBODY else to
    plan = {"from": now, "to": wanted, "previous": _alias(client, registry.RANKER, registry.PREVIOUS)}
    if wanted == now:
        return plan | {"moves": []}
    tags = {} if now is None else registry.version_tags(client, registry.RANKER, now)
    plan |= {"date": tags.get("date", ""), "snapshot_id": tags.get("snapshot_id", "")}
    rewards: dict[str, str | None] = {}
    line = past.after(wanted)
    before = line[-2] if len(line) > 1 and registry.registered(client, registry.RANKER, line[-2]) else None
    for version in (wanted, before):
        if version is not None:
            rewards[version] = _reward_of(client, past, version)
    if wanted is not None:
        _require_fit(client, past, wanted, rewards[wanted])
    moves = []
    for name in (registry.RANKER, registry.REWARD):
        where = {"to": wanted, "previous": before}
        if name == registry.REWARD:
            where = {key: None if version is None else rewards[version] for key, version in where.items()}
        moves.append({"name": name, "from": _alias(client, name, registry.CHAMPION), **where})
    return plan | {"previous": before, "moves": moves}


def _previous(client: MlflowClient, past: lineage.Lineage, now: str | None) -> str:
    """The version that `previous` names, once it is beyond doubt."""
    found = _alias(client, registry.RANKER, registry.PREVIOUS)
    others = ", ".join(version for version in past.ever if version != now)
    choices = f"choose with --to: {others}" if others else "no other version was champion here"
    if past.newest is not None and past.newest["kind"] == lineage.ROLLBACK:
        raise UsageError(
            f"champion version {now or NOBODY} is what the last roll-back ({past.newest['at']}) led to, so going "
            f"further back must be said: --to VERSION (previous is {found or NOBODY})"
        )
    if found is None or now is None:
        raise UsageError(f"nothing to roll back to: champion is {now or NOBODY}, previous {found or NOBODY}; {choices}")
    if past.line and past.line[-2:] != [found, now]:
        raise ModelRefused(
            f"the aliases say champion {now}, previous {found}, the journal says {' then '.join(past.line[-2:])}: "
            f"somebody moved an alias by hand; {choices}"
        )
    return found


def _require_fit(client: MlflowClient, past: lineage.Lineage, version: str, reward: str | None) -> None:
    """The target passed the gates once, still lies in the registry whole, and reads this release's features."""
    if registry.registered(client, registry.RANKER, version) is None:
        raise UsageError(
            f"version {version} is not in the registry (any more: old versions are collected); versions that were "
            f"champion: {', '.join(past.ever) or NOBODY}"
        )
    is_previous = version == _alias(client, registry.RANKER, registry.PREVIOUS)
    if version not in past.ever and not is_previous:
        raise ModelRefused(
            f"version {version} was never champion, so no gate has said yes to it; versions that were: "
            f"{', '.join(past.ever) or NOBODY}"
        )
    if reward is None or registry.registered(client, registry.REWARD, reward) is None:
        raise ModelRefused(f"the reward model of version {version} is not in the registry; choose another with --to")
    with tempfile.TemporaryDirectory() as aside:
        for name, number in ((registry.RANKER, version), (registry.REWARD, reward)):
            wanted = registry.identity(client.get_model_version(name, number))
            registry.fetch_model(client, wanted, aside)


def _reward_of(client: MlflowClient, past: lineage.Lineage, version: str) -> str | None:
    """The reward model beside a ranker: by the journal, or (from before it) the one registered by the same run."""
    if version in past.rewards:
        return past.rewards[version]
    ranker = registry.registered(client, registry.RANKER, version)
    if ranker is None or not ranker.run_id:
        return None
    found = client.search_model_versions(f"name = '{registry.REWARD}' and run_id = '{ranker.run_id}'")
    return max((str(one.version) for one in found), key=int, default=None)


def _alias(client: MlflowClient, name: str, alias: str) -> str | None:
    found = registry.by_alias(client, name, alias)
    return None if found is None else str(found.version)
