"""join_groups: the parts of the groups -> the groups that one piece would have been, checked as those are."""

from __future__ import annotations

from components.generate_groups.main import check
from components.step import Step, run_alone


def run(
    training_set: str,
    parts: str,
    groups: str,
    preset: str,
    run_uri: str,
    data_docs: str = "",
    group_plan: str = "",
) -> None:
    """Put groups together that generate_groups made in several parts.

    Args:
        training_set: training set artifact (directory).
        parts: directories of all parts, with commas, in any order.
        groups: directory to write; groups.json comes last.
        preset: tiny, small, base or large.
        run_uri: the run's own folder.
        data_docs: folder for Great Expectations' static site, in the run's folder by default.
        group_plan: how the parts were made where not as the preset says (goalrank/group_plan.py).

    Raises:
        UsageError: no such preset, or the plan makes no groups.
        DataRefused: a part is missing, damaged or of another making, or the groups failed a critical check.
    """
    with Step("join_groups", run_uri) as step:
        with step.tool("torch"):
            from goalrank.dataset import TrainingSet
            from goalrank.group_parts import read_parts
            from goalrank.group_plan import planned, taught_by
            from goalrank.groups import write_groups
            from goalrank.presets import preset as preset_named
        helper_lists = planned(preset_named(preset), group_plan).helper_lists + taught_by(group_plan).generators
        data = TrainingSet.load(training_set)
        joined = read_parts(parts.split(","))
        card = write_groups(groups, joined)
        step.figures.update({**card["counts"], "helpers": card["helpers"], **card["statistics"]})
        check(step, joined, data, helper_lists, card, data_docs or f"{run_uri}/data_docs/join_groups")


if __name__ == "__main__":
    run_alone(run)
