"""14. NaN or infinite loss, metric or weight on either side -> refused, by registration and by evaluation."""

import json
import math
import shutil

import pytest

from components import registry
from components.register_model.main import run as register
from goalrank.checkpoint import save_model
from goalrank.errors import EXIT_MODEL_REFUSED, ModelRefused
from goalrank.verdict import load_verdict
from tests.components.graded_night import shared_night, spoil
from tests.components.untrained_models import SIZES, random_ranker

BAD = (math.nan, math.inf)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("what", ["weight", "loss"])
def test_registration_refuses_the_challenger(tmp_path, seen, what, value):
    night = shared_night()
    champion = night.crown("good")
    shutil.copytree(night.inputs.folder / "better", tmp_path / "better")
    spoil(tmp_path / "better", **{what: value})
    arguments = night.inputs.registration_arguments("better", night.tracking_uri)
    arguments |= {"ranker": str(tmp_path / "better"), "run_uri": str(tmp_path / "run")}
    arguments |= {"registration": str(tmp_path / "registration")}
    before = len(night.client.search_model_versions(f"name = '{registry.RANKER}'"))
    with pytest.raises(ModelRefused, match="not finite") as refusal:
        register(**arguments)
    outcome = json.loads((tmp_path / "run/outcomes/register_model.json").read_text())
    assert outcome["exit_code"] == EXIT_MODEL_REFUSED
    assert not (tmp_path / "registration").exists()
    assert len(night.client.search_model_versions(f"name = '{registry.RANKER}'")) == before
    assert registry.champion(night.client).version == champion
    seen(f"registered a ranker with a {what} of {value}", f"exit {EXIT_MODEL_REFUSED}, {str(refusal.value)[:60]}...")


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("spoilt", ["weight", "loss"])
@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_evaluation_refuses_either_side(tmp_path, seen, side, spoilt, value):
    night = shared_night()
    champion = night.crown("good")
    name = {"challenger": "better", "champion": "good"}[side]
    with night.spoiled(name, **{spoilt: value}):
        document = json.loads((night.inputs.folder / "registration-better").read_text())
        version = night.client.get_model_version(registry.RANKER, night.version("better"))
        document["ranker"] = registry.identity(version).model_dump()
        (tmp_path / "registration").write_text(json.dumps(document))
        with pytest.raises(ModelRefused, match=f"not finite: {side}"):
            night.evaluate(tmp_path, "better", registration=str(tmp_path / "registration"))
    verdict = load_verdict(tmp_path / "verdict", "evaluation")
    outcome = json.loads((tmp_path / "run/outcomes/evaluate_ranker.json").read_text())
    assert (verdict.decision, outcome["exit_code"]) == ("refuse", EXIT_MODEL_REFUSED)
    assert registry.champion(night.client).version == champion
    seen(f"evaluated with the {side}'s {spoilt} {value}", f"verdict refuse, exit {EXIT_MODEL_REFUSED}")


@pytest.mark.parametrize("value", BAD)
def test_training_cannot_even_save_such_a_model(tmp_path, value):
    ranker = random_ranker(0)
    with pytest.raises(ModelRefused, match="NaN or infinit"):
        save_model(tmp_path, ranker, "ranker", SIZES.to_dict(), {}, {"loss": value})
    next(ranker.parameters()).data.view(-1)[0] = value
    with pytest.raises(ModelRefused, match="NaN or infinity"):
        save_model(tmp_path, ranker, "ranker", SIZES.to_dict(), {}, {})
    assert not list(tmp_path.iterdir())
