"""The kfp signature of register_model."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def register_model(
    ranker: dsl.Input[dsl.Model],
    reward_model: dsl.Input[dsl.Model],
    judge_model: dsl.Input[dsl.Model],
    training_set: dsl.Input[dsl.Dataset],
    groups: dsl.Input[dsl.Dataset],
    snapshot: dsl.Input[dsl.Artifact],
    tracking_uri: str,
    preset: str,
    seed: int,
    commit: str,
    date: str,
    run_uri: str,
    registration: dsl.Output[dsl.Artifact],
):
    """Register tonight's ranker and reward model as challengers."""
    from components.register_model.main import run
    from goalrank.naming import arrival_day

    run(
        ranker=ranker.path,
        reward_model=reward_model.path,
        judge_model=judge_model.path,
        training_set=training_set.path,
        groups=groups.path,
        snapshot=snapshot.path,
        tracking_uri=tracking_uri,
        registration=registration.path,
        preset=preset,
        seed=seed,
        commit=commit,
        run_uri=run_uri,
        date=arrival_day("date", date),
    )
