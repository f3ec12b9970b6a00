"""Helper policies: every list is valid, each does what its name says, the sampled ones follow their generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from goalrank.dataset import RequestBatch
from goalrank.encoders import Encoded
from goalrank.errors import UsageError
from goalrank.features import ITEM_DENSE
from goalrank.policies import (
    MMR_RELEVANCE,
    PERTURBATION_TEMPERATURE,
    REGISTRY,
    Opinion,
    Proposal,
    helper_columns,
    propose_lists,
    top_lists,
)
from goalrank.reward import RewardModel

BATCH, CANDIDATES, TOPICS, LENGTH = 7, 12, 5, 6
SAMPLED = [policy.name for policy in REGISTRY.values() if policy.sampled]
HEURISTICS = [policy.name for policy in REGISTRY.values() if not policy.neural]


class LaterIsBetter(RewardModel):
    """A list of one item earns that item's index: what is not a candidate would earn least, and must not matter."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def reward(self, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
        assert lists_BGL.shape[2] == 1
        return lists_BGL[..., 0].float()


def make_opinion(request: RequestBatch, next_item_BN: Tensor) -> Opinion:
    nothing = torch.zeros(1)
    return Opinion(LaterIsBetter(), Encoded(nothing, nothing, request.mask_BN, nothing, next_item_BN))


def make_proposal(counts: list[int] | None = None, length: int = LENGTH, seed: int = 0) -> Proposal:
    generator = torch.Generator().manual_seed(seed)
    counts_B = torch.tensor(counts or [CANDIDATES] * BATCH)
    batch = len(counts_B)
    mask_BN = torch.arange(CANDIDATES) < counts_B.unsqueeze(1)
    nothing = torch.zeros(batch, 1)
    request = RequestBatch(
        user_dense_BF=nothing,
        user_topics_BT=nothing,
        history_items_BH=nothing.long(),
        history_topics_BH=nothing.long(),
        attributes_BA=nothing.long(),
        item_id_BN=torch.arange(CANDIDATES).expand(batch, -1) * mask_BN,
        item_dense_BNF=torch.randn(batch, CANDIDATES, len(ITEM_DENSE), generator=generator) * mask_BN.unsqueeze(-1),
        item_topics_BNT=(torch.rand(batch, CANDIDATES, TOPICS, generator=generator) < 0.3).float()
        * mask_BN.unsqueeze(-1),
        score_BN=torch.randn(batch, CANDIDATES, generator=generator) * mask_BN,
        mask_BN=mask_BN,
    )
    noise_BN = torch.rand(batch, CANDIDATES, generator=generator)
    next_item_BN = torch.randn(batch, CANDIDATES, generator=generator) * mask_BN
    return Proposal(request, top_lists(noise_BN, mask_BN, LENGTH), length, make_opinion(request, next_item_BN))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("length", [1, 6, 9, 15])
def test_lists_are_distinct_candidates_filled_as_far_as_they_go(name: str, length: int) -> None:
    counts = [12, 1, 2, 5, 6, 7, 12]
    lists = REGISTRY[name].propose(make_proposal(counts, length), generator())
    assert lists.shape == (len(counts), length) and lists.dtype == torch.int64
    for row, count in zip(lists.tolist(), counts, strict=True):
        filled = min(count, length)
        assert row[filled:] == [-1] * (length - filled)
        assert len(set(row[:filled])) == filled
        assert all(0 <= item < count for item in row[:filled])


@pytest.mark.parametrize(
    ("name", "feature", "sign"),
    [("popularity", "log_clicks", 1), ("recency", "log_age_days", -1), ("ctr", "click_logit_7d", 1)],
)
def test_one_feature_orders(name: str, feature: str, sign: int) -> None:
    proposal = make_proposal()
    value = sign * proposal.batch.item_dense_BNF[..., ITEM_DENSE.index(feature)].numpy()
    expected = np.argsort(-value, axis=1, kind="stable")[:, :LENGTH]
    np.testing.assert_array_equal(REGISTRY[name].propose(proposal, generator()).numpy(), expected)


def test_retriever_order() -> None:
    proposal = make_proposal()
    expected = np.argsort(-proposal.batch.score_BN.numpy(), axis=1, kind="stable")[:, :LENGTH]
    np.testing.assert_array_equal(REGISTRY["retriever"].propose(proposal, generator()).numpy(), expected)


def test_neural_orders() -> None:
    proposal = make_proposal([12, 5, 8])
    assert proposal.opinion is not None
    score_BN = np.where(proposal.batch.mask_BN.numpy(), proposal.opinion.next_item.numpy(), -np.inf)
    expected = np.argsort(-score_BN, axis=1, kind="stable")[:, :LENGTH]
    expected[1, 5:] = -1
    np.testing.assert_array_equal(REGISTRY["next_item"].propose(proposal, generator()).numpy(), expected)
    found = REGISTRY["reward_alone"].propose(proposal, generator()).tolist()
    assert found == [[11, 10, 9, 8, 7, 6], [4, 3, 2, 1, 0, -1], [7, 6, 5, 4, 3, 2]]


