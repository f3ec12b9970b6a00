"""The night: thirteen steps from closed feedback logs to a champion that answers, read top to bottom.

kfp.local runs this very definition on one machine (pipelines/local.py); pipelines/cluster.py adds what its pods need
on a cluster (pipelines/compiled/ has both). A refusal raises inside its step, so the run ends failed and nothing
downstream starts; "champion kept" is a gate that says False, so the run ends well without a promotion. The report is
published either way.
"""

# No `from __future__ import annotations` here: kfp reads the annotations as types.
from contextvars import ContextVar

from kfp import dsl

from components.check_features.component import check_features
from components.check_logs.component import check_logs
from components.evaluate_ranker.component import evaluate_ranker
from components.extract_features.component import extract_features
from components.gate_promotion.component import gate_promotion
from components.generate_groups.component import generate_groups
from components.join_groups.component import join_groups
from components.materialize_features.component import materialize_features
from components.promote_model.component import promote_model
from components.publish_report.component import publish_report
from components.register_model.component import register_model
from components.smoke_serve.component import smoke_serve
from components.train_ranker.component import train_ranker
from components.train_reward.component import train_reward
from goalrank.verdict import LATENCY_BUDGET_MS, SIZE_BUDGET_MB

GROUP_PARTS: ContextVar[int] = ContextVar("GROUP_PARTS", default=1)
"""In how many parts the groups are made, each in a pod of its own: a shape of the pipeline, so chosen as it is compiled
(pipelines/cluster.py). The groups are the same in any number."""


def groups_made(training_set, reward_model, seed, made_by):
    """The groups, made in one piece by one pod, or in GROUP_PARTS parts and put together."""
    of_models = {"training_set": training_set, "reward_model": reward_model, "seed": seed, **made_by}
    parts = GROUP_PARTS.get()
    if parts == 1:
        return generate_groups(**of_models).outputs["groups"]
    with dsl.ParallelFor(list(range(parts)), name="parts-of-the-groups") as part:
        piece = generate_groups(**of_models, part=part, parts=parts).outputs["groups"]
    return join_groups(training_set=training_set, parts=dsl.Collected(piece), **made_by).outputs["groups"]


