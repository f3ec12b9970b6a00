"""The ranker as a distribution over lists: training and sampling agree, everything sums to one, padding is inert."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from goalrank import decoding
from goalrank.dataset import TrainingSet
from goalrank.decoding import BLOCKED, PACKED, lists_a_row
from goalrank.encoders import Encoded, ModelSizes
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.schema import TOPIC_BUCKETS
from tests.synthetic import make_training_set


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    torch.manual_seed(0)
    model = Ranker(ModelSizes.from_preset(preset("tiny"))).eval()
    with (
        torch.no_grad()
    ):  # sharper than at its start, so that a wrong mask or position shows, yet no list is out of reach
        for weight in model.decoder.parameters():
            weight.mul_(1.3)
    return model


def make_encoded(ranker: Ranker, counts: list[int], candidates: int, seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    width = ranker.sizes.width
    mask_BN = torch.arange(candidates) < torch.tensor(counts).unsqueeze(1)
    candidates_BND = torch.randn(len(counts), candidates, width, generator=generator)
    user_BD = torch.randn(len(counts), width, generator=generator)
    topics_BNT = (torch.rand(len(counts), candidates, TOPIC_BUCKETS, generator=generator) < 0.1).float()
    return Encoded(candidates_BND, user_BD, mask_BN, topics_BNT, torch.zeros(len(counts), candidates))


def random_lists(counts: list[int], group: int, length: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    lists = np.full((len(counts), group, length), -1)
    for b, count in enumerate(counts):
        for g in range(group):
            lists[b, g, : min(count, length)] = rng.permutation(count)[:length]
    return torch.tensor(lists)


def one_step(ranker: Ranker, encoded: Encoded, row: int, prefix: list[int]) -> Tensor:
    """log p(next item | prefix) [N] of one request, by a pass over the prefix alone, masks written out by hand."""
    real = encoded.mask_BN[row].nonzero().flatten()
    lists_1GL = torch.tensor([[[*prefix, int(real[0])]]])
    alone = encoded.rows(torch.tensor([row]))
    everything = replace(alone, mask_BN=torch.ones_like(alone.mask_BN))
    logits_N = ranker.decoder.logits(everything, lists_1GL)[0, 0, len(prefix)].clone()
    for item in range(len(logits_N)):
        if item in prefix or not encoded.mask_BN[row, item]:
            logits_N[item] = -torch.inf
    return logits_N.log_softmax(dim=0)


@torch.no_grad()
def test_teacher_forcing_is_step_by_step(ranker: Ranker) -> None:
    counts = [9, 4, 6]
    encoded = make_encoded(ranker, counts, 9)
    lists = random_lists(counts, 5, 6)
    log_prob, steps = ranker.log_prob(encoded, lists)
    assert log_prob.shape == (3, 5) and steps.shape == (3, 5, 6)
    for b, count in enumerate(counts):
        for g in range(5):
            row = lists[b, g, : min(count, 6)].tolist()
            expected = [one_step(ranker, encoded, b, row[:t])[item] for t, item in enumerate(row)]
            np.testing.assert_allclose(steps[b, g, : len(row)], expected, atol=1e-5)
            assert (steps[b, g, len(row) :] == 0).all()
            assert log_prob[b, g].item() == pytest.approx(float(sum(expected)), abs=1e-4)


@pytest.mark.parametrize("together", [2, 4])
def test_lists_that_attend_as_one_sequence_do_not_see_each_other(
    ranker: Ranker, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    counts = [7, 4, 9]
    lists_BGL = random_lists(counts, 4, 4)

    def answer() -> tuple[Tensor, Tensor]:
        ranker.zero_grad()
        log_prob_BG, _ = ranker.log_prob(make_encoded(ranker, counts, 9), lists_BGL)
        log_prob_BG.sum().backward()
        gradients = [weight.grad.flatten() for weight in ranker.decoder.parameters() if weight.grad is not None]
        ranker.zero_grad()
        return log_prob_BG.detach(), torch.cat(gradients)

    apart, slope = answer()
    monkeypatch.setattr(decoding, "lists_a_row", lambda *_: together)
    packed, packed_slope = answer()
    torch.testing.assert_close(packed, apart)
    torch.testing.assert_close(packed_slope, slope, atol=1e-5, rtol=1e-4)


def test_a_gpu_takes_as_many_lists_at_once_as_fit() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert lists_a_row(20, 6, gpu) == 20 and lists_a_row(16, 6, gpu) == 16 and PACKED >= 20 * 6
    assert lists_a_row(50, 6, gpu) == 10  # of the divisors of 50 the largest that fits
    assert lists_a_row(23, 6, gpu) == 1 and lists_a_row(1, 200, gpu) == 1 and lists_a_row(4, 200, gpu) == 1
    assert lists_a_row(20, 6, cpu) == 1


@torch.no_grad()
def test_future_items_do_not_leak_into_earlier_steps(ranker: Ranker) -> None:
    encoded = make_encoded(ranker, [9], 9)
    first, second = torch.tensor([[[0, 1, 2, 3, 4, 5]]]), torch.tensor([[[0, 1, 2, 8, 7, 6]]])
    torch.testing.assert_close(
        ranker.log_prob(encoded, first)[1][..., :3], ranker.log_prob(encoded, second)[1][..., :3]
    )


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 3, 6, 11])
def test_sampler_reports_what_log_prob_says(ranker: Ranker, length: int) -> None:
    counts = [9, 4, 1, 6]
    encoded = make_encoded(ranker, counts, 9)
    generator = torch.Generator().manual_seed(3)
    lists, steps = ranker.sample_with_log_prob(encoded, 16, length, generator=generator)
    for b, count in enumerate(counts):
        filled = min(count, length)
        assert (lists[b, :, filled:] == -1).all()
        assert all(len(set(row[:filled])) == filled and max(row) < count for row in lists[b].tolist())
    torch.testing.assert_close(ranker.log_prob(encoded, lists)[1], steps, atol=2e-5, rtol=1e-5)
    again = ranker.sample(encoded, 16, length, generator=torch.Generator().manual_seed(3))
    assert again.equal(lists)
    assert not ranker.sample(encoded, 16, length, generator=torch.Generator().manual_seed(4)).equal(lists)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 3, 4, 6])
def test_all_lists_of_a_request_sum_to_one(ranker: Ranker, length: int) -> None:
    encoded = make_encoded(ranker, [4, 3], 5)
    for b, count in ((0, 4), (1, 3)):
        filled = min(length, count)
        everything = [[*order, *[-1] * (length - filled)] for order in permutations(range(count), filled)]
        log_prob, _ = ranker.log_prob(encoded.rows(torch.tensor([b])), torch.tensor([everything]))
        assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_sampled_frequencies(ranker: Ranker, temperature: float) -> None:
    encoded = make_encoded(ranker, [4], 5, seed=1)
    count = 20_000
    generator = torch.Generator().manual_seed(0)
    lists, steps = ranker.sample_with_log_prob(encoded, count, 2, temperature, generator)
    everything = list(permutations(range(4), 2))
    expected = []
    for first, second in everything:
        tempered = [one_step(ranker, encoded, 0, prefix) / temperature for prefix in ([], [first])]
        expected.append(float(tempered[0].softmax(0)[first] * tempered[1].softmax(0)[second]))
    codes = lists[0, :, 0] * 5 + lists[0, :, 1]
    found = [(codes == first * 5 + second).double().mean().item() for first, second in everything]
    assert sum(expected) == pytest.approx(1.0, abs=1e-5)
    for seen, chance in zip(found, expected, strict=True):
        assert abs(seen - chance) < 5 * np.sqrt(chance * (1 - chance) / count) + 1e-4
    for g in range(20):  # the propensity recorded is that of the distribution drawn from
        place = everything.index(tuple(lists[0, g].tolist()))
        assert steps[0, g].sum().exp().item() == pytest.approx(expected[place], rel=1e-3)


@torch.no_grad()
def test_padding_changes_nothing(ranker: Ranker) -> None:
    narrow = make_encoded(ranker, [5, 5], 5)
    wide = replace(
        narrow,
        candidates_BND=pad(narrow.candidates_BND, (0, 0, 0, 4), value=50.0),
        topics_BNT=pad(narrow.topics_BNT, (0, 0, 0, 4), value=1.0),
        mask_BN=pad(narrow.mask_BN, (0, 4), value=False),
        match_BN=pad(narrow.match_BN, (0, 4), value=50.0),
    )
    lists = random_lists([5, 5], 6, 6)
    torch.testing.assert_close(ranker.log_prob(narrow, lists), ranker.log_prob(wide, lists), atol=1e-5, rtol=1e-5)
    assert ranker.greedy(narrow, 6).equal(ranker.greedy(wide, 6))
    torch.testing.assert_close(
        ranker.first_step_logits(wide)[:, :5], ranker.first_step_logits(narrow), atol=1e-5, rtol=1e-5
    )
    assert (ranker.first_step_logits(wide)[:, 5:] == BLOCKED).all()


@torch.no_grad()
def test_greedy_takes_the_likeliest_item_each_step(ranker: Ranker) -> None:
    counts = [9, 4]
    encoded = make_encoded(ranker, counts, 9)
    lists = ranker.greedy(encoded, 6)
    for b, count in enumerate(counts):
        prefix: list[int] = []
        for _ in range(min(count, 6)):
            prefix.append(int(one_step(ranker, encoded, b, prefix).argmax()))
        assert lists[b].tolist() == prefix + [-1] * (6 - len(prefix))
    torch.testing.assert_close(
        ranker.first_step_logits(encoded)[0].log_softmax(0), one_step(ranker, encoded, 0, []), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 3, 6, 11])
def test_a_beam_of_one_is_greedy(ranker: Ranker, length: int) -> None:
    encoded = make_encoded(ranker, [9, 4, 1, 6], 9)
    lists, log_prob = ranker.beam(encoded, 1, length)
    assert lists[:, 0].equal(ranker.greedy(encoded, length))
    torch.testing.assert_close(log_prob, ranker.log_prob(encoded, lists)[0], atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 3, 4, 6])
def test_a_beam_as_wide_as_all_beginnings_is_exact(ranker: Ranker, length: int) -> None:
    """Requests of four and of three candidates, one of them padded in front of the last."""
    encoded = make_encoded(ranker, [4, 3], 6, seed=2)
    encoded.mask_BN[1] = torch.tensor([True, False, True, False, False, True])
    width = 30  # more than the 24 lists of four candidates
    lists, log_prob = ranker.beam(encoded, width, length)
    for b in range(2):
        real = encoded.mask_BN[b].nonzero().flatten().tolist()
        filled = min(length, len(real))
        everything = [[*order, *[-1] * (length - filled)] for order in permutations(real, filled)]
        exact, _ = ranker.log_prob(encoded.rows(torch.tensor([b])), torch.tensor([everything]))
        order = exact[0].argsort(descending=True)
        assert lists[b, : len(everything)].equal(torch.tensor(everything)[order])
        torch.testing.assert_close(log_prob[b, : len(everything)], exact[0, order], atol=2e-5, rtol=1e-5)
        assert (lists[b, len(everything) :] == -1).all() and log_prob[b, len(everything) :].isneginf().all()


@torch.no_grad()
def test_a_beam_finds_likelier_lists_than_greedy_and_says_how_likely(ranker: Ranker) -> None:
    encoded = make_encoded(ranker, [9, 9, 9, 9, 9, 5], 9, seed=4)
    greedy, _ = ranker.log_prob(encoded, ranker.greedy(encoded, 6).unsqueeze(1))
    lists, log_prob = ranker.beam(encoded, 20, 6)
    torch.testing.assert_close(ranker.log_prob(encoded, lists)[0], log_prob, atol=2e-5, rtol=1e-5)
    assert (log_prob[:, :-1] >= log_prob[:, 1:]).all()
    assert (log_prob[:, :1] >= greedy - 1e-5).all() and (log_prob[:, :1] > greedy + 1e-3).any()
    for request in lists.tolist():
        assert len({tuple(row) for row in request}) == 20
    alone = ranker.beam(encoded.rows(torch.tensor([5])), 20, 6)
    assert alone[0][0].equal(lists[5])


def test_impossible_lists_have_no_probability(ranker: Ranker) -> None:
    encoded = make_encoded(ranker, [4], 5)
    log_prob, _ = ranker.log_prob(encoded, torch.tensor([[[0, 1, 0], [0, 4, 1], [0, 1, 2]]]))
    assert (log_prob[0, :2] < 0.5 * BLOCKED).all() and log_prob[0, 2] > -50
    log_prob.sum().backward()
    gradients = [weight.grad for weight in ranker.decoder.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    ranker.zero_grad()


def test_every_weight_learns(ranker: Ranker, tmp_path) -> None:
    make_training_set(tmp_path, requests=30, candidates=8)
    training_set = TrainingSet.load(tmp_path)
    batch = training_set.batch(training_set.train_indices()[:8])
    encoded = ranker.encode(batch)
    lists = ranker.sample(encoded, 4, 6, generator=torch.Generator().manual_seed(0))
    ranker.log_prob(encoded, lists)[0].sum().backward()
    without = [name for name, weight in ranker.named_parameters() if weight.grad is None]
    ranker.zero_grad()
    assert without == []


@torch.no_grad()
def test_a_request_is_answered_the_same_alone_and_in_company(ranker: Ranker, tmp_path) -> None:
    make_training_set(tmp_path, requests=30, candidates=8)
    training_set = TrainingSet.load(tmp_path)
    indices = training_set.train_indices()[:8]
    together = ranker.greedy(ranker.encode(training_set.batch(indices)), 6)
    for row, index in enumerate(indices):
        assert ranker.greedy(ranker.encode(training_set.batch([index])), 6)[0].equal(together[row])
