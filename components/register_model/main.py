"""register_model: one MLflow run a night, ranker and reward model registered in it, alias challenger on both."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import registry
from components.register_model.figures import metrics_of, not_finite
from components.register_model.signature import signature_of
from components.step import Step, run_alone, write_atomic
from goalrank import schema
from goalrank.errors import CheckpointDamaged, ModelRefused

if TYPE_CHECKING:
    from mlflow import MlflowClient

REQUIREMENTS = ("torch", "safetensors", "numpy", "pyarrow", "pandas", "mlflow")
"""What the pyfunc imports beside goalrank, which the serving image holds; pinned by hand (inferring is slow)."""

DEFAULT_OBJECTIVE = "default"
"""The lineage's word for a ranker that learnt by what ObjectiveConfig is by itself."""

METRICS_A_CALL = 1000
"""MLflow's limit for one log_batch."""


@dataclass(frozen=True)
class Trained:
    """A model directory that has been looked at: its card, digest, registered name."""

    name: str
    folder: Path
    card: dict[str, Any]

    @property
    def sha256(self) -> str:
        return self.card["weights_sha256"]


def run(
    ranker: str,
    reward_model: str,
    judge_model: str,
    training_set: str,
    groups: str,
    snapshot: str,
    tracking_uri: str,
    registration: str,
    preset: str,
    seed: int,
    commit: str,
    run_uri: str,
    date: str,
) -> None:
    """Register tonight's models; the same night with the same weights registers nothing twice.

    Args:
        ranker, reward_model: model directories, registered as goalrank-ranker and goalrank-reward.
        judge_model: model directory of the judge, kept as an artifact of the run, never registered.
        training_set: directory with training_set.json.
        groups: directory with groups.json, its statistics become metrics.
        snapshot: the snapshot artifact.
        tracking_uri: MLflow.
        registration: JSON file to write.
        preset, seed, commit: kept as lineage.
        run_uri: folder of this run.
        date: the night, YYYY-MM-DD.

    Raises:
        ModelRefused: a weight or a metric is not finite, or the inputs are of another snapshot.
        CheckpointDamaged: a weights file is not the one its card describes.
        TryAgain: MLflow is away.
    """
    with Step("register_model", run_uri) as step:
        with step.tool("torch"):
            import torch  # noqa: F401 - reading weights needs it; its import is a tool's cost
        snapshot_id = _snapshot_id(snapshot, training_set, date)
        models = [_inspect(registry.RANKER, ranker), _inspect(registry.REWARD, reward_model)]
        judge = _inspect("judge", judge_model)
        _require_snapshot(models[0], snapshot_id)
        statistics = json.loads((Path(groups) / "groups.json").read_text(encoding="utf-8"))
        _require_finite([*models, judge], statistics)
        step.progress(1, 4, "weights and metrics are finite")
        with step.tool("mlflow"):
            client = registry.connect(tracking_uri)
        with registry.reaching(tracking_uri):
            tags = _lineage(models[0], snapshot_id, date, commit, preset, seed)
            run_id = _night_run(client, tracking_uri, models, tags)
            step.progress(2, 4, "tracking run")
            _log_figures(client, run_id, [*models, judge], statistics, tags, date)
            if not client.list_artifacts(run_id, "judge_model"):
                client.log_artifacts(run_id, str(judge.folder), "judge_model")
            identities = {}
            for number, model in enumerate(models):
                identities[model.name] = _register(client, run_id, model, {**tags, "run": run_id})
                registry.point(client, model.name, registry.CHALLENGER, identities[model.name])
                step.progress(3 + number, 4, f"{model.name} version {identities[model.name]}")
            client.set_terminated(run_id, "FINISHED")
        document: dict[str, Any] = {"tracking_uri": tracking_uri, "run_id": run_id}
        document |= {"snapshot_id": snapshot_id, "date": date}
        for field, model in zip(("ranker", "reward"), models, strict=True):
            document[field] = {
                "name": model.name,
                "version": identities[model.name],
                "weights_sha256": model.sha256,
            }
            step.figures[f"{field}_version"] = identities[model.name]
            step.figures[f"{field}_sha256"] = model.sha256
        step.figures |= {"run_id": run_id, "lineage": tags}
        step.reason = f"{registry.RANKER} version {identities[registry.RANKER]} is the challenger"
        write_atomic(Path(registration), json.dumps(document, indent=1) + "\n")


