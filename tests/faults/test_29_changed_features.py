"""Point 29: a version trained on other features than this release reads neither serves nor is judged or returned to."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from components.evaluate_ranker.main import run as evaluate
from components.promote_model.main import run as promote
from components.serve_model.champion import load_champion
from goalrank import features, schema
from goalrank.errors import ModelRefused
from tests.components.promoted_workspace import PromotedWorkspace
from tests.components.untrained_models import NightInputs
from tests.faults.conftest import Seen


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> PromotedWorkspace:
    """Versions 1 and 2, promoted one after the other by this release; version 3 waits."""
    inputs = NightInputs(tmp_path_factory.mktemp("inputs"), requests=120)
    place = PromotedWorkspace(tmp_path_factory.mktemp("place") / "workspace", inputs).promoted(2)
    place.night(3, 2)
    return place


@pytest.fixture(params=["a feature's meaning", "an encoding's scale", "a view's columns"])
def changed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """The next release: what it reads has changed."""
    if request.param == "a feature's meaning":
        monkeypatch.setattr(schema, "FEATURE_MEANING", schema.FEATURE_MEANING + 1)
    elif request.param == "an encoding's scale":
        monkeypatch.setattr(features, "PRIOR_COUNT", features.PRIOR_COUNT + 1)
    else:
        view = schema.ITEM_STATS
        more = schema.FeatureView(view.name, view.entity, (*view.features, pa.field("shares", pa.int64())), True)
        monkeypatch.setitem(schema.FEATURE_VIEWS, view.name, more)
    before = schema.feature_set()
    schema.feature_set.cache_clear()
    assert schema.feature_set() != before
    yield request.param
    monkeypatch.undo()
    schema.feature_set.cache_clear()
    assert schema.feature_set() == before


def test_a_version_of_other_features_is_refused_everywhere(
    place: PromotedWorkspace, changed: str, tmp_path: Path, seen: Seen
) -> None:
    from typer.testing import CliRunner

    from console.main import app

    flags = ["rollback", "--workspace", str(place.folder), "--reason", "worse", "--json"]
    for more in ([], ["--to", "1"], ["--dry-run"]):
        refused = CliRunner().invoke(app, [*flags, *more])
        assert refused.exit_code == 4, refused.output
        assert "was trained on feature set" in json.loads(refused.stdout)["reason"]
    with pytest.raises(ModelRefused, match="feature set"):
        load_champion(place.tracking_uri)
    with pytest.raises(ModelRefused, match="feature set"):
        promote(**place.arguments(place.nights[2]))
    challenger, inputs = place.night(10, 2), place.inputs  # trained by the new release: only the champion is foreign
    with pytest.raises(ModelRefused, match="goalrank-ranker version 2 was trained on feature set"):
        evaluate(
            registration=place.arguments(challenger)["registration"],
            training_set=str(inputs.folder / "training_set"),
            judge_model=str(inputs.folder / "judge_model"),
            tracking_uri=place.tracking_uri,
            verdict=str(tmp_path / "verdict"),
            lists=str(tmp_path / "lists"),
            allow_bootstrap=True,
            world_uri="",
            seed=0,
            run_uri=str(tmp_path / "run"),
            date=inputs.date,
            journal_uri=place.journal_uri,
        )
    assert not (tmp_path / "verdict").exists()
    assert place.aliases() == [("2", "1"), ("2", "1")]
    seen(f"{changed} changed since", "roll-back, server, evaluation and promotion refused")


def test_the_way_on_is_a_champion_of_the_new_features(place: PromotedWorkspace, seen: Seen) -> None:
    """As the refusal says: nobody is champion, the next night has the floor to pass, and then it serves."""
    done = place.goalrank("rollback", "--to", "none", "--reason", "a release with other features", "--json")
    assert done.returncode == 0, done.stderr
    assert place.aliases() == [(None, None), (None, None)]
    first = place.night(4, None)
    place.promote(first)
    assert load_champion(place.tracking_uri).version.version == place.aliases()[0][0]
    seen("rollback --to none, then a first night", "a champion of the new features serves")
