"""Training and measuring the reward model.

Where a ranker chose what was shown, only logged lists teach: of other lists nobody knows the feedback. Where the user
chose (schema.SELF_SELECTED), the candidates not taken count as 0 and any list may be made of them (equal
supervision): each step partitions a request's candidates into lists, so every candidate is labelled once. Partitions
follow the next-item score plus noise, never the label: lists of plausible items are common, as they will be in groups,
yet what else is in a list says nothing about an item's label beyond what the features say.

Legend: B requests, G lists, L positions, N candidates, H ensemble heads, E examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from goalrank import metrics
from goalrank.dataset import Feedback, TrainingSet
from goalrank.encoders import Encoded
from goalrank.errors import DataRefused, ModelRefused
from goalrank.presets import Preset
from goalrank.pretrain import SHARED_PARTS, Best
from goalrank.reward import RewardModel, reward_noise
from goalrank.schema import LIST_LENGTH, RewardWeights

Progress = Callable[[int, int], None]

HELD_OUT_SHARE = 0.1
HELD_OUT_LIMIT = 640
"""Requests measured on while training, and to choose the step that is kept."""
CURVE_POINTS = 10
PRETRAINED_RATE = 0.1
"""Learning rate of the pretrained parts, as a share of the others': the next item taught them more than clicks will."""
WARM_UP_SHARE = 0.05
PARTITION_SHARPNESS = 2.0
"""How much the next-item score counts against unit noise in half of the partitions; the other half is random."""
MEASURED_LISTS = 8
"""Random lists a request whose spread of rewards the noise is compared with."""


@dataclass
class LabelledLists:
    """Lists and what is known of their feedback; all [B, G, L]."""

    lists: Tensor  # candidate indices, -1 = none
    click: Tensor
    like: Tensor
    minutes: Tensor  # NaN where unknown