# ------------------------------------------------------------------------------------------------------------- checks


def _snapshot_id(snapshot: str, training_set: str, date: str) -> str:
    manifest = json.loads(Path(snapshot).read_text(encoding="utf-8"))["manifest"]
    card = json.loads((Path(training_set) / "training_set.json").read_text(encoding="utf-8"))
    for what, found in (("training set", card), ("snapshot", manifest)):
        if found["snapshot_id"] != manifest["snapshot_id"] or found["date"] != date:
            raise ModelRefused(
                f"the {what} is of {found['date']}, snapshot {found['snapshot_id']}; expected {date}, snapshot "
                f"{manifest['snapshot_id']}; run the night again from extract_features"
            )
    return manifest["snapshot_id"]


def _require_snapshot(ranker: Trained, snapshot_id: str) -> None:
    """A run folder used again may hold the ranker of an earlier try, trained on what is not tonight's."""
    found = ranker.card["created_by"]["snapshot_id"]
    if found != snapshot_id:
        raise ModelRefused(
            f"{ranker.name} was trained on snapshot {found}, expected the training set's, {snapshot_id}; nothing was "
            "registered; train it again"
        )


def _inspect(name: str, folder: str) -> Trained:
    from goalrank.checkpoint import read_model_card

    card = read_model_card(folder)
    found = registry.file_sha256(Path(folder) / "weights.safetensors")
    if found != card["weights_sha256"]:
        raise CheckpointDamaged(
            f"{name}: weights.safetensors has SHA-256 {found}, model.json says {card['weights_sha256']}; train again"
        )
    return Trained(name, Path(folder), card)


