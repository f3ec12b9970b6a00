"""The policies an experiment may name, and how each answers a batch of requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components import registry
from components.serve_model.champion import Champion, load_champion, load_version
from goalrank.ab_simulation import Rank
from goalrank.errors import UsageError
from goalrank.policies import top_lists

if TYPE_CHECKING:
    import torch

    from goalrank.dataset import RequestBatch

ALIASES = (registry.CHAMPION, registry.CHALLENGER, registry.PREVIOUS)
RETRIEVER, RANDOM = "retriever", "random"
_VERSION = re.compile(r"version:([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Policy:
    """Who takes part."""

    name: str
    rank: Rank
    about: dict[str, str] = field(default_factory=dict)  # what it is: version, digest


def parse(text: str, more: Sequence[str] = ()) -> list[str]:
    """The names in `champion,challenger,...`, in lower case however they are typed (PIER, MG-E-100).

    Args:
        more: names that the caller knows how to load.

    Raises:
        UsageError: fewer than two, one twice, or an unknown one.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    fixed = [*ALIASES, RETRIEVER, RANDOM, *more]
    unknown = [name for name in names if name not in fixed and not _VERSION.fullmatch(name)]
    if unknown:
        raise UsageError(f"policy {unknown[0]!r} found, expected one of {', '.join(fixed)}, or version:3 and its like")
    if len(names) < 2 or len(set(names)) != len(names):
        raise UsageError(
            f"policies {', '.join(names) or 'none'} found, expected two or more, each named once, "
            "such as --policies champion,retriever"
        )
    return names


def load(name: str, tracking_uri: str, seed: int) -> Policy:
    """The policy of that name, one of our own.

    Args:
        tracking_uri: MLflow, for registered versions.
        seed: of random lists.

    Raises:
        ModelRefused, CheckpointDamaged: the version is not there or may not be used.
        TryAgain: MLflow is away.
    """
    if name == RETRIEVER:
        return Policy(name, _retriever)
    if name == RANDOM:
        return Policy(name, _random(seed))
    if name in ALIASES:
        return _of_ranker(name, load_champion(tracking_uri, name))
    number = _VERSION.fullmatch(name)
    assert number is not None  # parse let it through
    return _of_ranker(name, _registered(tracking_uri, number.group(1)))


def _registered(tracking_uri: str, number: str) -> Champion:
    from goalrank.errors import ModelRefused

    client = registry.connect(tracking_uri)
    with registry.reaching(tracking_uri):
        found = registry.registered(client, registry.RANKER, number)
        if found is None:
            raise ModelRefused(f"{registry.RANKER} has no version {number}; `goalrank history` lists those it has")
        return load_version(client, registry.identity(found))


def _of_ranker(name: str, loaded: Champion) -> Policy:
    def rank(batch: RequestBatch, length: int) -> torch.Tensor:
        return loaded.model.greedy(loaded.model.encode(batch), length)

    version = loaded.version
    return Policy(name, rank, {"version": version.version, "weights_sha256": version.weights_sha256})


def _retriever(batch: RequestBatch, length: int) -> torch.Tensor:
    return top_lists(batch.score_BN, batch.mask_BN, length)


def _random(seed: int) -> Rank:
    import torch

    chance = torch.Generator().manual_seed(seed)

    def rank(batch: RequestBatch, length: int) -> torch.Tensor:
        return top_lists(torch.rand(batch.mask_BN.shape, generator=chance), batch.mask_BN, length)

    return rank
