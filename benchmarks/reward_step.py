"""The arithmetic of a step of train_reward, counted as benchmarks/gpu_step.py counts the ranker's."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ranker_steps import Work
from goalrank.encoders import ModelSizes
from goalrank.reward import RewardModel

LOGGED_LISTS = 1
"""Of a request that a reward model learns from: the one that was shown."""


@lru_cache
def gflop_request(sizes: ModelSizes) -> float:
    """10^9 operations of one request's forward and backward pass through a reward model of that size."""
    with torch.device("meta"):  # shapes alone: nothing is computed, no weight takes memory
        model = RewardModel(sizes).eval()
    work = Work.drawn(1, LOGGED_LISTS).to("meta")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(work.batch, work.lists_BGL).sum().backward()
    return float(counter.get_total_flops()) / 1e9
