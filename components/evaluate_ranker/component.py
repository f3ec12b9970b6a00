"""The kfp signature of evaluate_ranker."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def evaluate_ranker(
    registration: dsl.Input[dsl.Artifact],
    training_set: dsl.Input[dsl.Dataset],
    judge_model: dsl.Input[dsl.Model],
    tracking_uri: str,
    allow_bootstrap: bool,
    world_uri: str,
    seed: int,
    date: str,
    run_uri: str,
    off_policy: str,
    latency_budget_ms: float,
    size_budget_mb: float,
    verdict: dsl.Output[dsl.Artifact],
    lists: dsl.Output[dsl.Dataset],
    journal_uri: str = "",
):
    """Judge challenger, champion and anchor on the evaluation day; write the verdict."""
    from components.evaluate_ranker.main import run
    from goalrank.naming import arrival_day

    run(
        registration=registration.path,
        training_set=training_set.path,
        judge_model=judge_model.path,
        tracking_uri=tracking_uri,
        verdict=verdict.path,
        lists=lists.path,
        allow_bootstrap=allow_bootstrap,
        world_uri=world_uri,
        seed=seed,
        run_uri=run_uri,
        date=arrival_day("date", date),
        journal_uri=journal_uri,
        off_policy=off_policy,
        latency_budget_ms=latency_budget_ms,
        size_budget_mb=size_budget_mb,
    )
