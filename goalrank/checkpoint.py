"""Models and training checkpoints on disk: written whole or not at all, checked before they are read, never unpickled.

A model is a directory, weights.safetensors and model.json, the latter naming the former's SHA-256. A training
checkpoint is one file: a header line with the SHA-256 of all that follows, then tensors and JSON in safetensors form.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor, nn

from goalrank.errors import CheckpointDamaged, ModelRefused

FORMAT = 1
WEIGHTS = "weights.safetensors"
CARD = "model.json"
_HEADER = b"goalrank-checkpoint 1 "


# -------------------------------------------------------------------------------------------------------------- models


def save_model(
    directory: str | Path,
    model: nn.Module,
    kind: str,
    config: Mapping[str, Any],
    created_by: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> dict:
    """Write a model directory and return its card.

    Args:
        directory: created; weights first, the card last, so that a card always has its weights.
        model: its state dict is stored, on the CPU.
        kind: "ranker" or "reward", what :func:`load_model` builds.
        config: ModelSizes.to_dict().
        created_by: preset, seed, snapshot_id, trained_until, data_window; of a ranker its objective.
        metrics: plain values.

    Raises:
        ModelRefused: a weight or a metric is NaN or infinite, or the kind is unknown.
    """
    _builder(kind)
    folder = Path(directory)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelRefused(f"weight {name} of the {kind} holds NaN or infinity; nothing was saved, train again")
    payload = safetensors_torch.save(weights)
    card = {
        "format": FORMAT,
        "kind": kind,
        "config": dict(config),
        "weights_sha256": hashlib.sha256(payload).hexdigest(),
        "created_by": dict(created_by),
        "metrics": dict(metrics),
    }
    try:
        text = json.dumps(card, indent=1, allow_nan=False)
    except ValueError as error:
        raise ModelRefused(f"a metric of the {kind} is NaN or infinite ({error}); nothing was saved") from error
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CARD):
        for aside in folder.glob(f".{name}.*"):  # left by a writer that was killed; the folder is shipped whole
            aside.unlink(missing_ok=True)
    _write_atomic(folder / WEIGHTS, payload)
    _write_atomic(folder / CARD, text.encode())
    return card


def read_model_card(directory: str | Path) -> dict:
    """The model.json of a model directory.

    Raises:
        CheckpointDamaged: it is absent, no JSON, or of another format.
    """
    path = Path(directory) / CARD
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointDamaged(f"{path} is absent, expected the card of a model; train or register it again") from None
    except ValueError as error:
        raise CheckpointDamaged(f"{path} is not readable as JSON ({error}); restore the model directory") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise CheckpointDamaged(f"{path} has format {found!r}, expected {FORMAT}; use the release that wrote it")
    missing = [key for key in ("kind", "config", "weights_sha256", "created_by", "metrics") if key not in card]
    if missing:
        raise CheckpointDamaged(f"{path} lacks {', '.join(missing)}; restore the model directory")
    return card


def load_model(directory: str | Path) -> nn.Module:
    """The model of a directory, in evaluation mode, on the CPU. The checksum is taken before anything is parsed.

    Raises:
        CheckpointDamaged: files are absent, the weights are not those the card names, or do not fit its config.
        ModelRefused: the kind is unknown or a weight is not finite.
    """
    folder = Path(directory)
    card = read_model_card(folder)
    try:
        payload = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError:
        raise CheckpointDamaged(f"{folder / WEIGHTS} is absent; restore the model directory") from None
    digest = hashlib.sha256(payload).hexdigest()
    if digest != card["weights_sha256"]:
        raise CheckpointDamaged(
            f"{folder / WEIGHTS} has SHA-256 {digest}, expected {card['weights_sha256']}; restore or train it again"
        )
    from goalrank.encoders import ModelSizes

    model = _builder(card["kind"])(ModelSizes.from_dict(card["config"]))
    try:
        weights = safetensors_torch.load(payload)
        model.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointDamaged(f"the weights in {folder} do not fit the config of {CARD} ({error})") from error
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelRefused(f"weight {name} in {folder} holds NaN or infinity; do not serve it, train again")
    return model.eval()


def _builder(kind: str) -> type[nn.Module]:
    """The class of a kind; imported late, since each imports the encoders and the ranker is heavy."""
    if kind == "ranker":
        from goalrank.ranker import Ranker

        return Ranker
    if kind == "reward":
        from goalrank.reward import RewardModel

        return RewardModel
    raise ModelRefused(f"model kind {kind!r} found, expected 'ranker' or 'reward'")


# --------------------------------------------------------------------------------------------------------- checkpoints


@dataclass
class Checkpoint:
    """What a training run needs to go on as if nothing had happened."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]  # whatever JSON can hold