@pytest.mark.parametrize("name", [policy.name for policy in REGISTRY.values() if policy.neural])
def test_a_neural_policy_without_a_model_says_so(name: str) -> None:
    proposal = replace(make_proposal(), opinion=None)
    with pytest.raises(UsageError, match=r"without a reward model, expected Proposal\.opinion"):
        REGISTRY[name].propose(proposal, generator())


def test_mmr_restated() -> None:
    proposal = make_proposal()
    topics = proposal.batch.item_topics_BNT.numpy().astype(np.float64)
    score = proposal.batch.score_BN.numpy()
    found = REGISTRY["mmr"].propose(proposal, generator()).tolist()
    for b in range(BATCH):
        norm = np.maximum(np.linalg.norm(topics[b], axis=1), 1e-12)
        similarity = (topics[b] @ topics[b].T) / np.outer(norm, norm)
        chosen: list[int] = []
        for _ in range(LENGTH):
            value = [
                -np.inf
                if item in chosen
                else MMR_RELEVANCE * score[b, item]
                - (1 - MMR_RELEVANCE) * max((similarity[item, other] for other in chosen), default=0.0)
                for item in range(CANDIDATES)
            ]
            chosen.append(int(np.argmax(value)))
        assert found[b] == chosen


def test_shown_is_kept_and_completed_by_the_retriever() -> None:
    proposal = make_proposal()
    assert REGISTRY["shown"].propose(proposal, generator()).equal(proposal.shown_BL)
    short = proposal.shown_BL.clone()
    short[:, 2:] = -1
    found = REGISTRY["shown"].propose(Proposal(proposal.batch, short, LENGTH), generator())
    assert found[:, :2].equal(short[:, :2])
    for b, row in enumerate(found.tolist()):
        by_score = proposal.batch.score_BN[b].argsort(descending=True).tolist()
        assert row[2:] == [item for item in by_score if item not in row[:2]][:4]
    unknown = torch.full_like(short, -1)
    found = REGISTRY["shown"].propose(Proposal(proposal.batch, unknown, LENGTH), generator())
    assert found.equal(REGISTRY["retriever"].propose(proposal, generator()))


def test_perturbation_replaces_one_and_swaps_two() -> None:
    proposal = make_proposal()
    differing = set()
    for seed in range(60):
        found = REGISTRY["shown_perturbed"].propose(proposal, generator(seed))
        for shown, changed in zip(proposal.shown_BL.tolist(), found.tolist(), strict=True):
            assert len(set(changed) - set(shown)) == 1
            differing.add(sum(a != b for a, b in zip(shown, changed, strict=True)))
    assert differing == {2, 3}  # the newcomer is one of the swapped two, or not


def test_retriever_sampling_is_plackett_luce() -> None:
    proposal = make_proposal([5], length=1)
    many = Proposal(
        RequestBatch(*(value.repeat_interleave(20_000, dim=0) for value in vars(proposal.batch).values())),
        proposal.shown_BL.repeat_interleave(20_000, dim=0),
        1,
    )
    first = REGISTRY["retriever_sampled"].propose(many, generator())[:, 0].numpy()
    weight = np.exp(proposal.batch.score_BN[0, :5].numpy() / PERTURBATION_TEMPERATURE)
    np.testing.assert_allclose(np.bincount(first, minlength=5) / len(first), weight / weight.sum(), atol=0.015)


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_policies_follow_the_generator(name: str) -> None:
    proposal = make_proposal()
    first, again, other = (REGISTRY[name].propose(proposal, generator(seed)) for seed in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)


def test_columns_are_deterministic_first_then_sampled() -> None:
    names = [policy.name for policy in helper_columns(11)]
    fixed = [name for name in HEURISTICS if name not in SAMPLED]
    sampled = [name for name in HEURISTICS if name in SAMPLED]
    assert names == [*fixed, *sampled, *sampled][:11]
    assert [policy.name for policy in helper_columns(3)] == names[:3]
    lists = propose_lists(make_proposal(), helper_columns(11), generator())
    assert lists.shape == (BATCH, 11, LENGTH)
    assert not lists[:, len(fixed)].equal(lists[:, len(fixed) + len(sampled)])  # the same policy, drawn again
    with pytest.raises(UsageError, match="0 helper lists found, expected at least 1"):
        helper_columns(0)


def test_a_mix_is_some_of_the_policies_in_the_registrys_order() -> None:
    mix = ["random", "next_item", "retriever"]
    assert [policy.name for policy in helper_columns(4, mix)] == ["retriever", "next_item", "random", "random"]
    assert [policy.name for policy in helper_columns(3, ["random"])] == ["random"] * 3


@pytest.mark.parametrize(
    ("count", "mix", "message"),
    [
        (2, ["best"], "helper policy 'best' found, expected some of retriever, popularity"),
        (2, ["random", "random"], "random, random found, expected each at most once"),
        (
            3,
            ["retriever", "mmr"],
            "3 helper lists of retriever, mmr found, expected at most 2: none",
        ),
    ],
)
def test_a_mix_that_makes_no_group_is_refused(count: int, mix: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        helper_columns(count, mix)
