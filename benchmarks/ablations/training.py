"""One arm, one seed: groups are made, a ranker is trained on them, the true reward judges its lists.

Shapes: R requests, G lists, P pairs of lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ablations.arms import Arm, Signal
from benchmarks.ablations.signals import PlantedReward, Truth
from benchmarks.devices import device_of
from benchmarks.quality.problem import TEST, TRAIN, Figures
from benchmarks.quality.simulated import Simulated
from goalrank.execution import Execution
from goalrank.group_plan import planned
from goalrank.groups import Groups, build_groups
from goalrank.objective import first_occurrence, group_reference, sharpness
from goalrank.presets import Preset
from goalrank.processes import Processes
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH
from goalrank.train import train_ranker

MEASURED_LISTS = 16
"""Lists a request on which a signal's order is held against the true one: all heuristics, sampled ones repeated."""
_BATCH = 256


def reward_of(signal: Signal, guide: RewardModel, truth: Truth) -> RewardModel:
    """Who scores the lists."""
    return PlantedReward(truth, signal, guide).eval() if signal.truth else guide


def trained_arm(
    problem: Simulated,
    truth: Truth,
    guide: RewardModel,
    preset: Preset,
    seed: int,
    arm: Arm,
    device: str = "cpu",
) -> tuple[dict[str, Any], Figures]:
    """Train the arm's ranker on a device; what it came to, and its figures on each test request.

    Raises:
        ModelRefused: a loss or a weight is not finite.
    """
    chosen = planned(preset, arm.plan)
    model = reward_of(arm.signal, guide, truth)
    rows_R, mix = problem.rows[TRAIN], chosen.helpers
    groups = build_groups(problem.data, rows_R, model, chosen.helper_lists, seed, mix=mix, device=device)
    if arm.without_helpers:
        groups = _without_helpers(groups)
    execution = Execution(Processes(device=device))
    trained = train_ranker(problem.data, groups, model, chosen, seed, objective=arm.objective, execution=execution)
    figures = problem.figures(TEST, greedy_lists(trained.ranker, problem), None)
    found = {
        "group_size": chosen.on_policy_lists + groups.lists_RGL.shape[1],
        "own_lists": chosen.on_policy_lists,
        "temperature": trained.objective.temperature,
        "top_weight": _top_weight(groups, arm, trained.objective.temperature),
        "reward": float(figures["reward"].mean()),
        "hit": float(np.nanmean(figures[f"h@{LIST_LENGTH}"])),
        "duplicates": trained.curves["duplicates"][-1][1],
    }
    return found, figures


@torch.inference_mode()
def greedy_lists(ranker: Ranker, problem: Simulated) -> np.ndarray:
    """lists_RL of all test requests, as they would be served."""
    rows_R = problem.rows[TEST]
    lists, device = [], device_of(ranker)
    for begin in range(0, len(rows_R), _BATCH):
        batch = problem.data.batch(rows_R[begin : begin + _BATCH]).to(device)
        lists.append(ranker.greedy(ranker.encode(batch), LIST_LENGTH).cpu().numpy())
    return np.concatenate(lists)


def measured_groups(
    problem: Simulated, model: RewardModel, requests: int, lists: int = MEASURED_LISTS, mix: Sequence[str] = ()
) -> Groups:
    """So many lists a request of some training requests, scored by the model; the same for every signal, of helpers as
    goalrank.groups.build_groups takes them."""
    rows_R = problem.rows[TRAIN][:: max(1, len(problem.rows[TRAIN]) // requests)][:requests]
    return build_groups(problem.data, rows_R, model.to("cpu"), lists, seed=0, mix=mix)


def order_of(problem: Simulated, truth: Truth, model: RewardModel, requests: int) -> dict[str, float]:
    """How much of the true order a signal has right: over pairs of lists of a request that differ in r*.

    `agreement` is the share of pairs in the true order, ties a half; `kendall_tau` is 2 agreement - 1 (tau-a over
    those pairs).
    """
    groups = measured_groups(problem, model, requests)
    true_RG = true_rewards(problem, truth, groups)
    first, second = np.triu_indices(groups.lists_RGL.shape[1], 1)
    true_RP = np.sign(true_RG[:, first] - true_RG[:, second])
    found_RP = np.sign(groups.rewards_RG[:, first] - groups.rewards_RG[:, second])
    agreement = float((0.5 + 0.5 * true_RP * found_RP)[true_RP != 0].mean())
    return {"agreement": agreement, "kendall_tau": 2.0 * agreement - 1.0}


def true_rewards(problem: Simulated, truth: Truth, groups: Groups) -> np.ndarray:
    """r* [R, G] of the groups' lists."""
    found = []
    for begin in range(0, len(groups), _BATCH):
        rows = slice(begin, begin + _BATCH)
        batch = problem.data.batch(groups.request_R[rows])
        found.append(truth.reward(truth.rows(batch), groups.lists_RGL[rows].astype(np.int64)))
    return np.concatenate(found)


def mask_of(groups: Groups) -> Tensor:
    """mask_RG, a list's first copy alone."""
    return first_occurrence(torch.from_numpy(groups.lists_RGL))


def _top_weight(groups: Groups, arm: Arm, temperature: float) -> float:
    """Of the reference policy over the helpers' lists, mean; NaN where they are fewer than two."""
    if groups.lists_RGL.shape[1] < 2:
        return float("nan")
    rewards_RG, mask_RG = torch.from_numpy(groups.rewards_RG), mask_of(groups)
    reference_RG = group_reference(rewards_RG, mask_RG, arm.objective.normalisation, temperature)
    return float(sharpness(reference_RG).mean())


def _without_helpers(groups: Groups) -> Groups:
    return replace(
        groups,
        lists_RGL=groups.lists_RGL[:, :0],
        rewards_RG=groups.rewards_RG[:, :0],
        head_rewards_RHG=groups.head_rewards_RHG[:, :, :0],
        helpers=(),
    )
