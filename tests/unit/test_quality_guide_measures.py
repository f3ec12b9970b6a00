"""A guide's opinion of lists against the truth: the figures of planted errors, and the lists that they are asked of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.ablations.arms import Signal
from benchmarks.ablations.signals import PlantedReward, Truth
from benchmarks.quality.guide_measures import KINDS, LISTS, judged, measures
from benchmarks.quality.problem import VALIDATION
from benchmarks.quality.settings import QUICK
from benchmarks.quality.simulated import Simulated, prepare
from goalrank.encoders import ModelSizes
from goalrank.policies import Proposal, propose_lists
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH

torch.set_num_threads(1)

SHAPE_RG = (400, 12)


@pytest.fixture(scope="module")
def true_rg() -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 0.5, SHAPE_RG)


def heads_of(guess_rg: np.ndarray, errors_hrg: np.ndarray) -> np.ndarray:
    return (guess_rg + errors_hrg).transpose(1, 0, 2).astype(np.float32)


def test_what_a_request_has_in_common_is_bias_and_no_error_of_gaps(true_rg: np.ndarray) -> None:
    shift_r1 = np.random.default_rng(1).normal(0.3, 1.0, (SHAPE_RG[0], 1))
    found = measures(heads_of(true_rg + shift_r1, np.zeros((3, 1, 1))), true_rg)
    assert found["bias"] == pytest.approx(shift_r1.mean(), abs=1e-4)
    assert found["gap_error"] == pytest.approx(0.0, abs=1e-5) and found["rank_correlation"] == pytest.approx(1.0)
    assert found["spread"] == pytest.approx(np.sqrt(true_rg.var(axis=1).mean()))


def test_heads_that_err_apart_know_their_noise_and_heads_that_err_alike_do_not(true_rg: np.ndarray) -> None:
    """Of three heads that err independently the mean errs by a head's noise over sqrt(3)."""
    random = np.random.default_rng(2)
    apart = measures(heads_of(true_rg, random.normal(0, 0.3, (3, *SHAPE_RG))), true_rg)
    assert apart["error_over_noise"] == pytest.approx(3**-0.5, rel=0.05)
    shared_rg = random.normal(0, 0.3, SHAPE_RG)
    own_hrg = random.normal(0, 0.1, (3, *SHAPE_RG))
    alike = measures(heads_of(true_rg + shared_rg, own_hrg), true_rg)
    assert alike["error_over_noise"] == pytest.approx((0.3**2 + 0.1**2 / 3) ** 0.5 / 0.1, rel=0.05)
    guess_rg = heads_of(true_rg + shared_rg, own_hrg).mean(axis=1)
    expected = np.mean([stats.spearmanr(*pair).statistic for pair in zip(guess_rg, true_rg, strict=True)])
    assert alike["rank_correlation"] == pytest.approx(expected)


def test_without_heads_or_differences_there_is_no_figure(true_rg: np.ndarray) -> None:
    found = measures(np.ones((SHAPE_RG[0], 1, SHAPE_RG[1]), dtype=np.float32), true_rg)
    assert found["rank_correlation"] is None and found["error_over_noise"] is None and found["noise"] == 0.0


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    scale = replace(QUICK, train_requests=60, simulated_requests=40,
                    world=(("users", 40), ("items", 70), ("requests_per_day", 60)))  # fmt: skip
    folder = tmp_path_factory.mktemp("data")
    scratch: Path = tmp_path_factory.mktemp("scratch")
    prepare(folder, scale, scratch)
    return Simulated(folder)


def test_the_truth_as_a_guide_errs_nowhere(problem: Simulated) -> None:
    """The truth reached another way (by the requests' candidates) agrees on every kind of lists."""
    blank = RewardModel(ModelSizes.from_preset(QUICK.preset)).eval()
    truth = PlantedReward(Truth(problem, VALIDATION), Signal(), blank).eval()
    found = judged(problem, truth, requests=30)
    assert list(found) == list(KINDS) and all(len(policies) == LISTS for policies in KINDS.values())
    for of_kind in found.values():
        assert of_kind["gap_error"] == pytest.approx(0.0, abs=1e-5)
        assert of_kind["rank_correlation"] == pytest.approx(1.0)
        assert of_kind["bias"] == pytest.approx(0.0, abs=1e-5)
    assert found["shown, perturbed"]["spread"] < found["random"]["spread"]  # near lists differ little


def test_lists_are_of_what_the_retriever_believes_in_or_of_the_reverse(problem: Simulated) -> None:
    batch = problem.data.batch(problem.rows[VALIDATION])
    proposal = Proposal(batch, torch.full((len(batch), LIST_LENGTH), -1), LIST_LENGTH)
    believed = {}
    for name in ("retriever, sampled", "random", "retriever reversed"):
        lists_BGL = propose_lists(proposal, list(KINDS[name]), torch.Generator().manual_seed(0))
        assert len({tuple(row) for row in lists_BGL[0].tolist()}) == LISTS  # each drawn anew
        believed[name] = float(batch.score_BN[:, None].expand(-1, LISTS, -1).gather(2, lists_BGL).mean())
    assert believed["retriever, sampled"] > believed["random"] + 0.5 > believed["retriever reversed"] + 1.0


def test_as_many_requests_as_there_are_will_do(problem: Simulated) -> None:
    guide = RewardModel(ModelSizes.from_preset(QUICK.preset)).eval()
    few = len(problem.rows[VALIDATION])
    assert judged(problem, guide, few) == judged(problem, guide, 10 * few)
