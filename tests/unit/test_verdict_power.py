"""The power benchmark's own arithmetic, and a few of its replays: the claims themselves take it an hour."""

import json

import numpy as np
import pytest

from benchmarks import report
from benchmarks import verdict_power as power


def test_a_truly_equal_challenger_is_equal_in_the_pool():
    real = power.pool()
    assert real.columns["challenger"].mean() == pytest.approx(0, abs=1e-9)
    assert real.counts_C.sum() == len(real.columns["champion"])
    assert len(real.counts_C) == pytest.approx(power.NIGHT_USERS, rel=0.05)


def test_a_replayed_night_holds_whole_users():
    real = power.pool()
    rows_R, user_R = real.draw(np.random.default_rng(0), 50)
    for user in range(50):
        rows = rows_R[user_R == user]
        owner = np.searchsorted(real.starts_C, rows[0], side="right") - 1
        assert rows.tolist() == list(range(rows[0], rows[0] + real.counts_C[owner]))


def test_a_better_challenger_is_promoted_and_a_worse_one_is_not():
    verdicts = {
        gain: [power.replay(np.random.default_rng(number), 800, gain=gain) for number in range(5)]
        for gain in (0.02, -0.02)
    }
    assert sum(verdict.decision == "promote" for verdict in verdicts[0.02]) >= 4
    assert not any(verdict.decision == "promote" for verdict in verdicts[-0.02])
    difference = np.mean([verdict.difference.mean for verdict in verdicts[0.02]])
    assert difference == pytest.approx(0.02 * power.pool().columns["champion"].mean(), rel=0.2)


def test_a_slice_made_to_lose_stops_a_better_mean():
    verdict = power.replay(np.random.default_rng(0), 800, gain=0.02, lost=("new_users", -0.08))
    check = next(check for check in verdict.checks if check.name == "slices")
    assert (verdict.decision, check.status) == ("keep", "failed")


def test_few_of_thirty_equal_challengers_are_promoted():
    _, promotions = power.live(power.CHAINS["equal"], 0, 60)
    assert promotions <= 3


def test_a_judge_that_errs_promotes_what_is_equal():
    """What the bootstrap cannot know: that many users agree with a judge who is wrong about all of them."""
    error = {"judge_error": 5 * power.JUDGE_ERROR}
    drawn = [power.replay(np.random.default_rng(number), 800, gain=0.0, **error) for number in range(12)]
    assert 2 <= sum(verdict.decision == "promote" for verdict in drawn) <= 10


def test_a_log_that_explored_too_little_promotes_nobody():
    verdict = power.replay(np.random.default_rng(0), 800, gain=0.05, off_policy_concludes=False)
    assert verdict.decision == "keep"
    assert [check.name for check in verdict.checks if not check.passed] == ["off_policy"]


def test_every_arm_and_chain_has_its_place_in_the_claims():
    """Rows as the full run has them, all wrong: each claim finds its own rows, and none of them holds."""
    rows = [
        {"arm": arm, "users": users, "requests": 2 * users, "high": 1.0, "promoted": 0.5}
        for arm in power.ARMS
        for users in (power.USERS if arm in power.CURVES else (power.NIGHT_USERS,))
    ]
    rows += [
        {"arm": f"{power.NIGHTS} nights, {name}", "users": 200, "worse than start by margin": 0.5, "mean end": 0.0}
        for name in power.CHAINS
    ]
    made = power.claims(rows)
    assert not any(each["holds"] for each in made), [each["name"] for each in made if each["holds"]]
    names = " ".join(each["name"] for each in made)
    assert "careless" not in names and "nights, equal" not in names


def test_the_careless_rule_walks_downhill():
    assert power.live(power.CHAINS["careless: 0.5% worse each night"], 0, 60)[0] < -0.02


def test_the_last_line_is_the_result(capsys, tmp_path):
    rows = [{"arm": "equal", "promoted": 0.01}, {"arm": "+1%", "requests": 3000}]
    claims = [report.claim("few", 0.01, "at most", 0.025), report.claim("many", float("nan"), "at least", 0.8)]
    report.run("demo", lambda quick: (rows, claims), argv=["--quick", "--json", str(tmp_path / "r" / "demo.json")])
    out = capsys.readouterr().out.splitlines()
    last = json.loads(out[-1])
    assert (last["benchmark"], last["complete"], last["quick"]) == ("demo", True, True)
    assert [made["holds"] for made in last["claims"]] == [True, False]
    assert last["claims"][1]["value"] is None and "NaN" not in out[-1], "JSON knows no NaN"
    assert json.loads((tmp_path / "r" / "demo.json").read_text())["rows"] == rows
    assert out[0].split() == ["arm", "promoted", "requests"]
