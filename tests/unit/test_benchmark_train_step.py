"""The slower ways give our log-probabilities, losses and gradients; the table and claims have their form on a run of
seconds."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import report, train_step
from benchmarks.peak_memory import peak_megabytes
from benchmarks.random_requests import random_lists
from benchmarks.ranker_steps import ONE_GRAPH, OURS, REENCODING, STEPWISE, Work, backward, fresh, log_prob, step
from goalrank.ranker import Ranker
from goalrank.schema import LIST_LENGTH

SLOWER = (STEPWISE, REENCODING, ONE_GRAPH)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    model, _ = fresh("tiny")
    with torch.no_grad():  # sharper than at its start, so that a wrong prefix or mask shows
        for weight in model.decoder.parameters():
            weight.mul_(1.5)
    return model


@pytest.fixture(scope="module")
def work() -> Work:
    drawn = Work.drawn(requests=5, group=4)
    drawn.batch.mask_BN[2, 30:] = False  # padding, which no list of that request names
    drawn.lists_BGL[2] = random_lists(1, 4, 30, LIST_LENGTH, torch.Generator().manual_seed(1))[0]
    return drawn


@pytest.mark.parametrize("way", SLOWER)
def test_same_log_probabilities_loss_and_gradients(way: str, ranker: Ranker, work: Work) -> None:
    with torch.no_grad():
        torch.testing.assert_close(log_prob(way, ranker, work), log_prob(OURS, ranker, work), atol=1e-4, rtol=1e-5)
    assert log_prob(OURS, ranker, work).std() > 0.5
    loss, slope = backward(OURS, ranker, work), train_step.gradient(ranker)
    assert backward(way, ranker, work) == pytest.approx(loss, rel=train_step.LOSS_ROUNDING)
    off = (train_step.gradient(ranker) - slope).norm() / slope.norm()
    assert 0 < off < train_step.GRADIENT_ROUNDING


def test_a_step_of_each_way_leads_to_the_same_weights(work: Work) -> None:
    ends = []
    for way in (OURS, *SLOWER):
        ranker, optimizer = fresh("tiny")
        before = ranker.decoder.key.weight.detach().clone()
        step(way, ranker, optimizer, work)
        ends.append(ranker.decoder.key.weight.detach() - before)
    for end in ends[1:]:  # Adam divides by the gradient's own size: where that is mere rounding, so is the step
        assert torch.nn.functional.cosine_similarity(end.flatten(), ends[0].flatten(), dim=0) > 0.999


def allocate(megabytes: int):
    return lambda: torch.ones(megabytes * 250_000).sum()


def test_peak_memory_is_that_of_the_call() -> None:
    found = peak_megabytes(allocate, 200)
    if found is None:
        pytest.skip("this kernel does not tell")
    assert 195 < found < 230


def test_train_step_speaks_as_every_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = train_step.Case("tiny", 4, 1, group=2, memory=False, night_steps=3)
    monkeypatch.setattr(train_step, "QUICK", [case])
    report.run("train_step", train_step.rows_of, argv=["--quick"])
    document = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    rows = {row["way"]: row for row in document["rows"]}
    assert document["complete"] is True and set(rows) == {OURS, STEPWISE, REENCODING, "night's step"}
    assert rows[REENCODING]["encodings"] == 2 * LIST_LENGTH and rows[REENCODING]["step_ratio"] > 1
    assert rows[OURS]["lists_s"] == pytest.approx(8e3 / rows[OURS]["step_ms"])
    claims = {made["name"]: made for made in document["claims"]}
    assert len(claims) == 6
    for way, target in train_step.TARGETS.items():
        made = claims[f"tiny: lists per second over {way}"]
        assert made["target"] == f"at least {target:g}" and made["value"] == rows[way]["step_ratio"]
        assert claims[f"tiny: loss beside {way}"]["holds"] and claims[f"tiny: gradient beside {way}"]["holds"]