@dsl.pipeline(name="goalrank-nightly", description="Retrain a list ranker on the newest day of feedback.")
def nightly(
    date: str,
    run_uri: str,
    logs_uri: str,
    snapshots_uri: str,
    feast_uri: str,
    tracking_uri: str,
    journal_uri: str,
    world_uri: str = "",
    workspace_uri: str = "",
    preset: str = "small",
    seed: int = 0,
    group_plan: str = "",
    objective: str = "",
    warm_start: str = "none",
    train_processes: int = 1,
    window_days: int = 30,
    full_rebuild: bool = False,
    allow_bootstrap: bool = False,
    off_policy: str = "required",
    latency_budget_ms: float = LATENCY_BUDGET_MS,
    size_budget_mb: float = SIZE_BUDGET_MB,
    commit: str = "unknown",
    spark_master: str = "local[2]",
    spark_memory: str = "1g",
):
    """One night.

    Args:
        date: the newest arrival day, YYYY-MM-DD: learnt from by tomorrow, judged on tonight. A scheduler, which says
            the same every night, says `auto`: the newest day that is closed when the night begins (the_night.py).
        run_uri: this run's own folder: outcomes, progress, checkpoints, report. FOLDER/auto: one named by the run.
        logs_uri: feedback logs in the data contract.
        snapshots_uri, feast_uri, tracking_uri, journal_uri: where snapshots, features, models and promotions are kept.
        world_uri: the simulated world's logs, empty for real ones; adds the true reward to the figures, to no gate.
        workspace_uri: on a cluster, the folder above all nights, where each leaves its card (components/night_card.py).
        preset: model size and training length (goalrank/presets.py).
        seed: of everything random.
        group_plan: how groups of lists are made, where not as the preset says (goalrank/group_plan.py).
        objective: what the ranker learns by, where not by the default (goalrank/objective/config.py).
        warm_start: what the ranker's training begins with, "none" or "champion".
        train_processes: how many processes of one machine train the ranker, a GPU each where there are GPUs.
        window_days: how many arrival days the training set spans.
        full_rebuild: rebuild the snapshot from all partitions instead of going on from yesterday's state.
        allow_bootstrap: may a first model become champion with nothing to compare it with?
        off_policy: "required" (an inconclusive off-policy estimate blocks promotion) or "veto" (only a loss does).
        latency_budget_ms, size_budget_mb: most that a list may take on one CPU, and the weights may weigh.
        commit: of the checkout that the night is started from, kept in the lineage.
        spark_master, spark_memory: where and how large Spark runs.
    """
    report = publish_report(run_uri=run_uri, date=date, tracking_uri=tracking_uri)
    report.set_caching_options(enable_caching=False)

    with dsl.ExitHandler(report, name="the-night"):
        logs = check_logs(
            logs_uri=logs_uri,
            snapshots_uri=snapshots_uri,
            date=date,
            full_rebuild=full_rebuild,
            window_days=window_days,
            run_uri=run_uri,
            spark_master=spark_master,
            spark_memory=spark_memory,
            workspace_uri=workspace_uri,
        )
        # Once the first step has said which night it is, nobody asks the clock again.
        night, folder = logs.outputs["night"], logs.outputs["folder"]
        extraction = extract_features(
            logs_uri=logs_uri,
            snapshots_uri=snapshots_uri,
            date=night,
            full_rebuild=full_rebuild,
            window_days=window_days,
            run_uri=folder,
            spark_master=spark_master,
            spark_memory=spark_memory,
        )
        snapshot, snapshot_id = extraction.outputs["snapshot"], extraction.outputs["snapshot_id"]
        features = check_features(snapshot=snapshot, snapshots_uri=snapshots_uri, run_uri=folder)
        materialized = materialize_features(
            snapshot=snapshot, feast_uri=feast_uri, window_days=window_days, run_uri=folder
        ).after(features)
        training_set = materialized.outputs["training_set"]

        reward = train_reward(
            training_set=training_set, preset=preset, seed=seed, run_uri=folder, snapshot_id=snapshot_id
        )
        reward_model, judge_model = reward.outputs["reward_model"], reward.outputs["judge_model"]
        made_by = {"preset": preset, "group_plan": group_plan, "run_uri": folder, "snapshot_id": snapshot_id}
        groups = groups_made(training_set, reward_model, seed, made_by)
        ranker = train_ranker(
            training_set=training_set,
            groups=groups,
            reward_model=reward_model,
            preset=preset,
            seed=seed,
            run_uri=folder,
            snapshot_id=snapshot_id,
            group_plan=group_plan,
            objective=objective,
            warm_start=warm_start,
            tracking_uri=tracking_uri,
            processes=train_processes,
        ).outputs["ranker"]

        registration = register_model(
            ranker=ranker,
            reward_model=reward_model,
            judge_model=judge_model,
            training_set=training_set,
            groups=groups,
            snapshot=snapshot,
            tracking_uri=tracking_uri,
            preset=preset,
            seed=seed,
            commit=commit,
            date=night,
            run_uri=folder,
        ).outputs["registration"]
        judging = evaluate_ranker(
            registration=registration,
            training_set=training_set,
            judge_model=judge_model,
            tracking_uri=tracking_uri,
            journal_uri=journal_uri,
            allow_bootstrap=allow_bootstrap,
            off_policy=off_policy,
            latency_budget_ms=latency_budget_ms,
            size_budget_mb=size_budget_mb,
            world_uri=world_uri,
            seed=seed,
            date=night,
            run_uri=folder,
        )
        evaluation = judging.outputs["verdict"]
        # After the judging, though it needs nothing from it: a refused model is not worth a server's start.
        smoke = smoke_serve(
            registration=registration,
            snapshot=snapshot,
            training_set=training_set,
            feast_uri=feast_uri,
            tracking_uri=tracking_uri,
            run_uri=folder,
        ).after(judging)
        serving = smoke.outputs["verdict"]

        # kfp.local skips an If on a named output without a word, so the gate returns one unnamed bool.
        gate = gate_promotion(registration=registration, evaluation=evaluation, serving=serving, run_uri=folder)
        with dsl.If(gate.output == True, name="every-gate-says-yes"):  # noqa: E712 - kfp reads the comparison
            promote_model(
                registration=registration,
                evaluation=evaluation,
                serving=serving,
                tracking_uri=tracking_uri,
                journal_uri=journal_uri,
                date=night,
                run_uri=folder,
            )
