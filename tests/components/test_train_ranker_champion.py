"""train_ranker asked to begin with the champion: there is none yet, there is one, there is one of other features."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components import registry
from components.register_model.main import run as register
from components.train_ranker.main import run
from goalrank.checkpoint import read_model_card
from goalrank.errors import ModelRefused
from tests.components.test_train_ranker import arguments, inputs, undisturbed
from tests.components.untrained_models import NightInputs

__all__ = ["inputs", "undisturbed"]  # fixtures


def test_training_begins_with_the_champion(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    night, tracking_uri = NightInputs(tmp_path / "night", requests=120), f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copytree(undisturbed / "ranker", tmp_path / "night/ranker")
    register(**night.registration_arguments("ranker", tracking_uri))
    asked = {"warm_start": "champion", "tracking_uri": tracking_uri}

    run(**arguments(inputs, tmp_path / "without"), **asked)  # registered, not promoted
    cold, champion = (read_model_card(folder / "ranker") for folder in (tmp_path / "without", undisturbed))
    assert cold["weights_sha256"] == champion["weights_sha256"]
    assert "warm_start_sha256" not in cold["created_by"]

    client = registry.connect(tracking_uri)
    registry.point(client, registry.RANKER, registry.CHAMPION, "1")
    run(**arguments(inputs, tmp_path / "with"), **asked)
    warm = read_model_card(tmp_path / "with/ranker")
    assert warm["created_by"]["warm_start_sha256"] == champion["weights_sha256"] != warm["weights_sha256"]

    client.set_model_version_tag(registry.RANKER, "1", registry.FEATURE_SET, "0123456789abcdef")
    with pytest.raises(ModelRefused, match="was trained on feature set 0123456789abcdef, but this release reads"):
        run(**arguments(inputs, tmp_path / "other"), **asked)
