"""Methods of the field as policies of an experiment: trained on the newest night's training set, then kept.

Each learns from the very requests that night's guiding reward model and ranker saw, starts from the guide's history
encoder, and has the guide as its evaluator (goalrank/baselines/harness.py).

WORKSPACE/experiments/policies/<name>-<key>/   weights.safetensors and policy.json; the key digests what it was made of
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch

from components.step import write_atomic
from goalrank import baselines
from goalrank.ab_simulation import Rank
from goalrank.baselines import Baseline, Lesson, Trained
from goalrank.checkpoint import load_model, read_model_card
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.errors import ModelRefused, UsageError
from goalrank.presets import preset
from goalrank.reward import RewardModel

NAMES = baselines.NAMES
FORMAT = 1
WEIGHTS, CARD = "weights.safetensors", "policy.json"

Progress = Callable[[str, int, int], None]
"""(note, steps done, steps in all)"""


@dataclass(frozen=True)
class Source:
    """A night to learn from."""

    training_set: Path
    reward_model: Path
    preset: str
    seed: int

    @classmethod
    def newest(cls, nights: list[tuple[Path, dict[str, Any]]]) -> Source:
        """The newest night that has both artifacts.

        Args:
            nights: folder and parameters of each night, oldest first.

        Raises:
            UsageError: none has.
        """
        for folder, parameters in reversed(nights):
            data = sorted(folder.glob("artifacts/*/materialize-features/training_set/training_set.json"))
            guide = sorted(folder.glob("artifacts/*/train-reward/reward_model/model.json"))
            if data and guide:
                return cls(data[-1].parent, guide[-1].parent, str(parameters["preset"]), int(parameters["seed"]))
        raise UsageError(
            "no night of this workspace has a training set and a reward model, which the methods of the field learn "
            "from; run `goalrank nightly`, or leave them out"
        )


def policy(name: str, source: Source, folder: Path, progress: Progress | None = None) -> Rank:
    """The method of that name (one of NAMES): trained now, or as it was kept.

    Args:
        source: what to learn from.
        folder: WORKSPACE/experiments/policies.
        progress: told of each step of training.

    Raises:
        ModelRefused: a loss is not finite, or the night's reward model is none.
        CheckpointDamaged: the night's reward model is damaged.
    """
    guide = load_model(source.reward_model)
    if not isinstance(guide, RewardModel):
        raise ModelRefused(f"{source.reward_model} holds a {type(guide).__name__}, expected a reward model")
    card = read_model_card(source.reward_model)
    made_of = {
        "format": FORMAT,
        "name": name,
        "snapshot_id": card["created_by"]["snapshot_id"],
        "reward_sha256": card["weights_sha256"],
        "preset": source.preset,
        "seed": source.seed,
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / f"{name}-{key}"
    kept = _kept(place, name, guide.sizes, made_of)
    if kept is None:
        trained = _train(name, source, guide, progress)
        _keep(place, trained, made_of)
        kept = trained.policy
    return kept.rank


def _train(name: str, source: Source, guide: RewardModel, progress: Progress | None) -> Trained:
    data = TrainingSet.load(source.training_set)
    lesson = Lesson(
        training_set=data,
        indices=data.guide_indices(),
        encoder=guide.encoder,
        preset=preset(source.preset),
        seed=source.seed,
        evaluator=guide,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    return baselines.train(name, lesson, lambda done, total: progress and progress(f"training {name}", done, total))


def _keep(place: Path, trained: Trained, made_of: dict[str, Any]) -> None:
    """Weights first, the card last, so that a card always has its weights."""
    place.mkdir(parents=True, exist_ok=True)
    payload = safetensors_torch.save({name: part.contiguous() for name, part in trained.policy.state_dict().items()})
    aside = place / f".{WEIGHTS}"
    aside.write_bytes(payload)
    aside.replace(place / WEIGHTS)
    digest = hashlib.sha256(payload).hexdigest()
    card = {"made_of": made_of, "weights_sha256": digest, "figures": trained.figures}
    write_atomic(place / CARD, json.dumps(card, indent=1))


def _kept(place: Path, name: str, sizes: ModelSizes, made_of: dict[str, Any]) -> Baseline | None:
    """What lies there, if it is whole and made of the same; else None, and it is trained again."""
    try:
        card = json.loads((place / CARD).read_text(encoding="utf-8"))
        payload = (place / WEIGHTS).read_bytes()
        if card["made_of"] != made_of or hashlib.sha256(payload).hexdigest() != card["weights_sha256"]:
            return None
        found = baselines.build(name, sizes)
        found.load_state_dict(safetensors_torch.load(payload))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError):
        return None
    return found.eval()
