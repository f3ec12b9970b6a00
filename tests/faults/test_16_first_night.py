"""16. First night, no champion -> the absolute floor, and refused unless the settings allow the bootstrap."""

import json

import pytest

from components import registry
from goalrank.errors import EXIT_MODEL_REFUSED, ModelRefused
from goalrank.verdict import FLOOR, load_verdict
from tests.components.graded_night import shared_night


def refused(night, tmp_path, name, **changes):
    """The verdict and the step's exit code of an evaluation that refuses."""
    with pytest.raises(ModelRefused):
        night.evaluate(tmp_path, name, **changes)
    outcome = json.loads((tmp_path / "run/outcomes/evaluate_ranker.json").read_text())
    assert registry.champion(night.client) is None
    return load_verdict(tmp_path / "verdict", "evaluation"), outcome["exit_code"]


def test_a_good_first_model_needs_leave(tmp_path, seen):
    night = shared_night()
    verdict, code = refused(night, tmp_path, "good", allow_bootstrap=False)
    assert (verdict.decision, code) == ("refuse", EXIT_MODEL_REFUSED)
    assert "GOALRANK_ALLOW_BOOTSTRAP" in verdict.reason
    seen("a good first model without leave to bootstrap", f"exit {code}: {verdict.reason[:70]}...")


def test_leave_alone_does_not_lift_a_model_above_the_floor(tmp_path, seen):
    night = shared_night()
    verdict, code = refused(night, tmp_path, "below_floor", allow_bootstrap=True)
    assert (verdict.decision, code) == ("refuse", EXIT_MODEL_REFUSED)
    floor = next(check for check in verdict.checks if check.name == "floor")
    assert floor.status == "failed"
    assert floor.value <= FLOOR
    seen("a first model below the floor, with leave", f"exit {code}, floor {floor.value:+.4f}")


def test_with_leave_and_above_the_floor_it_becomes_the_first_champion(tmp_path, seen):
    night = shared_night()
    verdict = night.evaluate(tmp_path, "good", allow_bootstrap=True).verdict
    assert (verdict.decision, verdict.champion) == ("promote", None)
    assert verdict.difference.low > FLOOR
    seen("the good one with leave", f"promote, {verdict.difference.low:+.4f} above the floor")