def _require_finite(models: list[Trained], statistics: dict[str, Any]) -> None:
    import torch
    from safetensors import safe_open

    found = not_finite(statistics, "groups")
    for model in models:
        found += not_finite(model.card.get("metrics", {}), f"{model.name}.metrics")
        with safe_open(model.folder / "weights.safetensors", framework="pt") as weights:
            tensors = {key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118 - not a dict
        found += [f"{model.name}.{key}" for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ModelRefused(
            f"not finite: {', '.join(found[:5])}{more}; nothing was registered; look at the training curves, "
            "and train with a smaller learning rate if they rise"
        )


# ------------------------------------------------------------------------------------------------------------ tracking


def _lineage(ranker: Trained, snapshot_id: str, date: str, commit: str, preset: str, seed: int) -> dict[str, str]:
    created = ranker.card["created_by"]
    first, last = created["data_window"]
    return {
        "snapshot_id": snapshot_id,
        "date": date,
        "commit": commit,
        "preset": preset,
        "objective": _objective(created.get("objective") or {}) or DEFAULT_OBJECTIVE,
        "seed": str(seed),
        "data_window": f"{first}..{last}",
        "trained_until": created["trained_until"],
    }


def _objective(fields: dict[str, Any]) -> str:
    """What of it is not the default, in the words of GOALRANK_OBJECTIVE; what another release called its own, too."""
    from goalrank.objective import ObjectiveConfig

    defaults = asdict(ObjectiveConfig())
    return " ".join(f"{name}={value}" for name, value in fields.items() if value != defaults.get(name))


def _night_run(client: MlflowClient, tracking_uri: str, models: list[Trained], tags: dict[str, str]) -> str:
    """The run of this night and these weights: a new one, or the one an earlier attempt made."""
    experiment = registry.experiment_id(client, tracking_uri)
    night = hashlib.sha256(
        "|".join([tags["date"], tags["snapshot_id"], *(model.sha256 for model in models)]).encode()
    ).hexdigest()
    found = client.search_runs([experiment], f"tags.night = '{night}'", max_results=1)
    if found:
        return found[0].info.run_id
    created = client.create_run(experiment, tags={**tags, "night": night}, run_name=f"night {tags['date']}")
    return created.info.run_id


def _log_figures(
    client: MlflowClient,
    run_id: str,
    models: list[Trained],
    statistics: dict[str, Any],
    tags: dict[str, str],
    date: str,
) -> None:
    from mlflow.entities import Metric, Param

    # The night's own midnight as time stamp: logging it again then writes the same row, not a second one.
    at = int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)
    figures = list(metrics_of(statistics, "groups"))
    for model in models:
        figures += metrics_of(model.card.get("metrics", {}), model.name.removeprefix("goalrank-"))
    metrics = [Metric(name, value, at, step) for name, step, value in figures]
    params = [Param(name, tags[name]) for name in ("preset", "objective", "seed", "date", "snapshot_id", "data_window")]
    for model in models[:2]:
        kind = model.name.removeprefix("goalrank-")
        params += [Param(f"{kind}.{key}", str(value)) for key, value in sorted(model.card["config"].items())]
    client.log_batch(run_id, params=params[:100])
    for first in range(0, len(metrics), METRICS_A_CALL):
        client.log_batch(run_id, metrics=metrics[first : first + METRICS_A_CALL])


# ------------------------------------------------------------------------------------------------------------ registry


def _register(client: MlflowClient, run_id: str, model: Trained, tags: dict[str, str]) -> str:
    """The version number of these weights of this night; made only if no earlier attempt made it."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model.name, description=_DESCRIPTIONS[model.name])
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    wanted = {
        "snapshot_id": tags["snapshot_id"],
        "date": tags["date"],
        "weights_sha256": model.sha256,
        registry.FEATURE_SET: schema.feature_set(),
    }
    for registered in client.search_model_versions(f"name = '{model.name}' and run_id = '{run_id}'"):
        if all(registered.tags.get(key) == value for key, value in wanted.items()):
            return str(registered.version)
    source, model_id = _log_model(run_id, model)
    created = client.create_model_version(
        model.name,
        source,
        run_id,
        model_id=model_id,
        tags={**tags, **wanted, "configuration": _configuration(model, tags)},
    )
    return str(created.version)


def _log_model(run_id: str, model: Trained) -> tuple[str, str]:
    """Log the model directory as a pyfunc from code; returns its source URI and model id."""
    import mlflow

    with tempfile.TemporaryDirectory() as aside:
        # A folder of a fixed name: registry.fetch_model finds the files by it.
        staged = Path(aside) / registry.MODEL_FOLDER
        shutil.copytree(model.folder, staged)
        with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            # It asks for an input example and type hints, to infer the signature that is given here by hand.
            warnings.simplefilter("ignore", UserWarning)
            info = mlflow.pyfunc.log_model(
                name=model.name.removeprefix("goalrank-"),
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"model": str(staged)},
                model_config={"weights_sha256": model.sha256, "kind": model.card["kind"]},
                signature=signature_of(model.card["kind"]),
                pip_requirements=_requirements(),
            )
    return info.model_uri, info.model_id


def _requirements() -> list[str]:
    pinned = []
    for package in REQUIREMENTS:
        try:
            pinned.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            pinned.append(package)
    return pinned


def _configuration(model: Trained, tags: dict[str, str]) -> str:
    """SHA-256 of what the model was built and trained by."""
    config = {"config": model.card["config"], "preset": tags["preset"], "seed": tags["seed"]}
    if model.name == registry.RANKER and tags["objective"] != DEFAULT_OBJECTIVE:
        config["objective"] = tags["objective"]
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


_DESCRIPTIONS = {
    registry.RANKER: "Generator-only list ranker; alias champion serves, challenger is tonight's, previous is what "
    "rollback returns to.",
    registry.REWARD: "List-level reward model that guided the ranker of the same night.",
}


if __name__ == "__main__":
    run_alone(run)