@dataclass
class Checkpoints:
    """The training checkpoints of one folder."""

    directory: Path
    keep: int = 2
    damaged: list[str] = field(default_factory=list)
    """Names of the files that :meth:`latest` passed over, for the report."""

    def __post_init__(self) -> None:
        self.directory = Path(self.directory)

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Path:
        """Write a checkpoint aside, sync it, rename it; then drop all but the newest `keep` up to this step.

        A later step's file is dropped too: training went on from before it, so :meth:`latest` found it damaged, and
        left there it would count as one of the newest.

        Raises:
            ModelRefused: a value is NaN or infinite.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            text = json.dumps({"step": step, "values": dict(values)}, allow_nan=False)
        except ValueError as error:
            raise ModelRefused(f"step {step} of training holds NaN or infinity ({error})") from error
        stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        payload = safetensors_torch.save(stored, metadata={"state": text})
        header = _HEADER + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        path = self._path(step)
        _write_atomic(path, header + payload)
        files = self._files()
        sound = files[: files.index(path) + 1]
        for file in files:
            if file not in sound[-self.keep :]:
                file.unlink()
        self._drop_asides()
        return path

    def latest(self) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None; what was damaged is named in `damaged`."""
        self.damaged = []
        for path in reversed(self._files()):
            try:
                return read_checkpoint(path)
            except CheckpointDamaged:
                self.damaged.append(path.name)
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step that another process found sound.

        Raises:
            CheckpointDamaged: this process does not see the file, or reads another one.
        """
        path = self._path(step)
        try:
            return read_checkpoint(path)
        except FileNotFoundError:
            raise CheckpointDamaged(
                f"{path} found by the first process is absent here; give all processes one folder of checkpoints"
            ) from None

    def clear(self) -> None:
        """Remove every checkpoint: the training they belong to has ended."""
        for path in self._files():
            path.unlink()
        self._drop_asides()

    def _drop_asides(self) -> None:
        """Remove what a writer that was killed had not renamed yet."""
        for aside in self.directory.glob(".step-*"):
            aside.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:010d}.checkpoint"

    def _files(self) -> list[Path]:
        return sorted(
            path for path in self.directory.glob("step-*") if re.fullmatch(r"step-\d+\.checkpoint", path.name)
        )


def read_checkpoint(path: str | Path) -> Checkpoint:
    """One checkpoint file; its checksum is taken before anything is parsed.

    Raises:
        CheckpointDamaged: it is truncated or altered.
    """
    content = Path(path).read_bytes()
    header, _, payload = content.partition(b"\n")
    if header != _HEADER + hashlib.sha256(payload).hexdigest().encode():
        raise CheckpointDamaged(f"{path} is truncated or altered: its SHA-256 is not the one in its header")
    try:
        tensors = safetensors_torch.load(payload)
        state = json.loads(_metadata(payload)["state"])
        return Checkpoint(state["step"], tensors, state["values"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointDamaged(f"{path} is no checkpoint of this release ({error})") from error


def pack_training(
    model: nn.Module, optimizer: torch.optim.Optimizer, generators: Mapping[str, torch.Generator]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, optimiser state and random states, as tensors and JSON values; torch's global generator included."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    tensors["random.torch"] = torch.get_rng_state()
    for device in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        tensors[f"random.cuda.{device}"] = torch.cuda.get_rng_state(device)
    for name, generator in generators.items():
        tensors[f"random.own.{name}"] = generator.get_state()
    return tensors, {"optimizer_groups": state["param_groups"], "optimizer_scalars": scalars}


def unpack_training(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
) -> None:
    """Put back what :func:`pack_training` took.

    Raises:
        CheckpointDamaged: the checkpoint is of a model of other sizes.
    """
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "random": {}}
    for name, tensor in checkpoint.tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    entries: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in checkpoint.values["optimizer_scalars"].items()
    }
    for name, tensor in groups["optimizer"].items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    try:
        model.load_state_dict(groups["model"])
        optimizer.load_state_dict({"state": entries, "param_groups": checkpoint.values["optimizer_groups"]})
    except (RuntimeError, ValueError) as error:
        raise CheckpointDamaged(f"the checkpoint of step {checkpoint.step} is of another model: {error}") from error
    torch.set_rng_state(groups["random"]["torch"])
    for name, tensor in groups["random"].items():
        if name.startswith("cuda."):
            torch.cuda.set_rng_state(tensor, int(name.removeprefix("cuda.")))
    for name, generator in generators.items():
        generator.set_state(groups["random"][f"own.{name}"])


def _metadata(payload: bytes) -> dict[str, str]:
    length = int.from_bytes(payload[:8], "little")
    return json.loads(payload[8 : 8 + length])["__metadata__"]


def _write_atomic(path: Path, content: bytes) -> None:
    """Aside, synced, renamed, the folder synced: a reader sees the old file or the new one, never half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
