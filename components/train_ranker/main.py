"""train_ranker: training set + groups + reward model -> ranker, by way of checkpoints that outlive the process.

Several processes: `torchrun --nproc-per-node 2 -m components.train_ranker.main ...`, with the flags of one. The first
writes all that is written; docs/runbook.md says what happens when one of them dies.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from components.end_with_parent import end_with_parent
from components.step import QuietStep, Step, run_alone
from components.train_ranker.waited_for import Listener

SHOWN_CURVES = ("loss", "on_policy_reward", "helper_reward", "group_std", "entropy")
"""What the report plots; the model's card holds all."""

PRECISIONS = ("auto", "float32", "bf16")

NONE, CHAMPION = "none", "champion"
"""What training may begin with, beside a folder."""


def run(
    training_set: str,
    groups: str,
    reward_model: str,
    ranker: str,
    preset: str,
    seed: int,
    run_uri: str,
    checkpoints_uri: str = "",
    warm_start: str = NONE,
    tracking_uri: str = "",
    micro_batch: int = 0,
    precision: str = "auto",
    compiled: bool = False,
    group_plan: str = "",
    objective: str = "",
    waited_for: str = "",
) -> None:
    """Train the ranker, or go on from the newest sound checkpoint of this very run.

    Args:
        training_set: training set artifact (directory).
        groups: groups artifact of generate_groups.
        reward_model: model directory of the guiding reward model.
        ranker: model directory to write; its card's metrics hold the curves.
        preset: tiny, small, base or large.
        seed: of initial weights, order of batches, dropout and sampled lists.
        run_uri: the run's own folder.
        checkpoints_uri: folder of this step's checkpoints, by default one in the run's folder. Those of another
            snapshot, configuration or seed are dropped, and all are once the model is written.
        warm_start: what to begin with: "none" (the reward model's encoder and an untrained decoder), "champion" (its
            weights, as registered; none as long as there is no champion), or the model directory of a ranker.
        tracking_uri: MLflow, asked for the champion only.
        micro_batch: most requests that go through the model at once, in each process; 0: all. Less memory, same step.
        precision: float32, bf16 (autocast; weights and checkpoints stay float32), or auto: bf16 on a GPU.
        compiled: put the ranker's passes through torch.compile, which takes minutes before it saves any.
        group_plan: how groups are made where not as the preset says (goalrank/group_plan.py); of it the ranker's own
            lists are made here, the helpers' were by generate_groups.
        objective: what the ranker learns by where not by the default (goalrank/objective/config.py).
        waited_for: of a TrainJob, the file by which the step says that it waits (waited_for.py).

    Raises:
        UsageError: no such preset, precision or objective, a plan that makes no groups, or more processes than requests
            a step.
        DataRefused: the groups are missing, damaged or empty.
        ModelRefused: the reward model is damaged, the ranker to begin with is of another architecture or feature set or
            has seen the evaluation day, or a loss, a gradient or a weight is not finite.
        TryAgain: SIGTERM came (a node is drained, a night interrupted), or nobody waits for this job any more: a
            checkpoint of the last step was written. Or another process of this training is gone.
    """
    # As torchrun says; asked here, since a step's time counts from before torch is imported.
    first, alone = os.environ.get("RANK", "0") == "0", os.environ.get("WORLD_SIZE", "1") == "1"
    if not alone:
        end_with_parent(os.getppid())  # torchrun, killed outright, leaves its processes behind
    with ExitStack() as stack:
        # torchrun ends all by SIGTERM as soon as one has ended, and the first must still say how it went.
        noted = None if alone else stack.enter_context(_sigterm_noted())
        step = stack.enter_context((Step if first else QuietStep)("train_ranker", run_uri))
        with step.tool("torch"):
            from goalrank.checkpoint import Checkpoints, load_model, read_model_card, save_model
            from goalrank.dataset import TrainingSet
            from goalrank.errors import ModelRefused
            from goalrank.execution import Execution
            from goalrank.group_plan import planned
            from goalrank.groups import groups_digest, read_groups
            from goalrank.objective import objective_of
            from goalrank.presets import preset as preset_named
            from goalrank.processes import joined
            from goalrank.reward import RewardModel
            from goalrank.schema import feature_set
            from goalrank.train import list_rewards, train_ranker
            from goalrank.warm_start import warm_start_from
        processes = stack.enter_context(joined())
        chosen, learnt_by = planned(preset_named(preset), group_plan), objective_of(objective)
        execution = Execution(processes, micro_batch, _is_bf16(precision, processes.device), compiled)
        data = TrainingSet.load(training_set)
        checkpoints = Checkpoints(Path(checkpoints_uri or Path(run_uri) / "checkpoints" / "train_ranker"))
        reward, loaded = load_model(reward_model), read_groups(groups)
        if not isinstance(reward, RewardModel):
            raise ModelRefused(f"{reward_model} holds a {type(reward).__name__}, expected a reward model")
        fingerprint = {
            "snapshot_id": data.snapshot_id,
            "reward_sha256": read_model_card(reward_model)["weights_sha256"],
            "groups_sha256": groups_digest(groups),
        }
        begun_from: dict[str, Any] = {"group_plan": group_plan} if group_plan else {}
        start = None
        if folder := _warm_start_folder(step, warm_start, tracking_uri, stack):
            start = warm_start_from(folder, chosen, data.date)
            begun_from["warm_start_sha256"] = read_model_card(folder)["weights_sha256"]
        listener = Listener(Path(waited_for)) if waited_for and first else None
        with nullcontext(noted) if noted else _sigterm_noted() as told_to_end:
            trained = train_ranker(
                data,
                loaded,
                reward,
                chosen,
                seed,
                objective=learnt_by,
                checkpoints=checkpoints,
                fingerprint=fingerprint | begun_from,
                execution=execution,
                warm_start=start,
                progress=step.progress,
                asked_to_stop=lambda: told_to_end() or (listener is not None and listener.nobody_waits()),
            )
        if first:
            rewards = list_rewards(data, loaded, trained.ranker, reward)
            save_model(
                ranker,
                trained.ranker,
                "ranker",
                config=trained.ranker.sizes.to_dict(),
                created_by={
                    "preset": preset,
                    "seed": seed,
                    "snapshot_id": data.snapshot_id,
                    "trained_until": data.train_days[-1],
                    "data_window": [data.train_days[0], data.train_days[-1]],
                    "objective": learnt_by.to_dict(),
                    "feature_set": feature_set(),
                    **begun_from,
                },
                metrics={**rewards, "curves": trained.curves},
            )
            checkpoints.clear()
            step.figures.update(
                {
                    **rewards,
                    "steps": chosen.ranker_steps,
                    "processes": processes.count,
                    "device": processes.device,
                    **({"objective": objective} if objective else {}),
                    "bf16": execution.bf16,
                    **begun_from,
                    "resumed_from": trained.resumed_from,
                    "damaged_checkpoints": trained.damaged_checkpoints,
                    "final_loss": trained.curves["loss"][-1][1],
                    "curves": {name: trained.curves[name] for name in SHOWN_CURVES},
                }
            )
        processes.wait()


