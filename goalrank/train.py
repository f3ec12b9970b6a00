"""Training the ranker: groups of on-policy and helper lists, scored by the frozen reward model, aligned by the
group-relative objective (docs/method.md, "Training, three steps").

Every random number of a step is derived from (seed, step) and every batch from (seed, epoch), so a run that was killed
and resumed from a checkpoint ends with the very weights of an undisturbed one. Where own lists come from an earlier
ranker (Preset.refresh), that ranker is part of the checkpoint and a request's numbers are derived from (seed, period,
request): within a period it gets the same lists again. Several processes, or several passes a
step (goalrank/execution.py), draw for the whole batch and use their share, so they train on the very same lists.

Legend: B requests, G lists in a group (helpers first, then on-policy), L list length, H heads of the reward ensemble.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goalrank.checkpoint import Checkpoint, Checkpoints, pack_training, unpack_training
from goalrank.dataset import Feedback, RequestBatch, TrainingSet
from goalrank.decoding import Draws
from goalrank.dropout import drawn_for
from goalrank.encoders import ModelSizes
from goalrank.errors import DataRefused, ModelRefused, TryAgain, UsageError
from goalrank.execution import Execution
from goalrank.groups import Groups
from goalrank.objective import (
    ObjectiveConfig,
    first_occurrence,
    group_noise,
    group_relative_loss,
    group_std,
    signal_weights,
    supervised_loss,
    with_matched_temperature,
)
from goalrank.presets import EVERY_STEP, NEVER, Preset
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.same_start import require_same, require_same_start, weights_digest
from goalrank.schedule import OWN, START, STEP, Share, batch_rows, derived_seed, rate_share
from goalrank.schema import LIST_LENGTH, RewardWeights
from goalrank.warm_start import require_sizes

# The authors' public code (docs/method.md): Adam lr 1e-4, betas (0.9, 0.98), weight decay 1e-3, eps 1e-6, clip 5.
# Learning rate and batch come from the preset (ours train for far fewer steps), with warm-up and cosine decay.
BETAS = (0.9, 0.98)
EPSILON = 1e-6
WEIGHT_DECAY = 1e-3
CLIP_NORM = 5.0

CURVE_POINTS = 60
CURVES = ("loss", "on_policy_reward", "helper_reward", "group_std", "group_noise", "signal_weight", "duplicates",
          "entropy", "gradient_norm")  # fmt: skip
"""What is recorded while training, each point a mean over the steps since the last. `entropy` is estimated from the
on-policy lists, in nats a list; where they are not drawn anew at every step it is a cross-entropy."""

OF_OWN_LISTS, OF_HELPERS = ("on_policy_reward", "entropy"), ("helper_reward",)
"""Curves that have no point where groups have no such list."""

_SOURCE = "own_lists"  # what the ranker that own lists come from is called in a checkpoint


@dataclass
class Curves:
    """[[step, mean over the steps since the last point], ...] of each of CURVES; its state is part of a checkpoint."""

    every: int
    points: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in CURVES})
    pending: list[list[float]] = field(default_factory=list)

    def add(self, step: int, values: list[float], last: bool) -> None:
        """Take in one step's values, in the order of CURVES; `step` counts from 1."""
        self.pending.append(values)
        if step % self.every == 0 or last:
            for name, mean in zip(CURVES, np.mean(self.pending, axis=0), strict=True):
                self.points[name].append([step, float(mean)])
            self.pending = []


@dataclass
class TrainedRanker:
    """A trained ranker (evaluation mode) and how its training went."""

    ranker: Ranker
    curves: dict[str, list[list[float]]]  # [[step, value], ...] of each of CURVES
    resumed_from: int  # step; 0: from the start
    damaged_checkpoints: list[str]  # files passed over when looking for one to resume from
    objective: ObjectiveConfig  # as trained with: a temperature that had to be matched is found


