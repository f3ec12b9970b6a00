"""Long search of the list a reward model likes best: local search from several starts.

What a policy could reach by obeying its guide to the letter. It is not the guide's true optimum (of P(50, 6) lists
nobody can know it), but no neighbour of what is found is liked better, a neighbour being a list with the item of one
place replaced by another candidate, or swapped with it where the list holds it already.

Shapes: B requests, S starts, N candidates, L positions, R all requests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.devices import device_of
from goalrank.dataset import RequestBatch, TrainingSet
from goalrank.encoders import Encoded
from goalrank.policies import PERTURBATION_TEMPERATURE, gumbel, top_lists
from goalrank.reward import RewardModel

STARTS = 4
"""The order by the model's opinion of single items, the retriever's, and draws around the former."""
SWEEPS = 8
"""Over all places; a sweep that changes nothing ends the search."""
_REQUESTS_AT_ONCE = 32


@torch.inference_mode()
def long_search(
    model: RewardModel,
    data: TrainingSet,
    rows_R: np.ndarray,
    length: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best lists found and what the model expects of them.

    Args:
        model: in evaluation mode.
        data: holds the requests, each with at least `length` candidates.
        rows_R: which requests.
        length: L.
        seed: of the drawn starts.
        progress: told (requests done, requests in all).

    Returns:
        lists_RL (int64 candidate indices) and reward_R.
    """
    chance = torch.Generator().manual_seed(seed)
    device = device_of(model)
    lists, rewards = [], []
    for begin in range(0, len(rows_R), _REQUESTS_AT_ONCE):
        batch = data.batch(rows_R[begin : begin + _REQUESTS_AT_ONCE]).to(device)
        encoded = model.encode(batch)
        lists_BSL, reward_BS = climb(model, encoded, starts(model, encoded, batch, length, chance))
        best_B = reward_BS.argmax(dim=1)
        at_B = torch.arange(len(best_B), device=device)
        lists.append(lists_BSL[at_B, best_B].cpu().numpy())
        rewards.append(reward_BS[at_B, best_B].cpu().numpy())
        if progress is not None:
            progress(min(begin + _REQUESTS_AT_ONCE, len(rows_R)), len(rows_R))
    return np.concatenate(lists), np.concatenate(rewards)


def starts(model: RewardModel, encoded: Encoded, batch: RequestBatch, length: int, chance: torch.Generator) -> Tensor:
    """lists_BSL to climb from."""
    B, N = batch.mask_BN.shape
    device = batch.mask_BN.device
    single_BN = model.reward(encoded, torch.arange(N, device=device).expand(B, N)[..., None])
    spread_B1 = single_BN.masked_fill(~batch.mask_BN, 0.0).std(dim=1, keepdim=True).clamp_min(1e-6)
    made = [top_lists(single_BN, batch.mask_BN, length), top_lists(batch.score_BN, batch.mask_BN, length)]
    for _ in range(STARTS - len(made)):
        noisy_BN = single_BN / (spread_B1 * PERTURBATION_TEMPERATURE) + gumbel((B, N), chance, device)
        made.append(top_lists(noisy_BN, batch.mask_BN, length))
    return torch.stack(made, dim=1)


def climb(model: RewardModel, encoded: Encoded, lists_BSL: Tensor) -> tuple[Tensor, Tensor]:
    """Take the best neighbour at each place in turn, until a whole sweep finds none: lists_BSL and reward_BS."""
    B, S, L = lists_BSL.shape
    N = encoded.mask_BN.shape[1]
    reward_BS = model.reward(encoded, lists_BSL)
    newcomer_N = torch.arange(N, device=lists_BSL.device)
    for _ in range(SWEEPS):
        before_BS = reward_BS
        for place in range(L):
            others_BSNL = lists_BSL[:, :, None].expand(B, S, N, L)
            held_BSNL = others_BSNL == newcomer_N[:, None]
            # Where the newcomer stands already comes the item it drives out.
            others_BSNL = torch.where(held_BSNL, lists_BSL[:, :, None, place, None], others_BSNL).clone()
            others_BSNL[..., place] = newcomer_N
            found_BSN = model.reward(encoded, others_BSNL.flatten(1, 2)).view(B, S, N)
            found_BSN = found_BSN.masked_fill(~encoded.mask_BN[:, None], -torch.inf)
            best_BS = found_BSN.argmax(dim=2)
            value_BS = found_BSN.gather(2, best_BS[..., None]).squeeze(2)
            better_BS = value_BS > reward_BS + 1e-6
            chosen_BSL = others_BSNL.gather(2, best_BS[..., None, None].expand(B, S, 1, L)).squeeze(2)
            lists_BSL = torch.where(better_BS[..., None], chosen_BSL, lists_BSL)
            reward_BS = torch.where(better_BS, value_BS, reward_BS)
        if torch.equal(before_BS, reward_BS):
            break
    return lists_BSL, reward_BS
