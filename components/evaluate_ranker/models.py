"""The rankers that are compared: what must be true of one before it is asked anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from components.register_model import figures
from goalrank.checkpoint import load_model, read_model_card
from goalrank.errors import ModelRefused
from goalrank.ranker import Ranker
from goalrank.verdict import ModelVersion


def not_finite(directory: Path, who: str) -> list[str]:
    """Names of the weights, losses and metrics in a model directory that are NaN or infinite.

    Registration refuses such a model, but not every version need have come that way, and the champion is older than
    tonight's rules.
    """
    weights = load_file(directory / "weights.safetensors")
    found = [f"{who}.weights.{name}" for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    return found + figures.not_finite(read_model_card(directory)["metrics"], f"{who}.metrics")


def require_unseen(directory: Path, what: str, date: str) -> None:
    """Refuse a model trained on the evaluation day or later.

    Raises:
        ModelRefused: naming the model, its days, and what to do.
    """
    trained_until = str(read_model_card(directory)["created_by"]["trained_until"])
    if trained_until >= date:
        raise ModelRefused(
            f"{what} was trained on days up to {trained_until}, so it has seen the evaluation day {date}; run a night "
            f"after {trained_until}, or roll back to a version trained earlier"
        )


def require_judge(directory: Path, registration: dict[str, Any]) -> None:
    """Refuse a judge that is not tonight's own, or that guided the ranker it is to judge.

    Args:
        directory: of the judge's model.
        registration: tonight's, as registry.read_registration gives it.

    Raises:
        ModelRefused: naming what was found and expected.
    """
    card = read_model_card(directory)
    made_from = card["created_by"].get("snapshot_id")
    if made_from != registration["snapshot_id"]:
        raise ModelRefused(
            f"the judge was trained on snapshot {made_from}, expected {registration['snapshot_id']}; pass the "
            "artifacts of one night"
        )
    if card["weights_sha256"] == registration["reward"]["weights_sha256"]:
        raise ModelRefused(
            "the judge is the reward model that guided the ranker, expected another: a ranker has learnt its guide's "
            "errors; pass train_reward's judge_model"
        )
    require_unseen(directory, "the judge", registration["date"])


def load_ranker(directory: Path, wanted: ModelVersion) -> Ranker:
    """The ranker of a model directory that registry.fetch_model verified.

    Raises:
        ModelRefused: it is another kind of model, or a weight is not finite.
    """
    model = load_model(directory)
    if not isinstance(model, Ranker):
        raise ModelRefused(f"{wanted.name} version {wanted.version} is a {type(model).__name__}, expected a Ranker")
    return model
