"""Helper policies M: cheap, different ways to order the candidates (docs/method.md, "Training, three steps", 2).

Heuristics, and the light neural rankers that a night has anyway: the pretrained history encoder's next-item scores, and
what the reward model thinks of each candidate alone. Diversity is their point: lists of one generator are alike, their
reward gaps small. Every policy fills the list as far as the request has candidates; lists never repeat an item, and end
in -1 where candidates run out.

Legend: B requests, N candidates, L list length, G lists, T topics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from goalrank.dataset import RequestBatch
from goalrank.encoders import Encoded, z_scored
from goalrank.errors import UsageError
from goalrank.features import ITEM_DENSE
from goalrank.reward import RewardModel

MMR_RELEVANCE = 0.5
"""lambda of maximal marginal relevance: weight of the (z-scored) score against similarity to the items before."""

PERTURBATION_TEMPERATURE = 0.5
"""Plackett-Luce sampling on z-scored scores: at 0.5 a score one standard deviation higher is 7 times as likely next."""


@dataclass(frozen=True)
class Proposal:
    """What a policy may look at: the request, the list it was logged with, and how long lists are."""

    batch: RequestBatch
    shown_BL: Tensor  # candidate indices, -1 = none; a request of no log has only -1
    length: int
    opinion: Opinion | None = None  # for neural policies


class Opinion:
    """What neural policies order by: z-scored scores_BN of a reward model and of the history encoder within it.

    Asked for only where a policy needs it, and worked out once a batch.
    """

    def __init__(self, model: RewardModel, encoded: Encoded) -> None:
        self._model, self._encoded = model, encoded

    @property
    def next_item(self) -> Tensor:
        """[B, N], how likely each candidate is the user's next click, by the history encoder."""
        return self._encoded.match_BN

    @cached_property
    def alone(self) -> Tensor:
        """[B, N], what each candidate would earn as a list of its own: the reward model as a pointwise ranker."""
        mask_BN = self._encoded.mask_BN
        item_N = torch.arange(mask_BN.shape[1], device=mask_BN.device)
        lists_BN1 = torch.where(mask_BN, item_N, -1).unsqueeze(-1)
        return z_scored(self._model.reward(self._encoded, lists_BN1), mask_BN)


Propose = Callable[[Proposal, torch.Generator], Tensor]
"""(proposal, generator) -> lists_BL int64. The generator lives on the CPU, whatever device the batch is on."""


@dataclass(frozen=True)
class HelperPolicy:
    """A named policy; `sampled` ones give another list at each call, `neural` ones need Proposal.opinion."""

    name: str
    sampled: bool
    propose: Propose
    neural: bool = False


def top_lists(score_BN: Tensor, mask_BN: Tensor, length: int) -> Tensor:
    """lists_BL: the highest-scored real candidates, best first, ties by index, -1 where candidates run out."""
    order_BN = score_BN.masked_fill(~mask_BN, -torch.inf).argsort(dim=1, descending=True, stable=True)
    if order_BN.shape[1] < length:
        order_BN = torch.nn.functional.pad(order_BN, (0, length - order_BN.shape[1]))
    place_L = torch.arange(length, device=mask_BN.device)
    return order_BN[:, :length].masked_fill(place_L >= mask_BN.sum(dim=1, keepdim=True), -1)


def helper_columns(count: int, mix: Sequence[str] = ()) -> list[HelperPolicy]:
    """The policies behind the `count` columns of a group: the deterministic ones of the mix, then its sampled ones over
    and over.

    Args:
        count: helper lists of a group.
        mix: names of policies, each at most once, in any order; none: every heuristic. `random:4` are exactly four
            lists of a policy; those that say no number share the columns that are left.

    Raises:
        UsageError: count is not positive, a name is unknown or named twice, the numbers add up to more than count, or
            there are more columns than lists that differ, since none of the mix is sampled.
    """
    if count < 1:
        raise UsageError(f"{count} helper lists found, expected at least 1")
    shares = shares_of(mix)
    numbered = [(REGISTRY[name], lists) for name, lists in shares.items() if lists]
    for policy, lists in numbered:
        if lists > 1 and not policy.sampled:
            raise UsageError(f"{policy.name}:{lists} found, expected 1: it is not sampled, so more would be copies")
    left = count - sum(lists for _, lists in numbered)
    if left < 0:
        raise UsageError(f"helper policies {', '.join(mix)} make {count - left} lists, expected at most {count}")
    chosen = [
        policy for policy in REGISTRY.values() if (shares.get(policy.name, -1) == 0 if mix else not policy.neural)
    ]
    fixed = [policy for policy in chosen if not policy.sampled]
    sampled = [policy for policy in chosen if policy.sampled]
    if left > len(fixed) and not sampled:
        raise UsageError(
            f"{count} helper lists of {', '.join(mix)} found, expected at most {len(fixed) + count - left}: none of "
            "those without a number is sampled, so more would be copies; add a sampled policy or ask for fewer lists"
        )
    columns = [fixed[g] if g < len(fixed) else sampled[(g - len(fixed)) % len(sampled)] for g in range(left)]
    columns += [policy for policy, lists in numbered for _ in range(lists)]
    if not numbered:
        return columns
    place = {name: row for row, name in enumerate(REGISTRY)}
    return sorted(columns, key=lambda policy: (policy.sampled, place[policy.name]))


