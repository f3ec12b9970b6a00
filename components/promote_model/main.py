"""promote_model: alias champion goes to tonight's version, the old one becomes previous; the reward model with it.

The night's step and `goalrank promote` are the same two functions: read_night looks at the documents, promote at the
registry, and every doubt is a no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components import registry
from components.gate_promotion.main import sound_verdict
from components.promote_model import canary as canaries
from components.promote_model import journal, lineage
from components.step import Step, run_alone
from goalrank import naming
from goalrank.errors import ModelRefused
from goalrank.verdict import EvaluationVerdict

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from components.promote_model.canary import Canary


@dataclass(frozen=True)
class Promotable:
    """The documents of one night, found in order and saying yes."""

    registration: dict[str, Any]
    verdict: EvaluationVerdict
    run_uri: str


def run(
    registration: str,
    evaluation: str,
    serving: str,
    tracking_uri: str,
    journal_uri: str,
    date: str,
    run_uri: str,
) -> None:
    """Promote the registered version, if both verdicts still say so (fail closed).

    Args:
        registration: artifact of register_model.
        evaluation: verdict of evaluate_ranker.
        serving: verdict of smoke_serve.
        tracking_uri: MLflow.
        journal_uri: folder of promotions.jsonl and the lock.
        date: the night, YYYY-MM-DD.
        run_uri: folder of this run.

    Raises:
        ModelRefused: a verdict is missing, malformed, stale, negative, about something else, the champion has changed
            since it was evaluated, or the version was rolled back from.
        TryAgain: another promoter is at work, or MLflow is away.
    """
    with Step("promote_model", run_uri) as step:
        canary = canaries.from_environment(lambda line: step.progress(0, 1, line))
        try:
            night = read_night(registration, evaluation, serving, date, run_uri)
        except ModelRefused:
            if canary is not None:  # started again in the middle of a canary, after its verdict became stale
                version = str(registry.read_registration(registration)["ranker"]["version"])
                if canary.is_tried(version):
                    with journal.lock(journal_uri, _driver(version, run_uri), journal.TRIAL):
                        canary.abandon(version)
            raise
        with step.tool("mlflow"):
            client = registry.connect(tracking_uri)
        step.figures = (
            promote(client, night, tracking_uri, journal_uri)
            if canary is None
            else promote_by_stages(canary, client, night, tracking_uri, journal_uri)
        )
        step.reason = step.figures.pop("reason")


def read_night(registration: str, evaluation: str, serving: str, date: str, run_uri: str) -> Promotable:
    """The night's documents, once they are present, well-formed, recent, of one night and one version, and say promote.

    Raises:
        ModelRefused: they are not.
    """
    naming.require_day("date", date, ModelRefused)
    document = registry.read_registration(registration)
    if document["date"] != date:
        raise ModelRefused(f"the registration is of {document['date']}, expected {date}; pass this night's own")
    verdict = sound_verdict(document, evaluation, serving)
    if verdict.decision != "promote":
        raise ModelRefused(f"evaluation says {verdict.decision}, not promote: {verdict.reason}")
    return Promotable(document, verdict, run_uri)


def promote(
    client: MlflowClient,
    night: Promotable,
    tracking_uri: str,
    journal_uri: str,
    *,
    by: str = "night",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Move the aliases to the night's version, journalled and under the lock; what was (or would be) done, and why.

    Args:
        by: who asked, for the journal: night or hand.
        dry_run: look at everything, change nothing (an interrupted move is not finished either, only told).

    Returns:
        promoted (False: champion already), version, previous, moves, reason, repaired (if a crash was mended).

    Raises:
        ModelRefused: the champion changed since, the registered weights are others, or the version was rolled back
            from.
        TryAgain: another promoter is at work, or MLflow is away.
    """
    with registry.reaching(tracking_uri):
        if dry_run:
            pending = journal.open_intent(journal_uri)
            figures = _decide(client, night, journal_uri)
            if pending:
                figures["pending"] = f"{pending['kind']} {pending['id']} was interrupted; it would be finished first"
            return figures | {"dry_run": True}
        who = f"{by} {night.registration['date']}, run {night.registration['run_id']}"
        with journal.lock(journal_uri, who):
            repaired = journal.repair_locked(client, tracking_uri, journal_uri)
            figures = _decide(client, night, journal_uri)
            if figures["promoted"]:
                number = journal.begin(
                    journal_uri,
                    kind=lineage.PROMOTION,
                    by=by,
                    reason=night.verdict.reason,
                    date=night.registration["date"],
                    snapshot_id=night.registration["snapshot_id"],
                    run_uri=night.run_uri,
                    moves=figures["moves"],
                )
                journal.apply(client, figures["moves"])
                journal.end(journal_uri, number)
            return figures | ({"repaired": repaired} if repaired else {})


