"""promote_model: alias champion goes to tonight's version, the old one becomes previous; the reward model with it."""

from __future__ import annotations

from typing import Any

from components import registry
from components.gate_promotion.main import sound_verdict
from components.promote_model import journal
from components.step import Step, run_alone
from goalrank.errors import ModelRefused


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
        ModelRefused: a verdict is missing, malformed, negative, about something else, or the champion has changed
            since it was evaluated.
        TryAgain: another promoter is at work, or MLflow is away.
    """
    with Step("promote_model", run_uri) as step:
        document = registry.read_registration(registration)
        if document["date"] != date:
            raise ModelRefused(f"the registration is of {document['date']}, expected {date}; pass this night's own")
        verdict = sound_verdict(document, evaluation, serving)
        if verdict.decision != "promote":
            raise ModelRefused(f"evaluation says {verdict.decision}, not promote: {verdict.reason}")
        with step.tool("mlflow"):
            client = registry.connect(tracking_uri)
        with journal.lock(journal_uri, f"night {date}, run {document['run_id']}"), registry.reaching(tracking_uri):
            repaired = journal.repair_locked(client, tracking_uri, journal_uri)
            if repaired:
                step.figures["repaired"] = repaired
            models = {name: registry.registered_identity(document, name) for name in ("ranker", "reward")}
            current = registry.champion(client)
            step.figures["version"] = models["ranker"].version
            if current == models["ranker"]:
                # The same night again, or the repair above finished it: nothing to move.
                step.figures["promoted"] = False
                step.reason = f"version {current.version} is the champion already"
                return
            if current != verdict.champion:
                raise ModelRefused(
                    f"the champion is {_name(current)}, but the challenger was evaluated against "
                    f"{_name(verdict.champion)}; run the night again so that it is compared with today's champion"
                )
            for model in models.values():
                registered = registry.identity(client.get_model_version(model.name, model.version))
                if registered != model:
                    raise ModelRefused(f"{_name(registered)} is registered, expected {_name(model)}; register again")
            moves = [_move(client, model.name, model.version) for model in models.values()]
            number = journal.begin(
                journal_uri,
                kind="promotion",
                reason=verdict.reason,
                date=date,
                snapshot_id=document["snapshot_id"],
                run_uri=run_uri,
                moves=moves,
            )
            journal.apply(client, moves)
            journal.end(journal_uri, number)
            step.figures["promoted"] = True
            step.figures["previous"] = moves[0]["previous"]
            step.reason = f"version {models['ranker'].version} promoted: {verdict.reason}"


def _move(client: Any, name: str, version: str) -> dict[str, Any]:
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
