"""17. The champion is always re-scored on tonight's data; a snapshot mismatch is an error."""

import json

import numpy as np
import pytest
import torch

from components import registry
from goalrank.errors import EXIT_MODEL_REFUSED, ModelRefused
from goalrank.schema import LIST_LENGTH
from tests.components.graded_night import shared_night


def test_the_champion_s_rewards_are_tonight_s_not_remembered(tmp_path, seen):
    night = shared_night()
    version = night.crown("good")
    # Whatever an earlier night wrote about the champion must not be what it is judged by tonight.
    run = night.client.get_model_version(registry.RANKER, version).tags["run"]
    night.client.log_metric(run, "evaluation.challenger.judged_reward", 1000.0)
    evaluated = night.evaluate(tmp_path, "better")
    from goalrank.checkpoint import load_model

    data, judge = night.inputs.data, night.inputs.judge
    indices_R = data.evaluation_indices()
    batch = data.batch(indices_R)
    with torch.inference_mode():
        champion = load_model(night.inputs.folder / "good")
        lists_RL = champion.greedy(champion.encode(batch), LIST_LENGTH)
        expected_R = judge.reward(judge.encode(batch), lists_RL[:, None])[:, 0].numpy()
    found_R = np.array([row["champion_reward"] for row in evaluated.lists])
    np.testing.assert_allclose(found_R, expected_R, rtol=1e-4)
    found = evaluated.verdict.metrics["champion"]["judged_reward"]
    assert found == pytest.approx(expected_R.mean(), rel=1e-4)
    assert len(found_R) == evaluated.verdict.requests == len(indices_R)
    seen(
        "told the registry that the champion earns 1000",
        f"it was scored on tonight's {len(indices_R)} requests: {found:.3f}",
    )


@pytest.mark.parametrize("field", ["snapshot_id", "date"])
def test_artifacts_of_two_nights_are_refused(tmp_path, seen, field):
    night = shared_night()
    champion = night.crown("good")
    document = json.loads((night.inputs.folder / "registration-better").read_text())
    (tmp_path / "registration").write_text(json.dumps(document | {field: "2026-02-02"}))
    with pytest.raises(ModelRefused, match="pass the artifacts of one night"):
        night.evaluate(tmp_path, "better", registration=str(tmp_path / "registration"))
    outcome = json.loads((tmp_path / "run/outcomes/evaluate_ranker.json").read_text())
    assert outcome["exit_code"] == EXIT_MODEL_REFUSED
    assert not (tmp_path / "verdict").exists()
    assert registry.champion(night.client).version == champion
    seen(f"a registration of another {field}", f"exit {EXIT_MODEL_REFUSED}, no verdict written")
