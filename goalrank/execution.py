"""How a training run is carried out: by how many processes, in how many passes a step, in what precision.

None of it changes what is learnt beyond rounding, bf16's being the coarsest; docs/method.md says what is the same and
what is not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from goalrank.errors import UsageError
from goalrank.processes import Processes
from goalrank.schedule import Share, shares


@dataclass(frozen=True)
class Execution:
    """The ways of one run; as it stands, one process, one pass, float32."""

    processes: Processes = field(default_factory=Processes)
    micro_batch: int = 0
    """Most requests that go through the model at once, each process counted by itself: gradients of a step's passes add
    up. 0: all at once. Activations, most of a step's memory, shrink in proportion; weights and optimiser do not."""
    bf16: bool = False
    """Forward and backward pass of the ranker under autocast: weights, optimiser, loss and checkpoints stay float32,
    and so do the sampling of lists and the reward model."""
    compiled: bool = False
    """The same passes through torch.compile."""

    def __post_init__(self) -> None:
        if self.micro_batch < 0:
            raise UsageError(f"micro_batch {self.micro_batch} found, expected a number of requests, or 0 for all")

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return torch.device(self.processes.device)

    def shares(self, batch_requests: int) -> list[Share]:
        """What this process does of a batch, pass by pass.

        Raises:
            UsageError: there are more processes than requests.
        """
        if batch_requests < self.processes.count:
            raise UsageError(
                f"{self.processes.count} processes found, but a step has {batch_requests} requests; start at most as "
                "many"
            )
        return shares(batch_requests, self.processes.rank, self.processes.count, self.micro_batch)

    def autocast(self) -> AbstractContextManager[Any]:
        """Around the passes that bf16 is for."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled if that is asked for."""
        return torch.compile(function) if self.compiled else function
