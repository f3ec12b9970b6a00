"""Dropout of activations. torch's own draws a Bernoulli number an element, which on a CPU costs more than the layers of
the smaller presets beside it; here 16 random bits decide."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 1 << 16


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """x with `share` of its elements zeroed and the others scaled up to the same mean; x itself outside of training.

    On a CPU the share is rounded to a multiple of 1 / LEVELS; other devices use torch's fused kernel.
    """
    if not training or share == 0.0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, share)
    dropped = round(share * LEVELS)
    if dropped == LEVELS:
        return x * 0.0
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)  # all 64 bits random
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
    return x * (kept * (LEVELS / (LEVELS - dropped))).to(x.dtype)
