"""The request encoder does not care about order and padding, and survives requests nothing is known of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from goalrank.dataset import RequestBatch, TrainingSet
from goalrank.encoders import Encoded, ModelSizes, RequestEncoder, hash_buckets, mask_bits, z_scored
from goalrank.errors import ModelRefused
from goalrank.presets import PRESETS, preset
from tests.synthetic import make_training_set

SIZES = ModelSizes.from_preset(preset("tiny"))


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> RequestBatch:
    path: Path = tmp_path_factory.mktemp("training_set")
    make_training_set(path, requests=60, candidates=10)
    return TrainingSet.load(path).batch(range(16))


@pytest.fixture(scope="module")
def encoder() -> RequestEncoder:
    torch.manual_seed(0)
    return RequestEncoder(SIZES).eval()


def of_candidates(batch: RequestBatch, change) -> RequestBatch:
    """The batch with its candidate tensors changed."""
    names = ("item_id_BN", "item_dense_BNF", "item_topics_BNT", "score_BN", "mask_BN")
    return replace(batch, **{name: change(getattr(batch, name)) for name in names})


def test_shapes(encoder: RequestEncoder, batch: RequestBatch) -> None:
    encoded = encoder(batch)
    assert encoded.candidates_BND.shape == (16, 10, SIZES.width)
    assert encoded.user_BD.shape == (16, SIZES.width)
    assert encoded.rows(torch.tensor([0, 0, 3])).user_BD.shape == (3, SIZES.width)


def test_order_of_candidates_does_not_matter(encoder: RequestEncoder, batch: RequestBatch) -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    turned = encoder(of_candidates(batch, lambda values: values[:, order]))
    torch.testing.assert_close(turned.candidates_BND, encoder(batch).candidates_BND[:, order], rtol=1e-4, atol=1e-5)


def test_padding_does_not_matter(encoder: RequestEncoder, batch: RequestBatch) -> None:
    wider = of_candidates(batch, lambda values: torch.cat([values, torch.zeros_like(values[:, :3])], dim=1))
    longer = replace(
        wider,
        history_items_BH=functional.pad(batch.history_items_BH, (0, 4)),
        history_topics_BH=functional.pad(batch.history_topics_BH, (0, 4)),
    )
    padded, plain = encoder(longer), encoder(batch)
    torch.testing.assert_close(padded.candidates_BND[:, :10], plain.candidates_BND, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.user_BD, plain.user_BD, rtol=1e-4, atol=1e-5)
    assert not padded.candidates_BND[:, 10:].any()


def test_attention_with_a_learned_bias_is_the_fused_one(encoder: RequestEncoder, batch: RequestBatch) -> None:
    """What training computes for the sake of the bias's gradient is what evaluation gets from the fused kernel."""
    layer, x = encoder.history.layers[0], encoder.items(batch.item_id_BN, batch.item_topics_BNT)
    bias = torch.randn(1, SIZES.heads, 10, 10).masked_fill(torch.ones(10, 10).triu(1).bool(), -torch.inf)
    fused, learned = layer(x, bias), layer(x, bias.clone().requires_grad_())
    torch.testing.assert_close(learned, fused, rtol=1e-5, atol=1e-6)
    weights = [
        torch.autograd.grad(out.square().sum(), layer.query.weight, retain_graph=True)[0] for out in (fused, learned)
    ]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def test_history_is_causal(encoder: RequestEncoder, batch: RequestBatch) -> None:
    items = batch.history_items_BH.clone()
    before, _, _ = encoder.encode_history(items, batch.history_topics_BH)
    full = (items != 0).all(dim=1)
    rows = full.nonzero()[:1, 0]
    changed = items.clone()
    changed[rows, 5] = 199
    after, _, _ = encoder.encode_history(changed, batch.history_topics_BH)
    torch.testing.assert_close(after[rows, :5], before[rows, :5])
    assert not torch.allclose(after[rows, 5:], before[rows, 5:])


def test_an_old_click_more_or_less_does_not_shift_the_rest(encoder: RequestEncoder, batch: RequestBatch) -> None:
    """Order enters by distance: the same clicks after a cut read the same but for what was cut."""
    items, topics = batch.history_items_BH[:, :8], batch.history_topics_BH[:, :8]
    row = (items != 0).all(dim=1).nonzero()[0, 0]
    alone, _, _ = encoder.encode_history(items[row : row + 1, 7:8], topics[row : row + 1, 7:8])
    first, _, _ = encoder.encode_history(items[row : row + 1, 7:], topics[row : row + 1, 7:])
    torch.testing.assert_close(alone, first)


def test_requests_nothing_is_known_of_are_finite(encoder: RequestEncoder, batch: RequestBatch) -> None:
    empty = RequestBatch(*(torch.zeros_like(value) for value in vars(batch).values()))
    encoded: Encoded = encoder(empty)
    for value in (encoded.candidates_BND, encoded.user_BD, encoded.match_BN):
        assert torch.isfinite(value).all()
    encoder.train()
    encoder(empty).user_BD.sum().backward()
    assert all(weight.grad is None or torch.isfinite(weight.grad).all() for weight in encoder.parameters())
    encoder.eval()


def test_hashed_ids_are_spread_and_zero_is_padding() -> None:
    buckets = hash_buckets(torch.cat([torch.arange(50_000), torch.tensor([-5, 2**62])]), 1024)
    assert buckets[0] == 0 and buckets[1:].min() >= 1 and buckets.max() <= 1023
    counts = buckets[1:].bincount(minlength=1024)[1:].float()
    assert counts.std() ** 2 < 1.5 * counts.mean()  # a Poisson's variance is its mean
    # SplitMix64's finaliser, restated with Python's integers.
    x = 12345
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ((x ^ (x >> shift)) * factor) % 2**64
    assert hash_buckets(torch.tensor([12345]), 1024).item() == ((x ^ (x >> 31)) % 2**63) % 1023 + 1


def test_z_scores_ignore_padding() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 100.0]])
    mask = torch.tensor([[True, True, True, False]])
    torch.testing.assert_close(
        z_scored(values, mask), torch.tensor([[-(1.5**0.5), 0, 1.5**0.5, 0]]), rtol=1e-4, atol=1e-4
    )
    assert mask_bits(torch.tensor([5])).nonzero()[:, 1].tolist() == [0, 2]


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_of_every_preset(name: str) -> None:
    sizes = ModelSizes.from_preset(preset(name))
    assert ModelSizes.from_dict(sizes.to_dict()) == sizes and sizes.width % sizes.heads == 0


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ModelRefused, match="model sizes found"):
        ModelSizes.from_dict({"width": 3})
