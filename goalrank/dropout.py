"""Dropout of activations. torch's own draws a Bernoulli number an element, which on a CPU costs more than the layers of
the smaller presets beside it; here 16 random bits decide.

Where a process or a pass takes only a share of a batch (`drawn_for`), numbers are drawn for the whole batch and the
share's are used, so that what is dropped does not depend on how the batch was divided. It costs the whole's numbers in
each share, which is why GPUs, fast in arithmetic and short of memory, draw a share's activations alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from goalrank.schedule import Share

LEVELS = 1 << 16

_divided: list[tuple[Share, Tensor]] = []
"""The share in work, last, and its rows as a tensor; empty: every tensor is of a whole batch."""


@contextmanager
def drawn_for(share: Share, device: torch.device | str = "cpu") -> Iterator[None]:
    """Meanwhile tensors are of this share of a batch, their leading dimension its requests, or lists request by
    request, and padded as the whole batch is."""
    _divided.append((share, torch.arange(share.begin, share.end, device=device)))
    try:
        yield
    finally:
        _divided.pop()


def uniform(shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform numbers of torch's global generator, the leading dimension the requests."""
    if not _divided:
        return torch.rand(shape, device=device)
    share, rows = _divided[-1]
    return torch.rand((share.whole, *shape[1:]), device=device)[rows]  # by numbers torch.compile would fit each share


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
    begin, whole = 0, x.numel()
    if _divided:
        part, _ = _divided[-1]
        each = x.numel() // (part.end - part.begin)
        begin, whole = part.begin * each, part.whole * each
    words = torch.empty((whole + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)  # all 64 bits random
    numbers = words.view(torch.int16)[begin : begin + x.numel()]
    kept = numbers.view(x.shape) >= dropped - LEVELS // 2
    return x * (kept * (LEVELS / (LEVELS - dropped))).to(x.dtype)
