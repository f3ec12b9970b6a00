"""Several processes that train one model together, started by torchrun: who is who, and what they say to each other.

Every process holds the whole model and takes its share of each batch; gradients are summed, so all take the same step.
A process that dies ends the others: a connection that breaks, or a wait beyond PATIENCE, is TryAgain. They do not go on
without it and nobody is replaced in place; the launch ends and the next one goes on from the checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from goalrank.errors import TryAgain, UsageError

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives up; the first writes checkpoints meanwhile."""

BUCKET = 1 << 20
"""Gradients of fewer elements travel together: each message costs a round trip, whatever its size."""

TOLERANCE = 5e-4
"""Largest absolute difference of any weight between a run by one process and the same by two, float32 on a CPU, as long
as both sample the same lists: what differs is the order in which sums are rounded. Found over preset tiny's 120 steps:
1e-4 in the biases of attention's keys, which its softmax cancels, 2e-5 elsewhere; dropout makes no difference."""

TOLERANCE_AFTER_A_TIE = 0.05
"""The same once rounding has turned a near tie into another list, from where the runs part: in two of six runs of
preset tiny, then up to 0.008, a hundredth of the way that training moves the weights."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; as it stands, the only one, on the CPU."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Is this the one that writes checkpoints, progress and results?"""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all processes, the same bits in each; `values` is overwritten."""
        if self.count > 1:
            with _others_needed():
                dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """The tensor of every process, by its rank; all of one shape and type."""
        if self.count == 1:
            return [values]
        everybodys = [torch.empty_like(values) for _ in range(self.count)]
        with _others_needed():
            dist.all_gather(everybodys, values)
        return everybodys

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        for gradient in gradients:
            if gradient.numel() >= BUCKET:
                self.sum(gradient)
        small = [gradient for gradient in gradients if gradient.numel() < BUCKET]
        summed = self.sum(torch.cat([gradient.flatten() for gradient in small]))
        for gradient, part in zip(small, summed.split([gradient.numel() for gradient in small]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, here: bool) -> bool:
        """Does any process say yes? All get the same answer; who asks has waited for all."""
        return bool(self.sum(torch.tensor(float(here), device=self.device)).item()) if self.count > 1 else here

    def wait(self) -> None:
        """Return once every process has come here."""
        self.any(False)

    def agreed(self, number: int) -> int:
        """The first process's number."""
        return int(self.sum(torch.tensor(number if self.first else 0, device=self.device)).item())


@contextmanager
def joined(patience: timedelta = PATIENCE) -> Iterator[Processes]:
    """Join the processes that torchrun started beside this one (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
    MASTER_PORT), on NCCL and a GPU each if there are GPUs, else on gloo; without torchrun this one is alone.

    Raises:
        UsageError: the environment is half of torchrun's, or there are more processes than GPUs on this machine.
        TryAgain: the others did not come.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    place = os.environ.get("LOCAL_RANK", rank)
    if not (count.isdecimal() and rank.isdecimal() and place.isdecimal() and int(rank) < int(count)):
        raise UsageError(
            f"WORLD_SIZE {count!r}, RANK {rank!r}, LOCAL_RANK {place!r} found, expected what torchrun sets; "
            "start several processes by torchrun, and one with none of them set"
        )
    if count == "1":
        yield Processes(device="cuda" if gpus else "cpu")
        return
    if gpus and int(place) >= gpus:
        raise UsageError(f"process {place} of this machine found, which has {gpus} GPUs; start one process a GPU")
    if gpus:
        torch.cuda.set_device(int(place))
    with _others_needed():
        dist.init_process_group("nccl" if gpus else "gloo", timeout=patience)
    try:
        yield Processes(int(rank), int(count), f"cuda:{place}" if gpus else "cpu")
    except BaseException:
        if not gpus:  # NCCL might wait here for a peer that is gone; the end of this process closes all as well
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@contextmanager
def _others_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch has no narrower class for a peer that is gone
        raise TryAgain(
            f"another process of this training is gone or does not answer ({error}); its own log says why, "
            "start the same command again to go on from the last checkpoint"
        ) from error
