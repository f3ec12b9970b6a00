"""generate_groups: training set + reward model -> shards of helper lists with their rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.data_gate import Gate
from components.step import Step, run_alone

if TYPE_CHECKING:
    from goalrank.dataset import TrainingSet
    from goalrank.groups import Groups


def run(
    training_set: str,
    reward_model: str,
    groups: str,
    preset: str,
    seed: int,
    run_uri: str,
    data_docs: str = "",
    group_plan: str = "",
    part: int = 0,
    parts: int = 1,
) -> None:
    """Propose and score the helpers' lists of every request the ranker may learn from (never the judge's); check them.

    Args:
        training_set: training set artifact (directory).
        reward_model: model directory of the guiding reward model.
        groups: directory to write; groups.json comes last.
        preset: tiny, small, base or large.
        seed: of the sampled helpers.
        run_uri: the run's own folder.
        group_plan: how groups are made where not as the preset says (goalrank/group_plan.py).
        data_docs: folder for Great Expectations' static site, in the run's folder by default; written when the groups
            are refused, too.
        part, parts: make that one of so many parts alone; join_groups puts them together and checks them. Each trains
            the generators, where the plan asks for them: the same ones on a CPU, on a GPU the same up to rounding.

    Raises:
        DataRefused: there is no request to learn from, or the groups failed a critical check (suites.py).
        ModelRefused: the reward model is damaged, or its rewards are not finite.
        UsageError: no such preset, or the plan makes no groups.
    """
    with Step("generate_groups" if parts == 1 else f"generate_groups_{part + 1}_of_{parts}", run_uri) as step:
        with step.tool("torch"):
            import torch

            from goalrank.checkpoint import load_model
            from goalrank.dataset import TrainingSet
            from goalrank.errors import ModelRefused
            from goalrank.group_parts import write_part
            from goalrank.group_plan import planned, taught_by
            from goalrank.groups import build_groups, write_groups
            from goalrank.presets import preset as preset_named
            from goalrank.reward import RewardModel
            from goalrank.taught_helpers import taught_generators, with_lists_of
        chosen, taught = planned(preset_named(preset), group_plan), taught_by(group_plan)
        data = TrainingSet.load(training_set)
        reward = load_model(reward_model)
        if not isinstance(reward, RewardModel):
            raise ModelRefused(f"{reward_model} holds a {type(reward).__name__}, expected a reward model")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        built = build_groups(
            data,
            data.guide_indices(),
            reward,
            chosen.helper_lists,
            seed,
            mix=chosen.helpers,
            part=part,
            parts=parts,
            device=device,
            progress=lambda done, total: step.progress(done, total, "requests"),
        )
        if taught.generators and len(built):
            generators = taught_generators(
                data,
                data.guide_indices(),
                reward,
                chosen,
                seed,
                taught.generators,
                taught.steps,
                device=device,
                progress=lambda done, total: step.progress(done, total, "steps of the generators"),
            )
            built = with_lists_of(generators, built, data, reward, device=device)
        if parts > 1:
            write_part(groups, built, part, parts)
            step.figures["requests"] = len(built)
            return
        card = write_groups(groups, built)
        step.figures.update({**card["counts"], "helpers": card["helpers"], **card["statistics"]})
        lists = chosen.helper_lists + taught.generators
        check(step, built, data, lists, card, data_docs or f"{run_uri}/data_docs/generate_groups")


def check(
    step: Step, groups: Groups, data: TrainingSet, helper_lists: int, card: dict[str, Any], data_docs: str
) -> None:
    """Hold groups against the suites.

    Args:
        groups: as built.
        data: the training set they are of.
        helper_lists: how many lists a group has by the preset or the plan.
        card: what write_groups returned.
        data_docs: folder of the static site.

    Raises:
        DataRefused: a critical check failed; names each one, what was found and how to mend it.
    """
    with step.tool("great_expectations"):
        gate = Gate("generate_groups", data_docs)
        from components.generate_groups import prepare, suites
    indices = data.guide_indices()
    with gate:
        rows = prepare.group_rows(groups, data, helper_lists)
        gate.check("groups", rows, suites.groups(), ["request_id"])
        largest = prepare.largest_logged_reward(data, indices)
        whole = prepare.whole(rows, card["statistics"]["without_signal"], len(indices), largest)
        gate.check("whole", whole, suites.whole(), ["groups", "largest_reward", "largest_logged"])
    gate.decide(step, f"the groups of {data.date}")


if __name__ == "__main__":
    run_alone(run)
