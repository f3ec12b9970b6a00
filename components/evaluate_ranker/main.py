"""evaluate_ranker: challenger and champion on the same requests of the newest day, judged alike -> a verdict.

Two nights need a rule. The same date run again finds its own version as champion: the verdict is "keep", so a date gets
one promotion. A champion trained on the evaluation day or later (an older date run after a newer one) has seen the
answers: no comparison would be fair to the challenger, so the night is refused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from components import registry
from components.promote_model import journal
from components.step import Step, run_alone, write_atomic
from goalrank.errors import ModelRefused
from goalrank.verdict import ModelVersion, decide, to_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from components.evaluate_ranker.scoring import Answers
    from goalrank.dataset import TrainingSet
    from goalrank.ranker import Ranker


def run(
    registration: str,
    training_set: str,
    judge_model: str,
    tracking_uri: str,
    verdict: str,
    lists: str,
    allow_bootstrap: bool,
    world_uri: str,
    seed: int,
    run_uri: str,
    date: str,
    journal_uri: str = "",
) -> None:
    """Judge the registered challenger against the champion; the verdict is written before any refusal is raised.

    Args:
        registration: artifact of register_model.
        training_set: tonight's training set; its requests of `date` are the evaluation.
        judge_model: model directory of the reward model that guided no ranker.
        tracking_uri: MLflow.
        verdict: JSON file to write.
        lists: Parquet file to write: every request's lists and judged rewards.
        allow_bootstrap: may a first model become champion?
        world_uri: logs folder of a simulated world, whose true reward is reported (never judged on); "" without.
        seed: of the bootstrap and the random order.
        run_uri: folder of this run.
        date: the night, YYYY-MM-DD.
        journal_uri: promotions' journal; a promotion that a crash cut in half is finished before the champion is read.

    Raises:
        ModelRefused: the verdict is refuse, the champion has seen the evaluation day, or inputs do not belong together.
        CheckpointDamaged: weights are not those the registry recorded.
        TryAgain: MLflow is away.
    """
    with Step("evaluate_ranker", run_uri) as step:
        with step.tool("torch"):
            from components.evaluate_ranker import outputs, scoring
            from goalrank.checkpoint import load_model
            from goalrank.dataset import TrainingSet
            from goalrank.reward import RewardModel
        document = registry.read_registration(registration)
        data = TrainingSet.load(training_set)
        _require_same_night(document, data, date)
        with step.tool("mlflow"):
            client = registry.connect(tracking_uri)
        model = registry.registered_identity(document, "ranker")
        with registry.reaching(tracking_uri), tempfile.TemporaryDirectory() as aside:
            if journal_uri and (repaired := journal.repair(tracking_uri, journal_uri, f"night {date}")):
                step.figures["repaired"] = repaired
            champion = registry.champion(client)
            rankers = {"challenger": _load(client, model, aside)}
            if champion is not None:
                rankers["champion"] = _load(client, champion, aside, before=date)
        judge = load_model(judge_model)
        if not isinstance(judge, RewardModel):
            raise ModelRefused(f"the judge is a {type(judge).__name__}, expected a RewardModel; train it again")
        indices_R = data.evaluation_indices()
        answers = scoring.answer_all(data, indices_R, rankers, judge, seed, step.progress)
        positives_RN, mask_RN = scoring.positives(data, indices_R)
        measured = {name: scoring.measure(answer, positives_RN, mask_RN) for name, answer in answers.items()}
        users_R = data.examples.column("user_id").to_numpy()[indices_R]
        add_true_rewards(measured, answers, data, indices_R, world_uri)
        metrics = {name: measured.get(name) for name in ("challenger", "champion", "retriever", "random")}
        decided = decide(
            model=model,
            champion=champion,
            snapshot_id=document["snapshot_id"],
            date=date,
            rewards={name: answer.rewards_R for name, answer in answers.items()},
            users_R=users_R,
            metrics=metrics,
            allow_bootstrap=allow_bootstrap,
            seed=seed,
        )
        latency = scoring.latency_ms(data, indices_R, rankers["challenger"])
        outputs.write_lists(lists, data, indices_R, answers)
        write_atomic(Path(verdict), to_json(decided))
        titles = outputs.read_titles(training_set)
        step.figures |= outputs.figures(decided, latency, data, indices_R, answers, titles)
        with registry.reaching(tracking_uri):
            outputs.log(client, document["run_id"], decided, latency)
        step.reason = decided.reason
        if decided.decision == "refuse":
            raise ModelRefused(decided.reason)


# ------------------------------------------------------------------------------------------------------------- inputs


def _require_same_night(document: dict[str, Any], data: TrainingSet, date: str) -> None:
    found = {"registration": document, "training set": {"date": data.date, "snapshot_id": data.snapshot_id}}
    for what, night in found.items():
        if night["date"] != date or night["snapshot_id"] != document["snapshot_id"]:
            raise ModelRefused(
                f"the {what} is of {night['date']}, snapshot {night['snapshot_id']}; expected {date}, snapshot "
                f"{document['snapshot_id']}; pass the artifacts of one night"
            )


def _load(client: MlflowClient, wanted: ModelVersion, folder: str, before: str = "") -> Ranker:
    """A registered ranker, its weights verified; with `before`, only if it was trained on days before that one."""
    from goalrank.checkpoint import load_model, read_model_card
    from goalrank.ranker import Ranker

    directory = registry.fetch_model(client, wanted, folder)
    trained_until = str(read_model_card(directory)["created_by"]["trained_until"])
    if before and trained_until >= before:
        raise ModelRefused(
            f"champion version {wanted.version} was trained on days up to {trained_until}, so it has seen the "
            f"evaluation day {before}; run a night after {trained_until}, or roll back to a version trained earlier"
        )
    model = load_model(directory)
    if not isinstance(model, Ranker):
        raise ModelRefused(f"{wanted.name} version {wanted.version} is a {type(model).__name__}, expected a Ranker")
    return model


def add_true_rewards(
    measured: dict[str, dict[str, float | None]],
    answers: dict[str, Answers],
    data: TrainingSet,
    indices_R: np.ndarray,
    world_uri: str,
) -> None:
    """In a simulated world, the exact expected reward of each policy's lists: a figure, not a gate."""
    from components.evaluate_ranker.outputs import item_ids
    from goalrank.simulator.logs import load_world
    from goalrank.simulator.truth import true_reward

    world = load_world(world_uri) if world_uri else None
    if world is None or not len(indices_R):
        return
    ids_RPL = np.stack([item_ids(data, indices_R, answer.lists_RL) for answer in answers.values()], axis=1)
    rewards_RP = true_reward(world, data.examples.take(pa.array(indices_R)), ids_RPL)
    for column, name in enumerate(answers):
        measured[name]["true_reward"] = float(rewards_RP[:, column].mean())


if __name__ == "__main__":
    run_alone(run)
