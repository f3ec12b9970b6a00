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

_divided: list[Share] = []
"""The share in work, last; empty: every tensor is of a whole batch."""


@contextmanager
def drawn_for(share: Share) -> Iterator[None]:
    """Meanwhile tensors are of this share of a batch, their leading dimension its requests, or lists request by
    request, and padded as the whole batch is."""
    _divided.append(share)
    try:
        yield
    finally:
        _divided.pop()


def uniform(shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform numbers of torch's global generator, the leading dimension the requests."""
    if not _divided:
        return torch.rand(shape, device=device)
    share = _divided[-1]
    return torch.rand((share.whole, *shape[1:]), device=device)[share.rows]


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
        requests = _divided[-1].end - _divided[-1].begin
        begin, whole = (_divided[-1].begin * x.numel() // requests, _divided[-1].whole * x.numel() // requests)
    words = torch.empty((whole + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)  # all 64 bits random
    numbers = words.view(torch.int16)[begin : begin + x.numel()]
    kept = numbers.view(x.shape) >= dropped - LEVELS // 2
    return x * (kept * (LEVELS / (LEVELS - dropped))).to(x.dtype)
