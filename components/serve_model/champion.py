"""Finding the model to serve: the version an alias names in MLflow, its files downloaded and verified."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components import registry
from goalrank.errors import ModelRefused
from goalrank.verdict import ModelVersion

if TYPE_CHECKING:
    from goalrank.ranker import Ranker


@dataclass(frozen=True)
class Champion:
    """A loaded ranker and which version it is; replaced as a whole, so that an answer never mixes two."""

    model: Ranker
    version: ModelVersion


def champion_model(
    tracking_uri: str, into: str | Path, name: str = registry.RANKER, alias: str = registry.CHAMPION
) -> tuple[ModelVersion, Path]:
    """The version `alias` points to and its model directory, the weights checked against the registry's SHA-256.

    Args:
        tracking_uri: MLflow.
        into: an existing folder to download into.
        name: registered model.
        alias: champion, challenger or previous.

    Raises:
        ModelRefused: no version has this alias, or it has no model directory.
        CheckpointDamaged: the weights are not those registered.
        TryAgain: MLflow is away.
    """
    client = registry.connect(tracking_uri)
    with registry.reaching(tracking_uri):
        found = registry.by_alias(client, name, alias)
        if found is None:
            raise ModelRefused(
                f"no version of {name} has the alias {alias} in {registry.without_password(tracking_uri)}; "
                "run `goalrank nightly` until one is promoted"
            )
        version = registry.identity(found)
        return version, registry.fetch_model(client, version, into)


def load_champion(tracking_uri: str, alias: str = registry.CHAMPION) -> Champion:
    """Download, verify and load the ranker an alias names. Nothing in its files is executed.

    Raises:
        ModelRefused, CheckpointDamaged, TryAgain: as :func:`champion_model`; or the model is no ranker.
    """
    from goalrank.checkpoint import load_model
    from goalrank.ranker import Ranker

    with tempfile.TemporaryDirectory() as aside:
        version, directory = champion_model(tracking_uri, aside, alias=alias)
        model = load_model(directory)
    if not isinstance(model, Ranker):
        raise ModelRefused(f"{version.name} version {version.version} is a {type(model).__name__}, expected a Ranker")
    return Champion(model, version)