def train(
    model: RewardModel,
    training_set: TrainingSet,
    indices: np.ndarray,
    preset: Preset,
    seed: int,
    progress: Progress | None = None,
    *,
    steps: int | None = None,
    device: torch.device | str = "cpu",
) -> dict:
    """Train a reward model in place for all its steps; the weights of the best held-out loss are kept.

    It does not end early: at its highest the learning rate makes the held-out loss wander, and what a model becomes
    shows only when the rate has fallen (docs/experiments.md, "A guide that stopped too early").

    AdamW, betas (0.9, 0.98) and clip 5 as in the authors' public code; warm-up and cosine decay are ours. Each head
    sees every request with a Poisson(1) weight of its own, the online bootstrap (Oza and Russell, 2001).

    Args:
        model: fresh or with a pretrained encoder; ends in evaluation mode on the CPU.
        training_set: where features and feedback come from.
        indices: requests to learn from; a tenth of them, drawn by seed, is only measured on.
        preset: learning rate, batch size, `reward_steps`.
        seed: of batches, bootstrap weights, partitions and dropout.
        progress: told (steps done, steps in all).
        steps: instead of the preset's.
        device: where to train.

    Returns:
        {"steps", "best_step", "requests", "held_out", "curves": {"loss", "held_out_loss"}, each [[step,
        value], ...], and everything :func:`measure` returns on the held-out requests}.

    Raises:
        DataRefused: fewer than two requests.
        ModelRefused: a loss is not finite.
    """
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    steps = steps or preset.reward_steps
    learning, held_out = split(np.asarray(indices), seed)
    feedback = training_set.feedback(learning)
    _start_from_base_rates(model, feedback)
    weight_EH = torch.poisson(torch.ones(len(learning), model.sizes.reward_heads), generator=chance)
    model.to(device).train()
    optimizer = torch.optim.AdamW(_rates(model, preset.learning_rate), betas=(0.9, 0.98), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    size = min(preset.batch_requests, len(learning))
    order, at = torch.randperm(len(learning), generator=chance), 0
    every = max(1, steps // CURVE_POINTS)
    curves: dict[str, list] = {"loss": [], "held_out_loss": []}
    kept, total = Best(), 0.0
    for step in range(1, steps + 1):
        if at + size > len(order):
            order, at = torch.randperm(len(learning), generator=chance), 0
        chosen, at = order[at : at + size], at + size
        rows = learning[chosen.numpy()]
        encoded = model.encode(training_set.batch(rows).to(device))
        labelled = label_lists(encoded, training_set.feedback(rows).to(device), chance)
        loss = _loss(model, encoded, labelled, weight_EH[chosen].T.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise ModelRefused(
                f"reward loss {value}, gradient norm {float(norm)} at step {step}, expected finite numbers; "
                "lower the learning rate or look for broken features"
            )
        optimizer.step()
        schedule.step()
        total += value
        if step % every == 0 or step == steps:
            held_out_loss = _held_out_loss(model, training_set, held_out[:HELD_OUT_LIMIT], seed, size)
            curves["loss"].append([step, total / ((step - 1) % every + 1)])
            curves["held_out_loss"].append([step, held_out_loss])
            total = 0.0
            kept.improves(step, held_out_loss, model)
        if progress:
            progress(step, steps)
    kept.restore(model)
    model.to("cpu").eval()
    figures = {"steps": step, "best_step": kept.step, "requests": len(learning), "held_out": len(held_out)}
    return {**figures, "curves": curves, **measure(model, training_set, held_out, seed, size)}


def split(indices: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Requests to learn from and held-out ones, the latter at least one; both in a drawn order.

    Raises:
        DataRefused: fewer than two requests.
    """
    if len(indices) < 2:
        raise DataRefused(
            f"{len(indices)} requests found to learn a reward from, expected 2 or more; read more days of logs"
        )
    drawn = np.random.default_rng(seed).permutation(indices)
    count = max(1, int(len(drawn) * HELD_OUT_SHARE))
    return drawn[count:], drawn[:count]


def label_lists(encoded: Encoded, feedback: Feedback, chance: torch.Generator) -> LabelledLists:
    """Lists with known feedback: the logged one [B, 1, L], or a partition of self-selected candidates [B, G, L].

    Args:
        encoded: of the same requests; only mask and next-item score are read.
        feedback: of the same requests.
        chance: a generator on the CPU, for partitions.
    """
    minutes_BL = feedback.watch_seconds_BL / 60
    if not feedback.self_selected_B.any():
        one = slice(None), None
        return LabelledLists(feedback.slate_BL[one], feedback.click_BL[one], feedback.like_BL[one], minutes_BL[one])
    B, N = encoded.mask_BN.shape
    length = max(feedback.slate_BL.shape[1], 1)
    groups = -(-N // length)
    partition_BGL = _partition(encoded, groups, length, chance)
    logged_BGL = torch.full_like(partition_BGL, -1)
    logged_BGL[:, 0] = feedback.slate_BL
    lists_BGL = torch.where(feedback.self_selected_B[:, None, None], partition_BGL, logged_BGL)
    flat = lists_BGL.flatten(1).clamp(min=0)

    def spread(values_BL: Tensor, fill: float) -> Tensor:
        # One place too many takes what padding writes.
        over_candidates = torch.full((B, N + 1), fill, device=values_BL.device)
        over_candidates.scatter_(1, torch.where(feedback.mask_BL, feedback.slate_BL, N), values_BL)
        return over_candidates.gather(1, flat).view_as(lists_BGL)

    return LabelledLists(
        lists_BGL, spread(feedback.click_BL, 0.0), spread(feedback.like_BL, 0.0), spread(minutes_BL, math.nan)
    )


@torch.no_grad()
def measure(model: RewardModel, training_set: TrainingSet, indices: np.ndarray, seed: int, size: int = 128) -> dict:
    """How well calibrated and ordered a reward model is on requests it was not trained on.

    Returns:
        {"auc", "auc_by_position", "calibration_error" (expected, of clicks), "reliability" (metrics.reliability of
        clicks), "like_auc", "rank_correlation" (Spearman, predicted and logged list reward), "reward_predicted",
        "reward_logged" (means), "noise" (reward_noise, mean over requests), "spread" (standard deviation, ddof 0, over
        random lists of one request, mean over requests), "lists"}; None where there is nothing to measure on.
    """
    model.eval()
    chance = torch.Generator().manual_seed(seed)
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(indices), size):
        rows = indices[start : start + size]
        encoded = model.encode(training_set.batch(rows))
        labelled = label_lists(encoded, training_set.feedback(rows), chance)
        click_BGL, like_BGL, _ = (part.mean(dim=0) for part in model.predict(encoded, labelled.lists))
        real_BGL = labelled.lists >= 0
        real_BG = real_BGL.any(dim=-1)
        position_BGL = torch.arange(real_BGL.shape[-1]).expand_as(real_BGL)
        rewards_HBG = model.score_lists(encoded, _random_lists(encoded.mask_BN, chance))
        pieces = {
            "click": click_BGL[real_BGL],
            "clicked": labelled.click[real_BGL],
            "like": like_BGL[real_BGL],
            "liked": labelled.like[real_BGL],
            "position": position_BGL[real_BGL],
            "reward": model.reward(encoded, labelled.lists)[real_BG],
            "earned": logged_reward(labelled, model.weights)[real_BG],
            "noise": reward_noise(rewards_HBG),
            "spread": rewards_HBG.mean(dim=0).std(dim=-1, correction=0),
        }
        for name, piece in pieces.items():
            found.setdefault(name, []).append(piece.numpy())
    all_of = {name: np.concatenate(pieces) for name, pieces in found.items()}
    table = metrics.reliability(all_of["click"], all_of["clicked"])
    at = [all_of["position"] == position for position in range(int(all_of["position"].max()) + 1)]
    return {
        "auc": _known(metrics.binary_auc(all_of["click"], all_of["clicked"])),
        "auc_by_position": [_known(metrics.binary_auc(all_of["click"][here], all_of["clicked"][here])) for here in at],
        "like_auc": _known(metrics.binary_auc(all_of["like"], all_of["liked"])),
        "calibration_error": _known(metrics.calibration_error(table)),
        "reliability": table,
        "rank_correlation": _known(metrics.rank_correlation(all_of["reward"], all_of["earned"])),
        "reward_predicted": _known(float(all_of["reward"].mean())),
        "reward_logged": _known(float(all_of["earned"].mean())),
        "noise": _known(float(all_of["noise"].mean())),
        "spread": _known(float(all_of["spread"].mean())),
        "lists": len(all_of["reward"]),
    }


def logged_reward(labelled: LabelledLists, weights: RewardWeights) -> Tensor:
    """Reward [B, G] of logged feedback; unknown watch time counts 0."""
    return place_gains(labelled, weights).sum(dim=-1)


def place_gains(labelled: LabelledLists, weights: RewardWeights) -> Tensor:
    """What each place of each list earned [B, G, L], 0 where there is no item; unknown watch time counts 0."""
    minutes = labelled.minutes.nan_to_num(nan=0.0)
    value = weights.click * labelled.click + weights.like * labelled.like + weights.watch_minute * minutes
    return value * (labelled.lists >= 0)


def _loss(model: RewardModel, encoded: Encoded, labelled: LabelledLists, weight_HB: Tensor) -> Tensor:
    """Per position: cross-entropy of click and like, Poisson likelihood of minutes, weighted as the reward weighs them.

    The Poisson likelihood makes the output the MEAN of the minutes whatever their distribution; squared error on
    log-minutes would aim below it.
    """
    outputs_HBGLO = model.outputs(encoded, labelled.lists)
    real_BGL = labelled.lists >= 0
    known_BGL = real_BGL & ~labelled.minutes.isnan()
    click, like, minutes = outputs_HBGLO.unbind(dim=-1)
    worth = model.weights
    targets = (labelled.click.expand_as(click), labelled.like.expand_as(like))
    loss_HBGL = worth.click * functional.binary_cross_entropy_with_logits(click, targets[0], reduction="none")
    loss_HBGL = loss_HBGL + worth.like * functional.binary_cross_entropy_with_logits(like, targets[1], reduction="none")
    watched = labelled.minutes.nan_to_num(nan=0.0).expand_as(minutes)
    poisson = functional.poisson_nll_loss(minutes.clamp(-8.0, 6.0), watched, reduction="none") * known_BGL
    loss_HB = ((loss_HBGL + worth.watch_minute * poisson) * real_BGL).sum(dim=(2, 3))
    positions_B = real_BGL.sum(dim=(1, 2))
    return (loss_HB * weight_HB).sum() / (positions_B * weight_HB).sum().clamp(min=1.0)


@torch.no_grad()
def _held_out_loss(model: RewardModel, training_set: TrainingSet, indices: np.ndarray, seed: int, size: int) -> float:
    """Mean loss of all heads over held-out requests, on the same lists each time."""
    device = next(model.parameters()).device
    chance = torch.Generator().manual_seed(seed + 1)
    model.eval()
    total = 0.0
    for start in range(0, len(indices), size):
        rows = indices[start : start + size]
        encoded = model.encode(training_set.batch(rows).to(device))
        labelled = label_lists(encoded, training_set.feedback(rows).to(device), chance)
        everyone = torch.ones(model.sizes.reward_heads, len(rows), device=device)
        total += float(_loss(model, encoded, labelled, everyone)) * len(rows)
    model.train()
    return total / len(indices)


@torch.no_grad()
def _start_from_base_rates(model: RewardModel, feedback: Feedback) -> None:
    """Set the outputs' biases to the logged rates, and say whether watch time is known at all."""
    shown = feedback.mask_BL
    rates = [float(values[shown].mean().clamp(1e-3, 1 - 1e-3)) for values in (feedback.click_BL, feedback.like_BL)]
    minutes = feedback.watch_seconds_BL[~feedback.watch_seconds_BL.isnan()] / 60
    model.watch_known.fill_(float(len(minutes) > 0))
    mean_minutes = float(minutes.mean().clamp(min=1e-3)) if len(minutes) else 1.0
    biases = [math.log(rate / (1 - rate)) for rate in rates] + [math.log(mean_minutes)]
    model.head_bias_HO.copy_(torch.tensor(biases).expand_as(model.head_bias_HO))


def _partition(encoded: Encoded, groups: int, length: int, chance: torch.Generator) -> Tensor:
    """All real candidates dealt into lists [B, groups, length], each once; the last list of a request may be short."""
    B, N = encoded.mask_BN.shape
    sharpness_B1 = PARTITION_SHARPNESS * torch.randint(2, (B, 1), generator=chance)
    key_BN = torch.randn(B, N, generator=chance).to(encoded.mask_BN.device)
    key_BN = key_BN + sharpness_B1.to(key_BN.device) * encoded.match_BN.detach()
    order_BN = key_BN.masked_fill(~encoded.mask_BN, -math.inf).argsort(dim=1, descending=True, stable=True)
    order_BN = torch.where(encoded.mask_BN.gather(1, order_BN), order_BN, -1)
    dealt_BGL = functional.pad(order_BN, (0, groups * length - N), value=-1).view(B, groups, length)
    # Shuffled within each list, or a position would tell how plausible its item is; padding stays at the end.
    shuffle = torch.rand(dealt_BGL.shape, generator=chance).to(dealt_BGL.device) + (dealt_BGL < 0)
    return dealt_BGL.gather(2, shuffle.argsort(dim=2))


def _random_lists(mask_BN: Tensor, chance: torch.Generator) -> Tensor:
    """MEASURED_LISTS uniformly random lists of each request's candidates."""
    key = torch.rand(len(mask_BN), MEASURED_LISTS, mask_BN.shape[1], generator=chance) - 2.0 * ~mask_BN[:, None]
    lists_BGL = key.argsort(dim=-1, descending=True)[..., :LIST_LENGTH]
    real_BGL = mask_BN[:, None].expand(-1, MEASURED_LISTS, -1).gather(2, lists_BGL)
    return torch.where(real_BGL, lists_BGL, -1)


def _rates(model: RewardModel, rate: float) -> list[dict]:
    """Parameter groups: the pretrained parts learn more slowly."""
    shared = tuple(f"encoder.{part}" for part in SHARED_PARTS)
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, weight in model.named_parameters():
        groups[name.startswith(shared)].append(weight)
    return [{"params": groups[False], "lr": rate}, {"params": groups[True], "lr": rate * PRETRAINED_RATE}]


def _rate(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a cosine to a tenth."""
    warm_up = max(1, int(steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _known(value: float) -> float | None:
    """NaN (nothing to measure on) as None, which JSON can hold."""
    return None if math.isnan(value) else value