def _warm_start_folder(step: Step, warm_start: str, tracking_uri: str, stack: ExitStack) -> str | None:
    """The model directory to begin with, the champion's fetched into a folder that lasts as long as the stack."""
    if warm_start != CHAMPION:
        return None if warm_start == NONE else warm_start
    with step.tool("mlflow"):
        from components import registry

        client = registry.connect(tracking_uri)
    with registry.reaching(tracking_uri):
        champion = registry.champion(client)
        aside = stack.enter_context(tempfile.TemporaryDirectory())
        return None if champion is None else str(registry.fetch_model(client, champion, aside))


def _is_bf16(precision: str, device: str) -> bool:
    """Does this precision mean bf16 there?"""
    from goalrank.errors import UsageError

    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} found, expected one of {', '.join(PRECISIONS)}")
    return precision == "bf16" or (precision == "auto" and device != "cpu")


@contextmanager
def _sigterm_noted() -> Iterator[Callable[[], bool]]:
    """While it lasts SIGTERM is only remembered, so that the step under way can end and be kept."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda signum, frame: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _told_by_the_outcome(of_a_job: bool) -> Iterator[None]:
    """A process of a TrainJob ends well however its training ended, which the outcome says: Kubernetes would start its
    container again in place, up to six times, where another try is the step's to make."""
    try:
        yield
    except (Exception, SystemExit) as ended:
        if not of_a_job:
            raise
        print(f"ended by {type(ended).__name__}: {ended}; see the outcome", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with _told_by_the_outcome(of_a_job=any(word.startswith("--waited-for=") for word in sys.argv)):
        run_alone(run)
