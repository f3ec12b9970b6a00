"""How the models were trained: curves, calibration of the reward models, diversity of the groups."""

from __future__ import annotations

from functools import partial
from typing import Any

from components.publish_report.document import figures, groups_step
from components.publish_report.plots import training as plots
from components.publish_report.plots.style import made, numbered

REWARD_ROWS = {
    "auc": "AUC of clicks",
    "like_auc": "AUC of likes",
    "calibration_error": "calibration error of clicks",
    "rank_correlation": "rank correlation with the lists' reward",
    "reward_predicted": "mean reward predicted",
    "reward_logged": "mean reward logged",
    "noise": "noise of a list's reward",
    "spread": "spread of rewards between lists",
    "requests": "requests learnt from",
    "held_out": "requests held out",
    "best_step": "best step",
}
"""Figures of guide and judge, on held-out lists."""

GROUP_ROWS = {
    "requests": "groups",
    "lists": "helper lists a group",
    "distinct_items": "distinct items, share of all places of a group",
    "distinct_positions": "distinct items at a place, share of lists",
    "duplicates": "lists that are another's copy, share",
    "reward_std": "spread of rewards within a group",
    "reward_noise": "noise of the reward model",
    "without_signal": "groups without signal, share",
    "signal_weight": "mean weight of a group in training",
}
"""Figures of the groups."""

RANKER_ROWS = {
    "greedy_reward": "the ranker's own lists, by the guide",
    "retriever_reward": "the retriever's order",
    "best_helper_reward": "the best helper",
    "best_in_group_reward": "the best list of each group",
    "final_loss": "final loss",
    "steps": "optimiser steps",
    "resumed_from": "resumed from step",
    "processes": "processes",
    "device": "device",
    "bf16": "passes in bfloat16",
}
"""Figures of the ranker's training."""


def training(document: dict[str, Any]) -> dict[str, Any] | None:
    """Tables of the trainings that took place, and their plots."""
    outcomes = document["outcomes"]
    reward, groups, ranker = (
        figures(outcomes, name) for name in ("train_reward", groups_step(outcomes), "train_ranker")
    )
    if not (reward or groups or ranker):
        return None
    roles = {role: reward[role] for role in ("guide", "judge") if isinstance(reward.get(role), dict)}
    calibrated = {"guide": reward.get("reliability") or [], "judge": reward.get("judge_reliability") or []}
    positions = {role: found.get("auc_by_position") or [] for role, found in roles.items()}
    small = [
        partial(plots.curve, title, lines)
        for step, found in (("train_reward", reward), ("train_ranker", ranker))
        for title, lines in plots.curves(step, found.get("curves") or {})
    ]
    return {
        "roles": list(roles),
        "reward": [
            {"name": name, "values": [found.get(key) for found in roles.values()]}
            for key, name in REWARD_ROWS.items()
            if any(found.get(key) is not None for found in roles.values())
        ],
        "groups": _told(groups, GROUP_ROWS),
        "ranker": _told(ranker, RANKER_ROWS),
        "curves": numbered(made(small), "t"),
        "calibration": numbered(
            made([lambda: plots.calibration(calibrated), lambda: plots.by_position(positions)]), "c"
        ),
        "helpers": numbered(
            made([lambda: plots.helpers(groups.get("helper_rewards") or {}, groups.get("helper_best_share") or {})]),
            "h",
        ),
    }


def _told(found: dict[str, Any], rows: dict[str, str]) -> list[tuple[str, Any]]:
    return [(name, found[key]) for key, name in rows.items() if found.get(key) is not None]
