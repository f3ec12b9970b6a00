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
from goalrank.verdict import (
    LATENCY_BUDGET_MS,
    SIZE_BUDGET_MB,
    EvaluationVerdict,
    decide,
    off_policy_gate,
    off_policy_section,
    require_off_policy_setting,
    to_json,
    within_budget,
)

if TYPE_CHECKING:
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
    off_policy: str = "required",
    latency_budget_ms: float = LATENCY_BUDGET_MS,
    size_budget_mb: float = SIZE_BUDGET_MB,
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
            It also names the anchor.
        off_policy: "required" (an inconclusive off-policy estimate blocks promotion) or "veto" (only a loss does).
        latency_budget_ms: most that one list may take on one CPU, 95% of the requests.
        size_budget_mb: most that the weights file may weigh, 10^6 bytes.

    Raises:
        UsageError: off_policy is neither.
        ModelRefused: the verdict is refuse, challenger, champion or judge has seen the evaluation day, the judge is the
            guide, or inputs do not belong together.
        CheckpointDamaged: weights are not those the registry recorded.
        TryAgain: MLflow is away.
    """
    with Step("evaluate_ranker", run_uri) as step:
        require_off_policy_setting(off_policy)
        with step.tool("torch"):
            from components.evaluate_ranker import anchor as anchors
            from components.evaluate_ranker import differences, models, outputs, scoring
            from components.evaluate_ranker.differences import TRUE
            from components.evaluate_ranker.off_policy import compare
            from goalrank.checkpoint import load_model
            from goalrank.dataset import TrainingSet
            from goalrank.reward import RewardModel
            from goalrank.slices import slices_of
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
            directories = {"challenger": registry.fetch_model(client, model, aside)}
            models.require_unseen(directories["challenger"], f"challenger version {model.version}", date)
            models.require_judge(Path(judge_model), document)
            if champion is not None:
                directories["champion"] = registry.fetch_model(client, champion, aside)
                models.require_unseen(directories["champion"], f"champion version {champion.version}", date)
            not_finite = [name for who, folder in directories.items() for name in models.not_finite(folder, who)]
            rankers: dict[str, Ranker] = {}
            anchor = anchors.Anchor()
            if not not_finite:
                rankers["challenger"] = models.load_ranker(directories["challenger"], model)
                if champion is not None:
                    rankers["champion"] = models.load_ranker(directories["champion"], champion)
                anchor = anchors.find(client, tracking_uri, journal_uri, champion, date, aside)
                if anchor.ranker is not None:
                    rankers["anchor"] = anchor.ranker
            megabytes = (directories["challenger"] / "weights.safetensors").stat().st_size / 1e6
        about: dict[str, Any] = {"model": model, "champion": champion, "snapshot_id": document["snapshot_id"]}
        about |= {"date": date, "allow_bootstrap": allow_bootstrap, "seed": seed}
        if not_finite:
            refused = decide(**about, rewards={}, users_R=None, metrics={}, not_finite=not_finite)
            write_atomic(Path(verdict), to_json(refused))
            _conclude(step, refused)
        judge = load_model(judge_model)
        if not isinstance(judge, RewardModel):
            raise ModelRefused(f"the judge is a {type(judge).__name__}, expected a RewardModel; train it again")
        indices_R = data.evaluation_indices()
        answers = scoring.answer_all(data, indices_R, rankers, judge, seed, step.progress)
        users_R = data.examples.column("user_id").to_numpy()[indices_R]
        positives_RN, mask_RN = scoring.positives(data, indices_R)
        measured = {name: scoring.measure(answer, positives_RN, mask_RN) for name, answer in answers.items()}
        true_rewards = true_rewards_of(answers, data, indices_R, world_uri)
        for name, true_R in true_rewards.items():
            measured[name][TRUE] = float(true_R.mean())
        latency = scoring.latency_ms(data, indices_R, rankers["challenger"])
        section = off_policy_section(
            compare(data, indices_R, rankers["challenger"], rankers.get("champion"), judge, seed), off_policy
        )
        decided = decide(
            **about,
            rewards={name: answer.rewards_R for name, answer in answers.items()},
            users_R=users_R,
            metrics={name: measured.get(name) for name in ("challenger", "champion", "anchor", "retriever", "random")},
            gates=[
                off_policy_gate(section),
                within_budget("latency", latency.get("latency_p95_ms"), latency_budget_ms, "ms"),
                within_budget("size", megabytes, size_budget_mb, "MB"),
            ],
            slices=slices_of(data, indices_R),
            anchor=anchor.model,
            no_anchor=anchor.reason,
            off_policy=section,
        )
        outputs.write_lists(lists, data, indices_R, answers)
        values = {
            name: differences.values(answers[name], positives_RN, mask_RN, true_rewards.get(name))
            for name in ("challenger", *{"retriever", outputs.compared_with(decided)})
        }
        over = {
            name: differences.differences(values["challenger"], theirs, users_R, seed)
            for name, theirs in values.items()
            if name != "challenger"
        }
        items = outputs.read_items(training_set)
        step.figures |= outputs.figures(decided, latency, data, indices_R, answers, items, over)
        write_atomic(Path(verdict), to_json(decided))
        with registry.reaching(tracking_uri):
            outputs.log(client, document["run_id"], decided, latency)
        _conclude(step, decided)


def _conclude(step: Step, decided: EvaluationVerdict) -> None:
    """Say the verdict's reason; a refusal ends the step.

    Raises:
        ModelRefused: the verdict refuses.
    """
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


def true_rewards_of(
    answers: dict[str, Answers], data: TrainingSet, indices_R: np.ndarray, world_uri: str
) -> dict[str, np.ndarray]:
    """In a simulated world, by policy the exact expected reward of its lists [R]: figures, no gate's; else nothing."""
    from components.evaluate_ranker.outputs import item_ids
    from goalrank.simulator.logs import load_world
    from goalrank.simulator.truth import true_reward

    world = load_world(world_uri) if world_uri else None
    if world is None or not len(indices_R):
        return {}
    ids_RPL = np.stack([item_ids(data, indices_R, answer.lists_RL) for answer in answers.values()], axis=1)
    rewards_RP = true_reward(world, data.examples.take(pa.array(indices_R)), ids_RPL)
    return {name: rewards_RP[:, column] for column, name in enumerate(answers)}


if __name__ == "__main__":
    run_alone(run)
