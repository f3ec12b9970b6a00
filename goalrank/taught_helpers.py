"""Helper lists of light rankers: small generators that learn from logged feedback (docs/method.md, "List groups").

The other helpers are rules, or ask the guide: what they propose holds nothing of the feedback that the guide has got
wrong. These learn from the feedback itself, each in its own way (goalrank/baselines/generators.py), for a few steps,
and propose one list each. What the ranker then learns of r_hat it learns among lists that users have reason to like.
Under a poor guide that was worth something, under a good one nothing (docs/experiments.md, "Light rankers as helpers").

Legend: R requests, K generators, G helper lists of a request, L list length, H heads of the reward ensemble.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from goalrank.baselines.generators import Generators
from goalrank.baselines.harness import Lesson, fit
from goalrank.dataset import RequestBatch, TrainingSet
from goalrank.encoders import Encoded, ModelSizes
from goalrank.groups import Groups, scored_lists
from goalrank.presets import Preset
from goalrank.reward import RewardModel
from goalrank.schedule import HELPERS, derived_seed
from goalrank.schema import LIST_LENGTH

NAME = "generator"
"""Columns are called generator:1, generator:2, ..."""

_PART = 1 << 30  # of the seed: no batch of helpers' lists has that number


def taught_generators(
    training_set: TrainingSet,
    indices: np.ndarray,
    reward_model: RewardModel,
    preset: Preset,
    seed: int,
    count: int,
    steps: int,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Generators:
    """`count` generators on one encoder, trained for `steps` on the logged feedback to the requests in `indices` (rows
    of examples.parquet); history and items as the reward model's encoder has them.

    Raises:
        DataRefused: fewer than two requests.
        ModelRefused: a loss is not finite.
    """
    encoder = reward_model.encoder.to("cpu")
    lesson = Lesson(training_set, indices, encoder, preset, seed, steps=steps, device=str(device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, HELPERS, _PART))
        generators = Generators(ModelSizes.from_preset(preset), count)
    fit(generators, lesson, progress)
    return generators


def with_lists_of(
    generators: Generators,
    groups: Groups,
    training_set: TrainingSet,
    reward_model: RewardModel,
    *,
    length: int = LIST_LENGTH,
    device: torch.device | str = "cpu",
) -> Groups:
    """The groups with one more list of each generator, scored as theirs were.

    Raises:
        ModelRefused: the reward model gives a reward that is not finite.
    """
    if not len(groups):  # a part without a batch
        return groups
    generators = generators.to(device).eval()

    def propose(_: int, batch: RequestBatch, __: Encoded) -> Tensor:
        return generators.lists(batch, length)

    lists_RKL, heads_RHK = scored_lists(training_set, groups.request_R, reward_model, propose, device=device)
    head_rewards_RHG = np.concatenate([groups.head_rewards_RHG, heads_RHK], axis=2)
    return Groups(
        request_R=groups.request_R,
        lists_RGL=np.concatenate([groups.lists_RGL, lists_RKL], axis=1),
        rewards_RG=head_rewards_RHG.mean(axis=1),
        head_rewards_RHG=head_rewards_RHG,
        helpers=(*groups.helpers, *(f"{NAME}:{number + 1}" for number in range(generators.count))),
    )
