"""The judge's error, read from the verdicts of a workspace."""

import json

import pytest

from benchmarks import judge_error


def night(folder, date, judged, true, decision="keep", off_policy="passed"):
    file = folder / f"nights/{date}/1/artifacts/goalrank-nightly-1/evaluate-ranker/verdict"
    file.parent.mkdir(parents=True)
    metrics = {
        "challenger": {"judged_reward": 2.0 * (1 + judged), "true_reward": 3.0 * (1 + true)},
        "champion": {"judged_reward": 2.0, "true_reward": 3.0},
    }
    checks = [
        {"name": "superiority", "status": "passed" if judged > 0 else "failed"},
        {"name": "off_policy", "status": off_policy},
    ]
    file.write_text(json.dumps({"date": date, "decision": decision, "metrics": metrics, "checks": checks}))


def test_errors_are_shares_of_the_champions_reward_and_outliers_are_told_apart(tmp_path):
    night(tmp_path, "2026-01-02", 0.01, 0.005, "promote")
    night(tmp_path, "2026-01-03", 0.01, -0.02, "promote")
    night(tmp_path, "2026-01-04", -0.01, 0.0)
    night(tmp_path, "2026-01-05", 0.1, -0.1, off_policy="failed")
    rows, claims = judge_error.measure(tmp_path)
    assert [row["error"] for row in rows[:-1]] == pytest.approx([0.005, 0.03, -0.01, 0.2])
    assert rows[-1]["error"] == pytest.approx(0.025 / 3)
    better, gain, loss, stopped = claims
    assert better["value"] == 0.5
    assert gain["value"] == pytest.approx(-0.0075)
    assert loss["value"] == pytest.approx(0.02)
    assert (stopped["value"], stopped["holds"]) == (1.0, True)


def test_a_workspace_without_such_nights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no night of a simulated world with a champion"):
        judge_error.measure(tmp_path)
