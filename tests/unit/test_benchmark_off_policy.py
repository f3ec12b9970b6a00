"""benchmarks/off_policy.py in small: every part runs, and its truth is the simulator's."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import off_policy
from benchmarks.off_policy_world import TARGETS, KnownWorld
from goalrank.simulator.feedback import expected_reward


def test_the_simulated_part_tallies_every_estimator():
    tallies = off_policy.simulate((150,), replicates=3, pool=300, resamples=20)
    targets = {target for _, target, _ in tallies}
    assert targets == {ours if other is None else f"{ours} - {other}" for ours, other in off_policy.PAIRS}
    assert {name for _, _, name in tallies} >= {
        off_policy.DECIDING,
        "list_ips",
        "rips",
        "cascade_dr",
        "snips, first item",
    }
    row = tallies[150, "retriever", off_policy.DECIDING].row()
    assert row["replicates"] == 3
    assert all(np.isfinite(value) for value in row.values())
    bins = off_policy.coverage_by_sample_size(tallies)
    assert sum(row["replicates"] for row in bins) == 3 * len(off_policy.PAIRS)


def test_the_known_world_knows_the_truth():
    world = KnownWorld(300)
    assert set(world.lists) == set(TARGETS)
    for name, lists_RL in world.lists.items():
        assert all(len(set(row)) == len(row) for row in lists_RL.tolist())
        expected_R = expected_reward(world.facts, lists_RL[:, None])[:, 0]
        np.testing.assert_allclose(world.truth[name], expected_R)
    assert world.truth["random"].mean() < world.truth["retriever"].mean() < world.truth["ranker"].mean()
    log = world.replicate(200, np.random.default_rng(0))
    assert ((log.propensity_nL > 0) & (log.propensity_nL <= 1)).all()
    np.testing.assert_array_equal(np.unique(log.users_n), np.arange(log.users_n.max() + 1))


@pytest.mark.parametrize("model", ["lists", "items"])
def test_the_control_variates_do_not_look_below(model):
    world, rows_n = KnownWorld(300), np.arange(20)
    lists_nL = world.lists["ranker"][rows_n]
    other_nL = lists_nL.copy()
    other_nL[:, 4:] = world.lists["random"][rows_n, 4:]
    np.testing.assert_allclose(
        world.predict(model, rows_n, lists_nL)[:, :4], world.predict(model, rows_n, other_nL)[:, :4]
    )


def test_without_the_open_bandit_files_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(off_policy, "OPEN_BANDIT", tmp_path / "nowhere")
    monkeypatch.setattr(off_policy, "simulate", lambda *_: {(1, "retriever", off_policy.DECIDING): a_tally()})
    rows, claims = off_policy.rows_of(quick=True)
    assert {row["part"] for row in rows} == {"simulator", "ESS"}
    assert not any("Open Bandit" in made["name"] for made in claims)
    assert "Open Bandit left out" in capsys.readouterr().err


def a_tally() -> off_policy.Tally:
    world = KnownWorld(300)
    log = world.replicate(100, np.random.default_rng(0))
    truth, found = off_policy.estimations(world, log, "retriever")[off_policy.DECIDING]
    tally = off_policy.Tally(truth)
    for _ in range(2):
        tally.add(found, [(1.0, 3.0)] * 3)
    return tally
