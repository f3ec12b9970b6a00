"""What several processes of one training begin with must be the same in each, or they train different models as one.

Nothing else would tell: gradients are summed whatever they are gradients of. A node that mounts another volume, runs
another release, or read a file while it was written is found before the first step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from goalrank import __version__
from goalrank.dataset import TrainingSet
from goalrank.errors import UsageError
from goalrank.groups import Groups
from goalrank.processes import Processes


def require_same_start(
    processes: Processes,
    training_set: TrainingSet,
    groups: Groups,
    reward_model: nn.Module,
    identity: Mapping[str, Any],
    ranker: nn.Module,
) -> None:
    """Compare a digest of everything between all processes; each of them refuses if one differs. Alone: nothing to do.

    Args:
        identity: configuration: preset, seed, objective, fingerprints of the inputs' files.
        ranker: with the weights that training begins with.

    Raises:
        UsageError: a process has something else, in all processes with the same words.
        TryAgain: another process is gone.
    """
    if processes.count == 1:
        return
    configuration = {"release": __version__, "torch": torch.__version__, **identity}
    require_same(
        processes,
        {
            "training set": training_set.digest(),
            "groups": arrays_digest([groups.request_R, groups.lists_RGL, groups.rewards_RG, groups.head_rewards_RHG]),
            "reward model": weights_digest(reward_model),
            "configuration": hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).digest(),
            "initial weights": weights_digest(ranker),
        },
    )


def require_same(processes: Processes, digests: Mapping[str, bytes]) -> None:
    """Compare named SHA-256 digests between all processes.

    Raises:
        UsageError, TryAgain: as :func:`require_same_start`.
    """
    if processes.count == 1:
        return
    mine = torch.tensor([list(digest) for digest in digests.values()], dtype=torch.uint8, device=processes.device)
    everybodys = processes.gather(mine)
    for number, other in enumerate(everybodys):
        unequal = (other != everybodys[0]).any(dim=1).tolist()
        if any(unequal):
            named = [name for name, differs in zip(digests, unequal, strict=True) if differs]
            raise UsageError(
                f"training process {number} begins with another {' and '.join(named)} than process 0; expected the "
                "same in all: give each the same folders, settings and release, and start all of them again"
            )


def weights_digest(module: nn.Module) -> bytes:
    """SHA-256 of names, shapes and values of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def arrays_digest(arrays: Iterable[np.ndarray]) -> bytes:
    """SHA-256 of shapes and values of arrays, in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()
