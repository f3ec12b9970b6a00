"""A trained ranker, the champion say, as the first weights of another: only if it reads the same features in the same
architecture."""

from __future__ import annotations

from pathlib import Path

from goalrank.checkpoint import load_model, read_model_card
from goalrank.encoders import ModelSizes
from goalrank.errors import ModelRefused
from goalrank.presets import Preset
from goalrank.ranker import Ranker
from goalrank.schema import feature_set

SHAPING = ("width", "heads", "history_layers", "candidate_layers", "decoder_layers", "item_buckets")
"""The sizes that a ranker's weights depend on; dropout and the reward model's may differ."""


def warm_start_from(directory: str | Path, preset: Preset, date: str) -> Ranker:
    """The ranker of a model directory, to begin training a ranker of `preset` that will be judged on day `date`.

    Raises:
        CheckpointDamaged: files are absent or not what they were.
        ModelRefused: no ranker, of another architecture, trained on another feature set (or one it does not name), or
            on the day itself or later: what was learnt from it would count as quality.
    """
    created = read_model_card(directory)["created_by"]
    found, until = created.get("feature_set"), created.get("trained_until", "an unknown day")
    if found != feature_set():
        what = f"feature set {found}" if found else "no feature set in its card"
        raise ModelRefused(
            f"{directory}: {what} found, expected {feature_set()}, which this release reads; train without a warm "
            "start once, then start from that ranker"
        )
    if not until < date:
        raise ModelRefused(
            f"{directory} was trained on days up to {until}, expected days before {date}, on which tonight's ranker is "
            "judged; start from an earlier ranker, or without"
        )
    ranker = load_model(directory)
    if not isinstance(ranker, Ranker):
        raise ModelRefused(f"{directory} holds a {type(ranker).__name__}, expected a ranker to start from")
    require_sizes(ranker, preset)
    return ranker


def require_sizes(ranker: Ranker, preset: Preset) -> None:
    """Refuse a ranker whose weights do not fit the preset's.

    Raises:
        ModelRefused: it has another architecture.
    """
    wanted = ModelSizes.from_preset(preset)
    pairs = [(name, getattr(ranker.sizes, name), getattr(wanted, name)) for name in SHAPING]
    others = [f"{name} {found} instead of {expected}" for name, found, expected in pairs if found != expected]
    if others:
        raise ModelRefused(
            f"the ranker to start from has {', '.join(others)} (preset {preset.name}); start from one of the same "
            "preset, or without"
        )
