"""How far a guide can be trusted: its opinion of lists against their true reward, kind of lists by kind.

    shown, perturbed           the logged list and what differs from it in an item and two places
    retriever, sampled         as nine in ten requests of the log were ranked
    random                     as one in ten was
    guide's order, sampled     what the guide likes, item by item: where a policy that obeys it goes
    retriever reversed         what the retriever believes in least, sampled: lists that the log, but for chance, lacks

The heads' estimate of their noise (goalrank.reward.reward_noise) is of gaps between the lists of a request, so the
guide's true error is measured on gaps too.

Shapes: R requests, G lists a request, H heads, B requests of a batch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.problem import VALIDATION
from benchmarks.quality.simulated import Simulated
from goalrank import metrics
from goalrank.dataset import RequestBatch
from goalrank.encoders import Encoded
from goalrank.groups import BATCH_REQUESTS, scored_lists
from goalrank.policies import REGISTRY, HelperPolicy, Opinion, Proposal, propose_lists
from goalrank.reward import RewardModel, reward_noise
from goalrank.schedule import HELPERS, derived_seed
from goalrank.schema import LIST_LENGTH

LISTS = 16
"""Of each kind, a request."""
_SEED = 41
"""Of the drawn lists: the same for the guides of all seeds, but for those that are by their own opinion."""


def _retriever_reversed(proposal: Proposal, generator: torch.Generator) -> Tensor:
    batch = replace(proposal.batch, score_BN=-proposal.batch.score_BN)
    return REGISTRY["retriever_sampled"].propose(replace(proposal, batch=batch), generator)


KINDS: dict[str, tuple[HelperPolicy, ...]] = {
    "shown, perturbed": (REGISTRY["shown"], *[REGISTRY["shown_perturbed"]] * (LISTS - 1)),
    "retriever, sampled": (REGISTRY["retriever_sampled"],) * LISTS,
    "random": (REGISTRY["random"],) * LISTS,
    "guide's order, sampled": (REGISTRY["reward_alone"], *[REGISTRY["reward_alone_sampled"]] * (LISTS - 1)),
    "retriever reversed": (HelperPolicy("retriever_reversed", True, _retriever_reversed),) * LISTS,
}
"""The policies behind the LISTS lists of each kind."""


def judged(
    problem: Simulated, guide: RewardModel, requests: int, device: str = "cpu"
) -> dict[str, dict[str, float | None]]:
    """By kind of lists what :func:`measures` says of a guide, on the first validation requests.

    Raises:
        ModelRefused: a reward is not finite.
    """
    rows_R = problem.rows[VALIDATION][:requests]
    columns = [policy for policies in KINDS.values() for policy in policies]

    def propose(at: int, batch: RequestBatch, encoded: Encoded) -> Tensor:
        shown_BL = problem.data.feedback(rows_R[at : at + len(batch)]).slate_BL.to(device)
        generator = torch.Generator().manual_seed(derived_seed(_SEED, HELPERS, at // BATCH_REQUESTS))
        return propose_lists(Proposal(batch, shown_BL, LIST_LENGTH, Opinion(guide, encoded)), columns, generator)

    lists_RGL, heads_RHG = scored_lists(problem.data, rows_R, guide, propose, device=device)
    true_RG = problem.true_rewards(VALIDATION, lists_RGL.astype(np.int64))
    kinds_RKG, heads_RHKG = (values.reshape(*values.shape[:-1], len(KINDS), LISTS) for values in (true_RG, heads_RHG))
    return {name: measures(heads_RHKG[:, :, at], kinds_RKG[:, at]) for at, name in enumerate(KINDS)}


def measures(heads_RHG: np.ndarray, true_RG: np.ndarray) -> dict[str, float | None]:
    """How far the heads' opinions of lists, and their mean, r_hat, are from the truth.

    Returns:
        {"rank_correlation" (Spearman, of r_hat and r* over the lists of a request, mean over requests), "bias" (mean of
        r_hat less r*), "spread" (standard deviation of r* over a request's lists), "gap_error" (of r_hat less r*, its
        mean over the request taken out), "noise" (what the heads think that error is), "error_over_noise" (of these
        two)}. Spread, error and noise are root mean squares over requests, in units of reward. The noise is a single
        head's: of H heads that err independently error_over_noise is 1 / sqrt(H), of heads that err alike it has no
        bound. None where there is nothing to measure on.
    """
    guess_RG = heads_RHG.mean(axis=1, dtype=np.float64)
    ordered_R = np.array([metrics.rank_correlation(*pair) for pair in zip(guess_RG, true_RG, strict=True)])
    known_R = ordered_R[~np.isnan(ordered_R)]
    noise_R = reward_noise(torch.from_numpy(heads_RHG).transpose(0, 1)).double().numpy()
    noise, error = float(np.sqrt((noise_R**2).mean())), _within(guess_RG - true_RG)
    return {
        "rank_correlation": float(known_R.mean()) if len(known_R) else None,
        "bias": float((guess_RG - true_RG).mean()),
        "spread": _within(true_RG),
        "gap_error": error,
        "noise": noise,
        "error_over_noise": error / noise if noise else None,
    }


def _within(values_RG: np.ndarray) -> float:
    """Root mean square over requests of the standard deviation (ddof 0) over a request's lists."""
    return float(np.sqrt(values_RG.var(axis=1).mean()))
