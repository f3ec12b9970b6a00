"""What models learn on in a study: `--device cpu|cuda`."""

from __future__ import annotations

import torch
from torch import nn

from goalrank.errors import UsageError

DEVICES = ("cpu", "cuda")


def require(device: str) -> None:
    """Refuse a device that is not here, before anything has begun.

    Raises:
        UsageError: torch sees no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda found, but torch sees no GPU here; leave it out, or run where there is one")


def name_of(device: str) -> str:
    """The device as its maker calls it."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def device_of(module: nn.Module) -> torch.device:
    """Where its weights are."""
    return next(module.parameters()).device