def train_ranker(
    training_set: TrainingSet,
    groups: Groups,
    reward_model: RewardModel,
    preset: Preset,
    seed: int,
    *,
    objective: ObjectiveConfig | None = None,
    length: int = LIST_LENGTH,
    checkpoints: Checkpoints | None = None,
    fingerprint: dict[str, Any] | None = None,
    execution: Execution | None = None,
    warm_start: Ranker | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    asked_to_stop: Callable[[], bool] | None = None,
    watch: Callable[[int, Ranker], None] | None = None,
) -> TrainedRanker:
    """Train a ranker on the requests of `groups`, or go on where a checkpoint of the same run left off.

    Of several processes each is called with the same arguments and gets the same ranker; the first alone writes
    checkpoints, reports progress and watches.

    Args:
        reward_model: frozen; the ranker starts from its encoder's weights.
        checkpoints: where to keep and look for checkpoints; None keeps none.
        fingerprint: what makes this run this run (snapshot, configuration, digests of its inputs). A checkpoint with
            another one is of another run and not used.
        execution: processes, passes a step, precision. A checkpoint may be gone on with by more or fewer processes or
            passes, not in another precision.
        warm_start: a trained ranker to begin with, encoder and decoder (goalrank/warm_start.py reads one); tell it by
            its digest in `fingerprint`. It is left as it is.
        progress: called after each step with (steps done, steps in all, a note).
        asked_to_stop: asked after each step; once any process says yes, a checkpoint is written and training ends.
        watch: shown the ranker, in evaluation mode, after each step with the steps done; it must leave it as it is.

    Raises:
        DataRefused: there is no group.
        ModelRefused: loss, gradient or a weight is not finite, or the ranker to begin with has another architecture.
        TryAgain: it was asked to stop, or another process is gone.
        UsageError: no temperature makes these groups as sharp as the objective asks, groups have fewer than two lists,
            a step has fewer requests than there are processes, or a process begins with something else than the
            others (goalrank/same_start.py).
    """
    if preset.on_policy_lists + groups.lists_RGL.shape[1] < 2:
        raise UsageError("groups of fewer than two lists found, expected 2 or more: one list has no rival")
    if len(groups) == 0:
        raise DataRefused("the groups hold no request, expected at least one; run generate_groups again")
    objective, execution = objective or ObjectiveConfig(), execution or Execution()
    processes, device = execution.processes, execution.device
    # The preset by name and by what its steps are: a release may give the same name another course.
    course = [preset.ranker_steps, preset.batch_requests, preset.learning_rate, preset.on_policy_lists, preset.refresh]
    identity = {**(fingerprint or {}), "preset": preset.name, "course": course}
    identity |= {"seed": seed, "objective": objective.to_dict()}
    if execution.bf16:
        identity["bf16"] = True
    objective = _with_found_temperature(objective, groups, preset)
    steps = preset.ranker_steps
    curves = Curves(max(1, steps // CURVE_POINTS))
    begun = 0
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(derived_seed(seed, START, 0))
        ranker = new_ranker(preset, reward_model, warm_start).to(device)
        # Before a checkpoint is looked for: another run's are cleared there.
        require_same_start(processes, training_set, groups, reward_model, identity, ranker)
        initial = copy.deepcopy(ranker).eval() if objective.uses_initial_ranker else None
        earlier = preset.refresh != EVERY_STEP and preset.on_policy_lists > 0
        source = copy.deepcopy(ranker).eval() if earlier else None
        optimizer = torch.optim.AdamW(
            ranker.parameters(),
            lr=preset.learning_rate,
            betas=BETAS,
            eps=EPSILON,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        saved, damaged = _checkpoint_of(identity, checkpoints, execution)
        if saved is not None:
            unpack_training(saved, ranker, optimizer, {})
            if source is not None and preset.refresh != NEVER:
                source.load_state_dict(_part_of(saved, _SOURCE))
            curves = Curves(**saved.values["curves"])
            begun = saved.step
            require_same(processes, {"checkpoint": weights_digest(ranker)})
        lesson = _Lesson(
            training_set,
            groups,
            ranker,
            initial,
            source,
            reward_model.to(device).eval(),
            preset,
            objective,
            length,
            execution,
        )
        for step in range(begun, steps):
            if source is not None and preset.refresh != NEVER and step % preset.refresh == 0:
                source.load_state_dict(ranker.state_dict())
            for parameters in optimizer.param_groups:
                parameters["lr"] = preset.learning_rate * rate_share(step, steps)
            values = _train_step(lesson, optimizer, seed, step)
            done = step + 1
            curves.add(done, values, done == steps)
            stop = asked_to_stop is not None and processes.any(asked_to_stop()) and done < steps
            due = done % preset.checkpoint_every == 0 or stop
            if checkpoints is not None and due and done < steps and processes.first:
                tensors, state = pack_training(ranker, optimizer, {})
                if source is not None and preset.refresh != NEVER:
                    tensors |= {f"{_SOURCE}.{name}": weight for name, weight in source.state_dict().items()}
                checkpoints.save(done, tensors, {**state, "identity": identity, "curves": vars(curves)})
            if progress is not None and processes.first:
                own = f", reward of own lists {values[1]:.3f}" if preset.on_policy_lists else ""
                progress(done, steps, f"loss {values[0]:.3f}{own}")
            if watch is not None and processes.first:
                watch(done, ranker.eval())
            if stop:
                processes.wait()  # whoever ends first has torchrun end the others, the writing one too
                raise TryAgain(f"asked to stop after step {done} of {steps}; run the same command again to go on")
    for name, weight in ranker.named_parameters():
        if not torch.isfinite(weight).all():
            raise ModelRefused(f"weight {name} of the ranker is not finite after training; lower the learning rate")
    empty = {name for name in OF_OWN_LISTS if not preset.on_policy_lists}
    empty |= {name for name in OF_HELPERS if not groups.lists_RGL.shape[1]}
    points = {name: [] if name in empty else found for name, found in curves.points.items()}
    return TrainedRanker(ranker.eval(), points, begun, damaged, objective)


def _part_of(saved: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds under a name, by the rest of theirs."""
    begin = f"{name}."
    return {key.removeprefix(begin): tensor for key, tensor in saved.tensors.items() if key.startswith(begin)}


def _checkpoint_of(
    identity: dict[str, Any], checkpoints: Checkpoints | None, execution: Execution
) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, the first process's choice for all, and the files it passed over as damaged."""
    if checkpoints is None:
        return None, []
    processes = execution.processes
    saved = checkpoints.latest() if processes.first else None
    if saved is not None and saved.values["identity"] != identity:
        saved = None
    if saved is None and processes.first:
        checkpoints.clear()  # another run's: left there, a newer step would shadow this run's own
    if processes.count > 1:
        step = processes.agreed(saved.step if saved is not None else 0)
        if not processes.first and step:
            saved = checkpoints.at(step)
    return saved, list(checkpoints.damaged)


def new_ranker(preset: Preset, reward_model: RewardModel, warm_start: Ranker | None = None) -> Ranker:
    """A ranker of the preset's size whose encoder starts from the reward model's (pretrained on the next item, then
    trained on feedback) and its decoder from torch's random state; or all of it from another ranker's weights."""
    ranker = Ranker(ModelSizes.from_preset(preset))
    if warm_start is None:
        ranker.encoder.load_state_dict(reward_model.encoder.state_dict())
    else:
        require_sizes(warm_start, preset)
        ranker.load_state_dict(warm_start.state_dict())
    return ranker


def _with_found_temperature(objective: ObjectiveConfig, groups: Groups, preset: Preset) -> ObjectiveConfig:
    """The objective with its temperature found on the helpers' lists, if it has to be: one for the whole run, from what
    is known before it begins, so that a resumed run finds the same."""
    if not objective.matched:
        return objective
    lists_RGL, rewards_RG = torch.from_numpy(groups.lists_RGL), torch.from_numpy(groups.rewards_RG)
    mask_RG = first_occurrence(lists_RGL)
    if objective.duplicates == "each":
        mask_RG = torch.ones_like(mask_RG)
    return with_matched_temperature(objective, rewards_RG, mask_RG, lists_RGL.shape[1] + preset.on_policy_lists)


@torch.inference_mode()
def list_rewards(
    training_set: TrainingSet,
    groups: Groups,
    ranker: Ranker,
    reward_model: RewardModel,
    *,
    length: int = LIST_LENGTH,
    requests: int = 2048,
    batch_requests: int = 256,
) -> dict[str, float]:
    """What the reward model that guided training thinks (mean r_hat) of the trained ranker's greedy lists and of the
    helpers' on the same training requests, evenly chosen. Not evidence of quality: the ranker was optimised for it.
    `retriever_reward` is left out where the retriever is not among the helpers.

    `best_helper_reward` is that of the helper that is best on average, `best_in_group_reward` that of each group's best
    helper list, which no policy without an evaluator would know.
    """
    device = next(ranker.parameters()).device
    rows_R = np.unique(np.linspace(0, len(groups) - 1, min(requests, len(groups)), dtype=np.int64))
    greedy = 0.0
    for begin in range(0, len(rows_R), batch_requests):
        batch = training_set.batch(groups.request_R[rows_R[begin : begin + batch_requests]]).to(device)
        lists_B1L = ranker.greedy(ranker.encode(batch), length).unsqueeze(1)
        rewards_B1 = reward_model.score_lists(reward_model.encode(batch), lists_B1L).mean(dim=0)
        greedy += float(rewards_B1.double().sum())
    helper_rewards_RG = groups.rewards_RG[rows_R].astype(np.float64)
    retriever_G = [name == "retriever" for name in groups.helpers]
    return {
        "greedy_reward": greedy / len(rows_R),
        **({"retriever_reward": float(helper_rewards_RG[:, retriever_G].mean())} if any(retriever_G) else {}),
        "best_helper_reward": float(helper_rewards_RG.mean(axis=0).max()),
        "best_in_group_reward": float(helper_rewards_RG.max(axis=1).mean()),
    }


@dataclass(frozen=True)
class _Lesson:
    """What stays the same from step to step."""

    training_set: TrainingSet
    groups: Groups
    ranker: Ranker
    initial: Ranker | None
    source: Ranker | None  # that own lists come from; None: the ranker as it is
    reward_model: RewardModel
    preset: Preset
    objective: ObjectiveConfig
    length: int
    execution: Execution
    scored: Callable[..., tuple[Tensor, Tensor | None]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scored", self.execution.prepared(_scored))


def _train_step(lesson: _Lesson, optimizer: torch.optim.Optimizer, seed: int, step: int) -> list[float]:
    """One optimiser step; returns the values of CURVES."""
    preset, execution = lesson.preset, lesson.execution
    rows_B = batch_rows(len(lesson.groups), preset.batch_requests, step, seed)
    batch = lesson.training_set.batch(lesson.groups.request_R[rows_B])  # whole: a share is padded as the whole is
    step_seed = derived_seed(seed, STEP, step)
    draws = _draws(lesson, rows_B, batch, seed, step) if preset.on_policy_lists else None
    optimizer.zero_grad(set_to_none=True)
    parts = []
    for share in execution.shares(len(batch)):
        torch.manual_seed(step_seed)  # dropout
        if execution.device.type == "cuda" and preset.dropout > 0:
            torch.cuda.manual_seed(step_seed + share.begin)  # there shares draw for themselves (goalrank/dropout.py)
        with drawn_for(share, execution.device):
            drawn = None if draws is None else draws.rows(share.rows)
            parts.append(_backward(lesson, rows_B[share.rows], batch.rows(share.rows), drawn, share))
    execution.processes.sum_gradients(lesson.ranker.parameters())
    means = execution.processes.sum(torch.stack(parts).sum(dim=0))
    norm = nn.utils.clip_grad_norm_(lesson.ranker.parameters(), CLIP_NORM)
    values = torch.cat([means, norm.detach().double().unsqueeze(0)]).tolist()  # one wait for the device
    for name, value in zip(CURVES, values, strict=True):
        if not math.isfinite(value):
            raise ModelRefused(
                f"{name} is {value} at step {step} of ranker training, expected a finite number; "
                "look at the reward model's figures, or lower the learning rate"
            )
    optimizer.step()
    return values


def _draws(lesson: _Lesson, rows_B: np.ndarray, batch: RequestBatch, seed: int, step: int) -> Draws:
    """The whole batch's numbers for its own lists."""
    lists, candidates, refresh = lesson.preset.on_policy_lists, batch.mask_BN.shape[1], lesson.preset.refresh
    if lesson.source is None:
        chance = torch.Generator().manual_seed(derived_seed(seed, STEP, step))
        return Draws.of(chance, len(batch), lists, lesson.length, candidates)
    groups = lesson.groups
    widest = int(lesson.training_set.candidates.lengths[groups.request_R].max())
    period = 0 if refresh == NEVER else step // refresh
    seeds = [derived_seed(seed, OWN, period * len(groups) + int(row)) for row in rows_B]
    return Draws.of_requests(seeds, lists, lesson.length, candidates, widest)


def _backward(lesson: _Lesson, rows_B: np.ndarray, batch: RequestBatch, draws: Draws | None, share: Share) -> Tensor:
    """Add a share's part to the gradient of the whole batch's loss; returns its part of CURVES, the norm left out.

    Loss and curves are means over the batch's requests, so a share's part is its own mean by its share of them.
    """
    ranker, objective, execution = lesson.ranker, lesson.objective, lesson.execution
    batch = batch.to(execution.device)
    helpers = lesson.groups.lists_RGL.shape[1]
    lists_BGL, rewards_HBG = _groups_of(lesson, rows_B, batch, draws)
    rewards_BG = rewards_HBG.mean(dim=0)
    unique_BG = first_occurrence(lists_BGL)
    mask_BG = unique_BG if objective.duplicates == "once" else torch.ones_like(unique_BG)
    std_B, noise_B = group_std(rewards_BG, mask_BG), group_noise(rewards_HBG, mask_BG)
    weight_B = signal_weights(std_B, noise_B) if objective.signal == "reliability" else (std_B > 0).float()

    ranker.train()
    with execution.autocast():
        log_prob_BG, logits_BN = lesson.scored(ranker, batch, lists_BGL, objective.supervised_weight > 0)
        with torch.no_grad():
            initial = lesson.initial
            initial_BG = None if initial is None else initial.log_prob(initial.encode(batch), lists_BGL)[0]
    loss = group_relative_loss(log_prob_BG, rewards_BG, mask_BG, weight_B, objective, initial_BG)
    if logits_BN is not None:
        feedback = lesson.training_set.feedback(lesson.groups.request_R[rows_B])
        gain_BN, known_BN = logged_gains(feedback.to(execution.device), batch)
        loss = loss + objective.supervised_weight * supervised_loss(logits_BN.float(), gain_BN, known_BN).mean()
    loss = loss * share.weight
    loss.backward()
    means = (
        _mean(rewards_BG[:, helpers:]),
        _mean(rewards_BG[:, :helpers]),
        std_B.mean(),
        noise_B.mean(),
        weight_B.mean(),
        (~unique_BG).double().mean(),
        -_mean(log_prob_BG[:, helpers:]),
    )
    return torch.stack([loss.detach().double(), *(value.detach().double() * share.weight for value in means)])


def _mean(values: Tensor) -> Tensor:
    """0 of nothing: such a curve is left empty in the end."""
    return values.mean() if values.numel() else values.new_zeros(())


def _groups_of(lesson: _Lesson, rows_B: np.ndarray, batch: RequestBatch, draws: Draws | None) -> tuple[Tensor, Tensor]:
    """lists_BGL and rewards_HBG of each request: the helpers' lists, then those sampled from a ranker (none: draws)."""
    reward_model, device = lesson.reward_model, lesson.execution.device
    ranker = lesson.source or lesson.ranker
    helper_lists_BGL = torch.from_numpy(lesson.groups.lists_RGL[rows_B]).to(device, torch.int64)
    helper_rewards_HBG = torch.from_numpy(lesson.groups.head_rewards_RHG[rows_B]).to(device).transpose(0, 1)
    if draws is None:
        return helper_lists_BGL, helper_rewards_HBG
    # Sampled from the policy as it will be served: without dropout, of ids too, hence from an encoding of its own.
    ranker.eval()
    with torch.no_grad():
        own_lists_BGL = ranker.sample(
            ranker.encode(batch), lesson.preset.on_policy_lists, lesson.length, generator=draws
        )
        own_rewards_HBG = reward_model.score_lists(reward_model.encode(batch), own_lists_BGL).float()
    lists_BGL = torch.cat([helper_lists_BGL, own_lists_BGL], dim=1)
    return lists_BGL, torch.cat([helper_rewards_HBG, own_rewards_HBG], dim=2)


def _scored(ranker: Ranker, batch: RequestBatch, lists_BGL: Tensor, first_step: bool) -> tuple[Tensor, Tensor | None]:
    """log_prob_BG of the lists and, if asked for, the logits_BN of the first position; what is compiled on request."""
    encoded = ranker.encode(batch)
    log_prob_BG, _ = ranker.log_prob(encoded, lists_BGL)
    return log_prob_BG, ranker.first_step_logits(encoded) if first_step else None


def logged_gains(
    feedback: Feedback, batch: RequestBatch, weights: RewardWeights | None = None
) -> tuple[Tensor, Tensor]:
    """gain_BN, what the logged feedback to each candidate was worth, and known_BN, whose feedback is known: the shown
    items, and in self-selected requests every candidate (schema.SELF_SELECTED: not taken counts as 0)."""
    weights = weights or RewardWeights()
    minutes_BL = feedback.watch_seconds_BL.nan_to_num(nan=0.0) / 60.0
    gain_BL = weights.click * feedback.click_BL + weights.like * feedback.like_BL + weights.watch_minute * minutes_BL
    candidates = batch.mask_BN.shape[1]
    place_BL = torch.where(feedback.mask_BL, feedback.slate_BL, candidates)  # padding goes to a spare column
    gain_BN = torch.zeros(len(batch), candidates + 1, device=gain_BL.device).scatter(1, place_BL, gain_BL)
    known_BN = torch.zeros_like(gain_BN, dtype=torch.bool).scatter(1, place_BL, True)
    known_BN = known_BN[:, :candidates] | (feedback.self_selected_B.unsqueeze(1) & batch.mask_BN)
    return gain_BN[:, :candidates], known_BN
