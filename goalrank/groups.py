"""List groups: the helpers' lists of every training request with the reward model's opinion of each, and their shards.

Only the helper half of a group is made ahead and stored; the on-policy half is sampled anew while the ranker trains
(docs/method.md, "Training, three steps", 2).

Legend: R requests, G helper lists a request, L list length, H heads of the reward ensemble.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor

from goalrank.dataset import RequestBatch, TrainingSet
from goalrank.encoders import Encoded
from goalrank.errors import DataRefused, ModelRefused, UsageError
from goalrank.objective import first_occurrence, group_noise, group_std, signal_weights
from goalrank.policies import Opinion, Proposal, helper_columns, propose_lists
from goalrank.reward import RewardModel
from goalrank.schedule import HELPERS, derived_seed
from goalrank.schema import LIST_LENGTH

FORMAT = 1
SHARD_REQUESTS = 8192
BATCH_REQUESTS = 256
"""Requests that lists are proposed for at once, and the grain of a part: a batch draws from its own seed, so whoever
makes it makes the same lists."""


@dataclass(frozen=True)
class Groups:
    """Helper lists and their rewards, row for row."""

    request_R: np.ndarray  # int32, row in examples.parquet
    lists_RGL: np.ndarray  # int16, candidate indices, -1 = none
    rewards_RG: np.ndarray  # float32, r_hat: the mean of the heads
    head_rewards_RHG: np.ndarray  # float32, each head's own opinion: their spread is the noise
    helpers: tuple[str, ...]  # name of the policy behind each column

    def __len__(self) -> int:
        return len(self.request_R)


def build_groups(
    training_set: TrainingSet,
    indices: np.ndarray,
    reward_model: RewardModel,
    helper_lists: int,
    seed: int,
    *,
    mix: Sequence[str] = (),
    length: int = LIST_LENGTH,
    batch_requests: int = BATCH_REQUESTS,
    part: int = 0,
    parts: int = 1,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Groups:
    """Propose and score `helper_lists` lists for each request in `indices` (rows of examples.parquet).

    `mix` names the helper policies to take part (policies.helper_columns); none: the heuristics. Of several `parts`,
    `part` makes its share of the groups alone; all of them, put together, are the groups of one piece.

    Raises:
        DataRefused: there is no request to build a group for.
        ModelRefused: the reward model gives a reward that is not finite.
        UsageError: the mix is not one that makes so many lists, or there is no such part.
    """
    if len(indices) == 0:
        raise DataRefused(
            "no training request offers a choice, expected at least one; give the night more days of logs"
        )
    columns = helper_columns(helper_lists, mix)
    share = share_of(part, parts, len(indices), batch_requests)
    names = tuple(policy.name for policy in columns)
    if share.start == share.stop:  # more parts than batches
        nothing = np.empty(0)
        return Groups(np.empty(0, np.int32), nothing, nothing, nothing, names)

    own = indices[share]

    def propose(at: int, batch: RequestBatch, encoded: Encoded) -> Tensor:
        shown_BL = training_set.feedback(own[at : at + len(batch.mask_BN)]).slate_BL.to(device)
        generator = torch.Generator().manual_seed(derived_seed(seed, HELPERS, (share.start + at) // batch_requests))
        return propose_lists(Proposal(batch, shown_BL, length, Opinion(reward_model, encoded)), columns, generator)

    lists_RGL, head_rewards_RHG = scored_lists(
        training_set,
        own,
        reward_model,
        propose,
        batch_requests=batch_requests,
        device=device,
        progress=progress,
    )
    return Groups(
        request_R=np.asarray(own, dtype=np.int32),
        lists_RGL=lists_RGL,
        rewards_RG=head_rewards_RHG.mean(axis=1),
        head_rewards_RHG=head_rewards_RHG,
        helpers=names,
    )


def scored_lists(
    training_set: TrainingSet,
    indices: np.ndarray,
    reward_model: RewardModel,
    propose: Callable[[int, RequestBatch, Encoded], Tensor],
    *,
    batch_requests: int = BATCH_REQUESTS,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """lists_RGL (int16) that `propose` makes of each batch, and the heads' opinion of them, [R, H, G] (float32).

    Args:
        indices: rows of examples.parquet, at least one.
        propose: lists_BGL of a batch, which begins at that place of `indices`, as the reward model has encoded it.

    Raises:
        ModelRefused: the reward model gives a reward that is not finite.
    """
    reward_model = reward_model.to(device).eval()
    lists, heads = [], []
    for begin in range(0, len(indices), batch_requests):
        batch = training_set.batch(indices[begin : begin + batch_requests]).to(device)
        with torch.inference_mode():
            encoded = reward_model.encode(batch)
            lists_BGL = propose(begin, batch, encoded)
            rewards_HBG = reward_model.score_lists(encoded, lists_BGL)
        lists.append(lists_BGL.to(torch.int16).cpu().numpy())
        heads.append(rewards_HBG.float().transpose(0, 1).cpu().numpy())
        if progress is not None:
            progress(min(begin + batch_requests, len(indices)), len(indices))
    head_rewards_RHG = np.concatenate(heads)
    if not np.isfinite(head_rewards_RHG).all():
        row = int(indices[np.flatnonzero(~np.isfinite(head_rewards_RHG).all(axis=(1, 2)))[0]])
        raise ModelRefused(
            f"the reward model's rewards for request {training_set.request_ids[row]!r} are not finite; "
            "train the reward model again"
        )
    return np.concatenate(lists), head_rewards_RHG


def share_of(part: int, parts: int, requests: int, batch_requests: int = BATCH_REQUESTS) -> slice:
    """The requests that one of several parts makes the groups of: whole batches, as evenly as they go.

    Raises:
        UsageError: there is no such part.
    """
    if not 0 <= part < parts:
        raise UsageError(f"part {part} of {parts} groups found, expected a number from 0 and below how many there are")
    batches = -(-requests // batch_requests)
    begin, end = (edge * batches // parts * batch_requests for edge in (part, part + 1))
    return slice(min(begin, requests), min(end, requests))


# --------------------------------------------------------------------------------------------------------- statistics


def group_statistics(groups: Groups, chunk: int = 4096) -> dict[str, Any]:
    """What the helpers bring, before any ranker is trained.

    `reward_std` and `reward_noise` are means over requests (defined in objective/group.py, duplicates counted once);
    `without_signal` is the share of groups whose noise is not below their spread; `duplicates` the share of lists that
    an earlier column of the group already holds; `distinct_items` and `distinct_positions` are, for a mean pair of
    lists of a group, the share of items the other does not hold and the share of positions where they differ.
    """
    total: dict[str, float] = {}
    wins = np.zeros(len(groups.helpers))
    for begin in range(0, len(groups), chunk):
        lists_BGL = torch.from_numpy(groups.lists_RGL[begin : begin + chunk])
        rewards_BG = torch.from_numpy(groups.rewards_RG[begin : begin + chunk])
        heads_HBG = torch.from_numpy(groups.head_rewards_RHG[begin : begin + chunk]).transpose(0, 1)
        mask_BG = first_occurrence(lists_BGL)
        std_B, noise_B = group_std(rewards_BG, mask_BG), group_noise(heads_HBG, mask_BG)
        weight_B = signal_weights(std_B, noise_B)
        items_B, places_B = _distinctness(lists_BGL)
        for name, value_B in (
            ("reward_std", std_B),
            ("reward_noise", noise_B),
            ("signal_weight", weight_B),
            ("without_signal", weight_B == 0),
            ("duplicates", (~mask_BG).double().mean(dim=1)),
            ("distinct_items", items_B),
            ("distinct_positions", places_B),
        ):
            total[name] = total.get(name, 0.0) + float(value_B.double().sum())
        wins += np.bincount(rewards_BG.argmax(dim=1).numpy(), minlength=len(groups.helpers))
    mean_G = groups.rewards_RG.mean(axis=0, dtype=np.float64)
    return {
        **{name: value / len(groups) for name, value in total.items()},
        "helper_rewards": _by_helper(groups.helpers, mean_G, np.mean),
        "helper_best_share": _by_helper(groups.helpers, wins / len(groups), np.sum),
    }


def _distinctness(lists_BGL: Tensor) -> tuple[Tensor, Tensor]:
    group = lists_BGL.shape[1]
    if group < 2:
        zero_B = torch.zeros(lists_BGL.shape[0])
        return zero_B, zero_B
    first, second = torch.triu_indices(group, group, offset=1)
    a_BPL, b_BPL = lists_BGL[:, first], lists_BGL[:, second]
    filled_BP = (a_BPL >= 0).sum(dim=-1).clamp_min(1)
    held_BPL = (a_BPL.unsqueeze(-1) == b_BPL.unsqueeze(-2)).any(dim=-1) & (a_BPL >= 0)
    moved_BPL = (a_BPL != b_BPL) & (a_BPL >= 0)
    return 1.0 - (held_BPL.sum(dim=-1) / filled_BP).mean(dim=1), (moved_BPL.sum(dim=-1) / filled_BP).mean(dim=1)


def _by_helper(names: tuple[str, ...], values_G: np.ndarray, gather: Callable[[np.ndarray], Any]) -> dict[str, float]:
    """Columns of one sampled policy are put together under its name."""
    return {name: float(gather(values_G[[other == name for other in names]])) for name in dict.fromkeys(names)}


# ------------------------------------------------------------------------------------------------------------- shards


def write_groups(directory: str | Path, groups: Groups, shard_requests: int = SHARD_REQUESTS) -> dict[str, Any]:
    """Write shard-00000.safetensors ... and groups.json (last, so a folder that has one is whole); returns the card."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, begin in enumerate(range(0, len(groups), shard_requests)):
        rows = slice(begin, begin + shard_requests)
        content = save(
            {
                "request": np.ascontiguousarray(groups.request_R[rows]),
                "lists": np.ascontiguousarray(groups.lists_RGL[rows]),
                "rewards": np.ascontiguousarray(groups.rewards_RG[rows]),
                "head_rewards": np.ascontiguousarray(groups.head_rewards_RHG[rows]),
            }
        )
        name = f"shard-{number:05d}.safetensors"
        (folder / name).write_bytes(content)
        shards.append({"file": name, "sha256": hashlib.sha256(content).hexdigest()})
    card = {
        "format": FORMAT,
        "helpers": list(groups.helpers),
        "counts": {"requests": len(groups), "lists": int(groups.lists_RGL.shape[1]), "shards": len(shards)},
        "statistics": group_statistics(groups),
        "shards": shards,
    }
    (folder / "groups.json").write_text(json.dumps(card, indent=1))
    return card


def read_groups(directory: str | Path) -> Groups:
    """Read what :func:`write_groups` wrote.

    Raises:
        DataRefused: the card or a shard is missing, of another format, or altered.
    """
    folder = Path(directory)
    again = "run generate_groups again"
    if not (folder / "groups.json").is_file():
        raise DataRefused(f"groups {folder} has no groups.json; {again}")
    card = json.loads((folder / "groups.json").read_text())
    if card.get("format") != FORMAT:
        raise DataRefused(f"groups {folder} has format {card.get('format')!r}, expected {FORMAT}; {again}")
    parts = []
    for shard in card["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            raise DataRefused(f"groups {folder} lacks {shard['file']}; {again}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != shard["sha256"]:
            raise DataRefused(f"{path} is not what groups.json recorded (SHA-256 differs); {again}")
        parts.append(load(content))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Groups(whole["request"], whole["lists"], whole["rewards"], whole["head_rewards"], tuple(card["helpers"]))


def groups_digest(directory: str | Path) -> str:
    """SHA-256 of groups.json, which names every shard's own: another digest, other groups."""
    return hashlib.sha256((Path(directory) / "groups.json").read_bytes()).hexdigest()
