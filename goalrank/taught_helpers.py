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

from goalrank.baselines.generators import Generators
from goalrank.baselines.harness import Lesson, fit
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import ModelRefused
from goalrank.groups import BATCH_REQUESTS, Groups
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


@torch.inference_mode()
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
    generators, reward_model = generators.to(device).eval(), reward_model.to(device).eval()
    own_lists, own_heads = [], []
    for begin in range(0, len(groups), BATCH_REQUESTS):
        batch = training_set.batch(groups.request_R[begin : begin + BATCH_REQUESTS]).to(device)
        lists_BKL = generators.lists(batch, length)
        rewards_HBK = reward_model.score_lists(reward_model.encode(batch), lists_BKL)
        own_lists.append(lists_BKL.to(torch.int16).cpu().numpy())
        own_heads.append(rewards_HBK.float().transpose(0, 1).cpu().numpy())
    head_rewards_RHG = np.concatenate([groups.head_rewards_RHG, np.concatenate(own_heads)], axis=2)
    if not np.isfinite(head_rewards_RHG).all():
        raise ModelRefused("the reward model's rewards for the generators' lists are not finite; train it again")
    return Groups(
        request_R=groups.request_R,
        lists_RGL=np.concatenate([groups.lists_RGL, np.concatenate(own_lists)], axis=1),
        rewards_RG=head_rewards_RHG.mean(axis=1),
        head_rewards_RHG=head_rewards_RHG,
        helpers=(*groups.helpers, *(f"{NAME}:{number + 1}" for number in range(generators.count))),
    )
