"""Groups made in several parts, each by itself, and put together to the very groups of one piece.

    part.safetensors   request, lists, rewards, head_rewards
    part.json          {"format", "part", "parts", "helpers", "sha256"}; last, so a folder that has one is whole

A part is no groups artifact: nothing is checked about it, and nobody may train on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from goalrank.errors import DataRefused
from goalrank.groups import Groups

FORMAT = 1
WEIGHTS, CARD = "part.safetensors", "part.json"


def write_part(directory: str | Path, groups: Groups, part: int, parts: int) -> None:
    """Write one of several parts."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "request": groups.request_R,
        "lists": groups.lists_RGL,
        "rewards": groups.rewards_RG,
        "head_rewards": groups.head_rewards_RHG,
    }
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    (folder / WEIGHTS).write_bytes(content)
    card = {
        "format": FORMAT,
        "part": part,
        "parts": parts,
        "helpers": list(groups.helpers),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / CARD).write_text(json.dumps(card, indent=1))


def read_parts(directories: Sequence[str | Path]) -> Groups:
    """All parts of one making, put together in their order, whichever order they are named in.

    Raises:
        DataRefused: one is missing, there twice, damaged, or of another making.
    """
    again = "run generate_groups again"
    read: dict[int, tuple[Groups, int]] = {}
    for folder in map(Path, directories):
        try:
            card = json.loads((folder / CARD).read_text())
            content = (folder / WEIGHTS).read_bytes()
        except (OSError, ValueError) as error:
            raise DataRefused(f"part of groups {folder} cannot be read ({error}); {again}") from None
        if card.get("format") != FORMAT or hashlib.sha256(content).hexdigest() != card.get("sha256"):
            raise DataRefused(f"part of groups {folder} is not what its card says; {again}")
        if card["part"] in read:
            raise DataRefused(f"part {card['part']} of the groups found twice, the second in {folder}; {again}")
        arrays = load(content)
        groups = Groups(
            arrays["request"], arrays["lists"], arrays["rewards"], arrays["head_rewards"], tuple(card["helpers"])
        )
        read[card["part"]] = groups, card["parts"]
    expected = {parts for _, parts in read.values()}
    if len(expected) != 1 or set(read) != set(range(*expected)):
        raise DataRefused(
            f"parts {sorted(read)} of {sorted(expected)} of the groups found, expected all of one; {again}"
        )
    pieces = [read[part][0] for part in sorted(read)]
    some = [piece for piece in pieces if len(piece)]  # an empty one has trained no generators to name
    if not some:
        raise DataRefused(f"all {len(pieces)} parts of the groups are empty, expected a request in one; {again}")
    if len(kinds := {piece.helpers for piece in some}) != 1:
        raise DataRefused(f"parts with helpers of {len(kinds)} kinds found; {again}")
    return Groups(
        np.concatenate([piece.request_R for piece in some]),
        np.concatenate([piece.lists_RGL for piece in some]),
        np.concatenate([piece.rewards_RG for piece in some]),
        np.concatenate([piece.head_rewards_RHG for piece in some]),
        some[0].helpers,
    )