def promote_by_stages(
    canary: Canary, client: MlflowClient, night: Promotable, tracking_uri: str, journal_uri: str
) -> dict[str, Any]:
    """:func:`promote`, once the version has done well on a growing share of the traffic (canary.py).

    Killed anywhere and called again, it goes on: the stages stand in the InferenceService, the move in the journal.

    Raises:
        ModelRefused: as promote, or the version was unwell; it is taken back and no alias has moved.
        TryAgain: as promote, or another version is on trial and driven, or the API server is away.
    """
    stages: list[int] = []
    version = str(night.registration["ranker"]["version"])
    with journal.lock(journal_uri, _driver(version, night.run_uri), journal.TRIAL):
        try:
            if promote(client, night, tracking_uri, journal_uri, dry_run=True)["promoted"]:
                stages = canary.roll_out(version)
            figures = promote(client, night, tracking_uri, journal_uri)
        except ModelRefused:
            canary.abandon(version)  # e.g. somebody else was promoted, while it was on trial or while nobody drove it
            raise
        canary.finish()
    return figures | {"canary_stages": stages}


def _driver(version: str, run_uri: str) -> str:
    return f"canary of version {version}, run {run_uri}"


def _decide(client: MlflowClient, night: Promotable, journal_uri: str) -> dict[str, Any]:
    """What promoting means now: the moves, or that there are none; anything in doubt is refused."""
    models = {name: registry.registered_identity(night.registration, name) for name in ("ranker", "reward")}
    ranker, judged_against = models["ranker"], night.verdict.champion
    current = registry.champion(client)
    if current == ranker:
        # The same night again, or a repair finished it: nothing to move.
        reason = f"version {ranker.version} is the champion already"
        return {"promoted": False, "version": ranker.version, "moves": [], "reason": reason}
    if current != judged_against:
        raise ModelRefused(
            f"the champion is {_name(current)}, but the challenger was evaluated against "
            f"{_name(judged_against)}; run the night again so that it is compared with today's champion"
        )
    undone = lineage.follow(journal.read(journal_uri)).rolled_back.get(ranker.version)
    if undone is not None:
        raise ModelRefused(
            f"version {ranker.version} was rolled back from on {undone['at']} ({undone['reason']}), so it is not "
            f"promoted again by itself; if that was a mistake: `goalrank rollback --to {ranker.version} --reason ...`"
        )
    for model in models.values():
        registered = registry.registered(client, model.name, model.version)
        if registered is None:
            raise ModelRefused(f"{_name(model)} is not in the registry any more; run the night again")
        if registry.identity(registered) != model:
            raise ModelRefused(
                f"{_name(registry.identity(registered))} is registered, expected {_name(model)}; register again"
            )
        if model == ranker:
            registry.require_feature_set(registered)
    moves = [_move(client, model.name, model.version) for model in models.values()]
    return {
        "promoted": True,
        "version": ranker.version,
        "previous": moves[0]["previous"],
        "moves": moves,
        "reason": f"version {ranker.version} promoted: {night.verdict.reason}",
    }


def _move(client: MlflowClient, name: str, version: str) -> dict[str, Any]:
    """From where to where one model's aliases go; previous stays where it is if the version was champion already."""
    champion = registry.by_alias(client, name, registry.CHAMPION)
    previous = registry.by_alias(client, name, registry.PREVIOUS)
    now = None if champion is None else str(champion.version)
    before = None if previous is None else str(previous.version)
    return {"name": name, "from": now, "to": version, "previous": before if now == version else now}


def _name(model: Any) -> str:
    return "none" if model is None else f"{model.name} version {model.version} ({model.weights_sha256[:12]})"


if __name__ == "__main__":
    run_alone(run)
