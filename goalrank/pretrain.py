"""Next-item pretraining of the history encoder and the item embedding (docs/method.md, offline protocol).

Reads users' histories as they stood before the last training day at the latest: nothing of the evaluation day is in
them. Reward model and ranker both start from the result.

Legend: U users, H history items, C catalogue items, P predicted places, K negatives, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes, RequestEncoder, mask_bits
from goalrank.errors import DataRefused, ModelRefused
from goalrank.presets import Preset

Progress = Callable[[int, int], None]

PLACES = 1024
"""P: places predicted a step, drawn from the batch's histories."""
NEGATIVES = 512
"""K: items a place's next item is told from, the same for all places of a step."""
HELD_OUT_EVERY = 10
"""One user in so many is only measured on."""
CURVE_POINTS = 15
PATIENCE = 4
"""Measurements without a better held-out loss after which pretraining ends."""

SHARED_PARTS = ("items.", "history.", "no_history")
"""Names of the request encoder's weights that pretraining makes."""


class Best:
    """Keeps the weights of the lowest loss measured, and says when to give up on a lower one; by default never."""

    def __init__(self, patience: float = math.inf) -> None:
        self.patience, self.loss, self.step = patience, math.inf, 0
        self._weights: dict[str, Tensor] = {}
        self._worse = 0

    def improves(self, step: int, loss: float, model: nn.Module) -> bool:
        """Take note of a measurement; False once `patience` of them in a row were no better."""
        if loss < self.loss:
            self.loss, self.step, self._worse = loss, step, 0
            self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        else:
            self._worse += 1
        return self._worse < self.patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back.

        Raises:
            ModelRefused: no loss was finite.
        """
        if not self._weights:
            raise ModelRefused("no measured loss was finite, expected at least one; look for broken features")
        model.load_state_dict(self._weights)


@dataclass
class Histories:
    """Right-padded histories and the catalogue of all items in them."""

    items_UH: Tensor
    topics_UH: Tensor
    catalogue_C: Tensor  # ids
    catalogue_topics_C: Tensor
    codes_UH: Tensor  # index into the catalogue, -1 where padded
    share_C: Tensor  # of all clicks


def training_histories(training_set: TrainingSet) -> Histories:
    """The newest history of each user among the rows of the training days, of users with at least two clicks.

    Raises:
        DataRefused: no user has two clicks.
    """
    before = training_set.dt_E < training_set.date
    rows = np.unique(training_set.user_row_E[before])
    rows = rows[np.lexsort((training_set.user_as_of_U[rows], training_set.user_id_U[rows]))]
    users = training_set.user_id_U[rows]
    newest = rows[np.append(users[1:] != users[:-1], True)] if len(rows) else rows
    items_UH = training_set.users.history_items_UH[newest]
    enough = (items_UH != 0).sum(axis=1) >= 2
    if not enough.any():
        raise DataRefused("no user of the training days has two clicks; the history encoder has nothing to learn from")
    return histories_of(items_UH[enough], training_set.users.history_topics_UH[newest][enough])


def histories_of(items_UH: np.ndarray, topics_UH: np.ndarray) -> Histories:
    """Right-padded histories (items 0 where padded, and the items' topic masks) with the catalogue of what is in them.

    There is at least one, and each holds at least two items.
    """
    real_UH = items_UH != 0
    catalogue, at, codes, counts = np.unique(
        items_UH[real_UH], return_index=True, return_inverse=True, return_counts=True
    )
    codes_UH = np.full(items_UH.shape, -1)
    codes_UH[real_UH] = codes
    return Histories(
        items_UH=torch.from_numpy(items_UH),
        topics_UH=torch.from_numpy(topics_UH),
        catalogue_C=torch.from_numpy(catalogue),
        catalogue_topics_C=torch.from_numpy(topics_UH[real_UH][at]),
        codes_UH=torch.from_numpy(codes_UH),
        share_C=torch.from_numpy((counts / counts.sum()).astype(np.float32)),
    )


def pretrain(
    training_set: TrainingSet,
    preset: Preset,
    seed: int,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> tuple[RequestEncoder, dict]:
    """Train a fresh request encoder's item and history parts on the next item.

    Args:
        training_set: only its training days are read.
        preset: sizes and `pretrain_steps`.
        seed: of weights, users, places and negatives.
        progress: told (steps done, steps in all).
        device: where to train; the encoder comes back on the CPU.

    Returns:
        The encoder of the best held-out loss (its other parts untrained) and {"steps", "best_step", "users", "items",
        "curves": {"loss", "held_out_loss", "held_out_rank"}, each [[step, value], ...]}: nats over the sampled
        softmax, rank the mean share of random catalogue items that score above the true next one (chance: 0.5).

    Raises:
        DataRefused: no history to learn from.
        ModelRefused: the loss is not finite.
    """
    return pretrain_on(training_histories(training_set), preset, seed, progress, device)


def pretrain_on(
    histories: Histories,
    preset: Preset,
    seed: int,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
    places: int = PLACES,
) -> tuple[RequestEncoder, dict]:
    """:func:`pretrain` on histories from elsewhere; `places` of them are predicted a step."""
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    encoder = RequestEncoder(ModelSizes.from_preset(preset)).to(device).train()
    parts = [weight for name, weight in encoder.named_parameters() if name.startswith(SHARED_PARTS)]
    optimizer = torch.optim.AdamW(parts, lr=2 * preset.learning_rate, betas=(0.9, 0.98), weight_decay=1e-2)
    users = torch.randperm(len(histories.items_UH), generator=chance)
    held_out = users[: len(users) // HELD_OUT_EVERY]
    learning = users[len(held_out) :]
    curves: dict[str, list] = {}
    every = max(1, preset.pretrain_steps // CURVE_POINTS)
    total = 0.0
    kept = Best(PATIENCE)
    for step in range(1, preset.pretrain_steps + 1):
        at = torch.randint(len(learning), (min(preset.batch_requests, len(learning)),), generator=chance)
        loss, _ = _next_item_loss(encoder, histories, learning[at], chance, device, places)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts, 5.0)
        optimizer.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise ModelRefused(f"next-item loss is {value} at step {step}, expected a finite number; lower the rate")
        total += value
        if step % every == 0 or step == preset.pretrain_steps:
            measured = {"loss": total / ((step - 1) % every + 1)}
            measured |= _measure(encoder, histories, held_out, seed, device, places)
            for name, figure in measured.items():
                curves.setdefault(name, []).append([step, figure])
            total = 0.0
            if not kept.improves(step, measured.get("held_out_loss", measured["loss"]), encoder):
                break
        if progress:
            progress(step, preset.pretrain_steps)
    kept.restore(encoder)
    if progress:
        progress(preset.pretrain_steps, preset.pretrain_steps)
    figures = {
        "steps": step,
        "best_step": kept.step,
        "users": len(histories.items_UH),
        "items": len(histories.catalogue_C),
        "curves": curves,
    }
    return encoder.cpu().eval(), figures


def copy_pretrained(source: RequestEncoder, target: RequestEncoder) -> None:
    """Give `target` the pretrained parts of `source`; the rest of it stays as it is.

    Raises:
        ModelRefused: the two differ in size.
    """
    shared = {name: tensor for name, tensor in source.state_dict().items() if name.startswith(SHARED_PARTS)}
    try:
        missing, unknown = target.load_state_dict(shared, strict=False)
    except RuntimeError as error:
        raise ModelRefused(f"the pretrained encoder does not fit: {error}; use the same preset for both") from error
    missing = [name for name in missing if name.startswith(SHARED_PARTS)]
    if missing or unknown:
        raise ModelRefused(f"the pretrained encoder lacks {missing} and has no place for {list(unknown)}; same preset?")


def _next_item_loss(
    encoder: RequestEncoder,
    histories: Histories,
    users: Tensor,
    chance: torch.Generator,
    device: torch.device | str,
    wanted: int,
) -> tuple[Tensor, Tensor]:
    """Sampled-softmax loss over drawn places, and the share of uniformly drawn items that beat each true one [P].

    Negatives come half from all items alike, half by popularity; the logits are corrected for it, so that the softmax
    estimates the one over the whole catalogue (sampled softmax, Jean et al., arXiv 1412.2007).
    """
    codes_UH = histories.codes_UH[users]
    length = int((codes_UH >= 0).sum(dim=1).max())
    items_UH, topics_UH = histories.items_UH[users, :length], histories.topics_UH[users, :length]
    states_UHD, _, _ = encoder.encode_history(items_UH.to(device), topics_UH.to(device))
    places = (codes_UH[:, 1:length] >= 0).nonzero()
    places = places[torch.randperm(len(places), generator=chance)[:wanted]]
    target_P = codes_UH[places[:, 0], places[:, 1] + 1]
    catalogue = len(histories.catalogue_C)
    uniform_K = torch.randint(catalogue, (NEGATIVES // 2,), generator=chance)
    popular_K = torch.multinomial(histories.share_C, NEGATIVES // 2, replacement=True, generator=chance)
    negative_K = torch.cat([uniform_K, popular_K])
    log_chance_C = (0.5 / catalogue + 0.5 * histories.share_C).log()
    state_PD = states_UHD[places[:, 0].to(device), places[:, 1].to(device)]
    true_P = (state_PD * _items(encoder, histories, target_P, device)).sum(-1)
    other_PK = state_PD @ _items(encoder, histories, negative_K, device).T
    same_PK = (negative_K == target_P[:, None]).to(device)
    with torch.no_grad():
        beaten_PK = (other_PK > true_P[:, None]) & ~same_PK
        beaten_P = beaten_PK[:, : NEGATIVES // 2].float().mean(dim=1)
    other_PK = other_PK - log_chance_C[negative_K].to(device)
    true_P = true_P - log_chance_C[target_P].to(device)
    logits = torch.cat([true_P[:, None], other_PK.masked_fill(same_PK, -1e9)], dim=1)
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=device)), beaten_P


def _items(encoder: RequestEncoder, histories: Histories, codes: Tensor, device: torch.device | str) -> Tensor:
    ids, topics = histories.catalogue_C[codes], histories.catalogue_topics_C[codes]
    return encoder.items(ids.to(device), mask_bits(topics.to(device)))


@torch.no_grad()
def _measure(
    encoder: RequestEncoder, histories: Histories, users: Tensor, seed: int, device: torch.device | str, places: int
) -> dict:
    """Loss and rank on held-out users, with the same places and negatives each time."""
    if not len(users):
        return {}
    encoder.eval()
    chance = torch.Generator().manual_seed(seed + 1)
    loss, beaten_P = _next_item_loss(encoder, histories, users[:256], chance, device, places)
    encoder.train()
    return {"held_out_loss": float(loss), "held_out_rank": float(beaten_P.mean())}