def shares_of(mix: Sequence[str]) -> dict[str, int]:
    """By policy how many lists its entry in a mix asks for (`random:4`), 0 where it says no number.

    Raises:
        UsageError: a name is unknown or named twice, or its number is none.
    """
    shares: dict[str, int] = {}
    for entry in mix:
        name, colon, number = entry.partition(":")
        if name not in REGISTRY:
            raise UsageError(f"helper policy {name!r} found, expected some of {', '.join(REGISTRY)}")
        if colon and not (number.isascii() and number.isdigit() and int(number) > 0):
            raise UsageError(f"helper policy {entry!r} found, expected a number of lists from 1 after the colon")
        if name in shares:
            raise UsageError(
                f"helper policies {', '.join(mix)} found, expected each at most once: sampled ones are repeated"
            )
        shares[name] = int(number) if colon else 0
    return shares


def propose_lists(proposal: Proposal, columns: list[HelperPolicy], generator: torch.Generator) -> Tensor:
    """lists_BGL: one list a column."""
    return torch.stack([policy.propose(proposal, generator) for policy in columns], dim=1)


# ----------------------------------------------------------------------------------------------------- deterministic


def _retriever(proposal: Proposal, _: torch.Generator) -> Tensor:
    return top_lists(proposal.batch.score_BN, proposal.batch.mask_BN, proposal.length)


def _by_feature(name: str, sign: float) -> Propose:
    column = ITEM_DENSE.index(name)

    def propose(proposal: Proposal, _: torch.Generator) -> Tensor:
        score_BN = sign * proposal.batch.item_dense_BNF[..., column]
        return top_lists(score_BN, proposal.batch.mask_BN, proposal.length)

    return propose


def _by_opinion(name: str) -> Propose:
    def propose(proposal: Proposal, _: torch.Generator) -> Tensor:
        return top_lists(_opinion(proposal, name), proposal.batch.mask_BN, proposal.length)

    return propose


