"""Finding the models to serve: the versions that aliases name in MLflow, their files downloaded and verified.

The champion answers. A share of users, the holdback, goes on being answered by the version before it, so that live
feedback of the two can be compared; who is held back follows from the user's id and the two versions alone.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components import registry
from components.serve_model.holdback import held_back
from goalrank import naming
from goalrank.errors import CheckpointDamaged, ModelRefused
from goalrank.verdict import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from goalrank.ranker import Ranker

_log = logging.getLogger("goalrank.serve")

HOLDBACK = 0.05
"""Default share of users answered by the version before the champion."""


@dataclass(frozen=True)
class Champion:
    """A loaded ranker and which version it is; replaced as a whole, so that an answer never mixes two."""

    model: Ranker
    version: ModelVersion


@dataclass(frozen=True)
class Models:
    """Who answers: replaced as a whole."""

    champion: Champion
    previous: Champion | None = None
    holdback: float = 0.0
    """Share of users answered by `previous`, 0..1."""
    withdrawn: bool = False
    """The registry names no champion any more: nobody's model may answer."""

    def for_user(self, user_id: int) -> Champion:
        """The model that answers this user, always the same one until a version changes."""
        if self.previous is not None:
            champion, previous = self.champion.version.version, self.previous.version.version
            if held_back(user_id, champion, previous, self.holdback):
                return self.previous
        return self.champion

    def by_version(self, version: str) -> Champion | None:
        """The model of that version number, if it is one of the two."""
        for one in (self.champion, self.previous):
            if one is not None and one.version.version == version:
                return one
        return None


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
                f"no version of {name} has the alias {alias} in {naming.without_password(tracking_uri)}; "
                "run `goalrank nightly` until one is promoted"
            )
        version = registry.identity(found)
        return version, registry.fetch_model(client, version, into)


def load_champion(tracking_uri: str, alias: str = registry.CHAMPION) -> Champion:
    """Download, verify and load the ranker an alias names. Nothing in its files is executed.

    Raises:
        ModelRefused, CheckpointDamaged, TryAgain: as :func:`champion_model`; or the model is no ranker.
    """
    with tempfile.TemporaryDirectory() as aside:
        return loaded(*champion_model(tracking_uri, aside, alias=alias))


def load_version(client: MlflowClient, version: ModelVersion) -> Champion:
    """Download, verify and load one version. Nothing in its files is executed.

    Raises:
        ModelRefused, CheckpointDamaged: it cannot be served.
    """
    with tempfile.TemporaryDirectory() as aside:
        return loaded(version, registry.fetch_model(client, version, aside))


def load_number(tracking_uri: str, number: str) -> Champion:
    """Download, verify and load the ranker of that version number, whatever the aliases say.

    Raises:
        UsageError: it is no version number.
        ModelRefused, CheckpointDamaged: there is none, or it cannot be served.
        TryAgain: MLflow is away.
    """
    naming.require_version("GOALRANK_SERVE_VERSION", number)
    client = registry.connect(tracking_uri)
    with registry.reaching(tracking_uri):
        found = registry.registered(client, registry.RANKER, number)
        if found is None:
            raise ModelRefused(f"no version {number} of {registry.RANKER} in the registry; serve another")
        return load_version(client, registry.identity(found))


def on_trial(tracking_uri: str, number: str, holdback: float) -> Models:
    """That version for everybody but the holdback, who are answered by the version it would follow, by the very draw
    that decides once it is champion: whoever counts who was answered by whom then finds one split, not two.

    Args:
        holdback: share of users held back, 0..1.

    Raises:
        UsageError, ModelRefused, CheckpointDamaged, TryAgain: as :func:`load_number`, about the trial. A predecessor
            that cannot be served holds nobody back, as where the registry is followed.
    """
    trial = load_number(tracking_uri, number)
    if holdback <= 0.0:
        return Models(trial)
    client = registry.connect(tracking_uri)
    with registry.reaching(tracking_uri):
        found = registry.by_alias(client, registry.RANKER, registry.CHAMPION)
        if found is not None and str(found.version) == number:  # started again after the aliases have moved
            found = registry.by_alias(client, registry.RANKER, registry.PREVIOUS)
        if found is None or str(found.version) == number:
            return Models(trial)
        try:
            return Models(trial, load_version(client, registry.identity(found)), holdback)
        except (ModelRefused, CheckpointDamaged) as error:
            _log.error("version %s holds nobody back: %s", found.version, error)
            return Models(trial)


def loaded(version: ModelVersion, directory: Path) -> Champion:
    """The ranker in a model directory that has been verified.

    Raises:
        ModelRefused: the model is no ranker.
    """
    from goalrank.checkpoint import load_model
    from goalrank.ranker import Ranker

    model = load_model(directory)
    if not isinstance(model, Ranker):
        raise ModelRefused(f"{version.name} version {version.version} is a {type(model).__name__}, expected a Ranker")
    return Champion(model, version)