def _mmr(proposal: Proposal, _: torch.Generator) -> Tensor:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998): score against cosine similarity of topics."""
    topics_BNT = torch.nn.functional.normalize(proposal.batch.item_topics_BNT, dim=-1)
    similarity_BNN = topics_BNT @ topics_BNT.transpose(1, 2)
    relevance_BN = MMR_RELEVANCE * proposal.batch.score_BN
    available_BN = proposal.batch.mask_BN.clone()
    nearest_BN = torch.zeros_like(relevance_BN)
    columns = []
    for _step in range(proposal.length):
        value_BN = relevance_BN - (1.0 - MMR_RELEVANCE) * nearest_BN
        chosen_B1 = value_BN.masked_fill(~available_BN, -torch.inf).argmax(dim=1, keepdim=True)
        columns.append(chosen_B1.masked_fill(~available_BN.any(dim=1, keepdim=True), -1))
        available_BN.scatter_(1, chosen_B1, False)
        chosen_similarity_BN = torch.take_along_dim(similarity_BNN, chosen_B1.unsqueeze(-1), dim=1).squeeze(1)
        nearest_BN = torch.maximum(nearest_BN, chosen_similarity_BN)
    return torch.cat(columns, dim=1)


def _shown(proposal: Proposal, _: torch.Generator) -> Tensor:
    return _fill(proposal, proposal.shown_BL)


# ------------------------------------------------------------------------------------------------------------ sampled


def _retriever_sampled(proposal: Proposal, generator: torch.Generator) -> Tensor:
    return _plackett_luce(proposal, proposal.batch.score_BN, generator)


def _sampled_by_opinion(name: str) -> Propose:
    def propose(proposal: Proposal, generator: torch.Generator) -> Tensor:
        return _plackett_luce(proposal, _opinion(proposal, name), generator)

    return propose


def _shown_perturbed(proposal: Proposal, generator: torch.Generator) -> Tensor:
    """The shown list with one item replaced by one that was not in it, then two places swapped."""
    lists_BL = _shown(proposal, generator)
    batch, candidates = proposal.batch.mask_BN.shape
    replace_at, swap_a, swap_b, newcomer = (
        _uniform((batch, width), generator, lists_BL.device) for width in (1, 1, 1, candidates)
    )
    filled_B1 = (lists_BL >= 0).sum(dim=1, keepdim=True).clamp_min(1)

    # One spare column takes the -1 of short lists.
    listed_BN = torch.zeros(batch, candidates + 1, dtype=torch.bool, device=lists_BL.device)
    listed_BN = listed_BN.scatter(1, torch.where(lists_BL >= 0, lists_BL, candidates), True)[:, :candidates]
    outside_BN = proposal.batch.mask_BN & ~listed_BN
    new_B1 = newcomer.masked_fill(~outside_BN, -1.0).argmax(dim=1, keepdim=True)
    place_B1 = (replace_at * filled_B1).long()
    old_B1 = lists_BL.gather(1, place_B1)
    lists_BL = lists_BL.scatter(1, place_B1, torch.where(outside_BN.any(dim=1, keepdim=True), new_B1, old_B1))

    first_B1 = (swap_a * filled_B1).long()
    # A step of 1..filled-1 round the list never lands on the same place (unless there is but one).
    second_B1 = (first_B1 + 1 + (swap_b * (filled_B1 - 1)).long()) % filled_B1
    first_item_B1, second_item_B1 = lists_BL.gather(1, first_B1), lists_BL.gather(1, second_B1)
    return lists_BL.scatter(1, first_B1, second_item_B1).scatter(1, second_B1, first_item_B1)


def _random(proposal: Proposal, generator: torch.Generator) -> Tensor:
    score_BN = _uniform(proposal.batch.mask_BN.shape, generator, proposal.batch.mask_BN.device)
    return top_lists(score_BN, proposal.batch.mask_BN, proposal.length)


def _plackett_luce(proposal: Proposal, score_BN: Tensor, generator: torch.Generator) -> Tensor:
    """Lists drawn item by item in proportion to exp(score / PERTURBATION_TEMPERATURE), by Gumbel noise."""
    noise_BN = gumbel(score_BN.shape, generator, score_BN.device)
    return top_lists(score_BN / PERTURBATION_TEMPERATURE + noise_BN, proposal.batch.mask_BN, proposal.length)


def _opinion(proposal: Proposal, name: str) -> Tensor:
    if proposal.opinion is None:
        raise UsageError(f"helper policy of {name} found without a reward model, expected Proposal.opinion")
    scores_BN: Tensor = getattr(proposal.opinion, name)
    return scores_BN


def _fill(proposal: Proposal, lists_BL: Tensor) -> Tensor:
    """Lists completed to the length wanted, with the retriever's best items that they do not hold."""
    score_BN, mask_BN = proposal.batch.score_BN, proposal.batch.mask_BN
    candidates, places = mask_BN.shape[1], lists_BL.shape[1]
    # Items of the list come first, in its order: above every score by more than the scores' range.
    place_L = torch.arange(places, 0, -1, device=lists_BL.device, dtype=score_BN.dtype)
    rank_BN = torch.zeros(len(mask_BN), candidates + 1, dtype=score_BN.dtype, device=lists_BL.device)
    rank_BN = rank_BN.scatter(1, torch.where(lists_BL >= 0, lists_BL, candidates), place_L.expand_as(lists_BL))
    span = 2.0 * score_BN.abs().amax() + 1.0
    return top_lists(score_BN + span * rank_BN[:, :candidates], mask_BN, proposal.length)


def gumbel(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise from a CPU generator: the k largest of logits and it are a draw without replacement
    (Plackett-Luce), the largest one from their softmax."""
    return -(-_uniform(shape, generator, device).log()).log()


def _uniform(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Uniform in (0, 1), drawn on the CPU so that every device sees the same numbers."""
    return torch.rand(tuple(shape), generator=generator).clamp(1e-7, 1.0 - 1e-7).to(device)


REGISTRY: dict[str, HelperPolicy] = {
    policy.name: policy
    for policy in (
        HelperPolicy("retriever", False, _retriever),
        HelperPolicy("popularity", False, _by_feature("log_clicks", 1.0)),
        HelperPolicy("recency", False, _by_feature("log_age_days", -1.0)),
        HelperPolicy("ctr", False, _by_feature("click_logit_7d", 1.0)),
        HelperPolicy("mmr", False, _mmr),
        HelperPolicy("shown", False, _shown),
        HelperPolicy("retriever_sampled", True, _retriever_sampled),
        HelperPolicy("shown_perturbed", True, _shown_perturbed),
        HelperPolicy("random", True, _random),
        HelperPolicy("next_item", False, _by_opinion("next_item"), neural=True),
        HelperPolicy("reward_alone", False, _by_opinion("alone"), neural=True),
        HelperPolicy("next_item_sampled", True, _sampled_by_opinion("next_item"), neural=True),
        HelperPolicy("reward_alone_sampled", True, _sampled_by_opinion("alone"), neural=True),
    )
}
"""Every helper by its name; the order is part of the groups' format."""
