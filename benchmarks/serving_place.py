"""What both servers of benchmarks/serve_load.py need: a filled store, two registered rankers, requests, answers."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components import registry
from components.feature_store import open_store
from components.materialize_features.main import run as materialize
from components.materialize_features.online import end_of
from components.register_model.main import _requirements
from components.register_model.signature import signature_of
from components.smoke_serve import offline
from goalrank import schema
from goalrank.checkpoint import load_model, save_model
from goalrank.encoders import ModelSizes
from goalrank.presets import preset
from goalrank.ranker import Ranker
from tests.components.tiny_snapshot import write_snapshot

LAST = "2026-01-04"
CANDIDATES = 50
MLFLOW_MODEL = "serve-load-"
PYFUNC = Path(registry.__file__).parent / "register_model" / "pyfunc_model.py"


@dataclass(frozen=True)
class Place:
    """Where everything lies, the requests, and the right list of each under each version."""

    folder: Path
    requests: list[dict[str, Any]]
    lists: dict[str, list[list[int]]]
    """Version of the ranker -> the list of each request, made offline, one request at a time."""

    @property
    def feast_uri(self) -> str:
        return str(self.folder / "feast")

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow' / 'mlflow.db'}"


def build(folder: Path, users: int, items: int, requests: int, size: str, seed: int) -> Place:
    """Make the place in an empty folder. The rankers' weights are random: only their cost matters here.

    Args:
        folder: new.
        users, items: known to the store; one request in fifty comes from a user it does not know.
        requests: how many different ones.
        size: preset of the rankers.
        seed: of everything.
    """
    artifact = write_snapshot(folder / "snapshots", LAST, 2, users, items)
    materialize(str(artifact), str(folder / "feast"), str(folder / "training_set"), 2, str(folder / "run"))
    shutil.rmtree(folder / "training_set")
    place = Place(folder, _requests(users, items, requests, seed), {})
    client = registry.connect(place.tracking_uri)
    client.create_registered_model(registry.RANKER)
    for number in (1, 2):
        place.lists[_register(place, size, seed + number)] = []
    rows = _rows(place)
    for version, lists in place.lists.items():
        model = load_model(folder / f"version-{version}" / registry.MODEL_FOLDER)
        lists += offline.lists_of(model, place.requests, rows)  # type: ignore[arg-type]
    registry.point(client, registry.RANKER, registry.CHAMPION, "1")
    registry.point(client, registry.RANKER, registry.PREVIOUS, "2")  # without it nobody would be held back
    return place


def register_for_mlflow(place: Place, keep_seconds: float) -> str:
    """Version 1's weights as a pyfunc that reads the online store itself; its model URI."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    columns: list[Any] = [ColSpec(DataType.long, "user_id"), ColSpec(Array(DataType.long), "item_ids")]
    columns.append(ColSpec(Array(DataType.double), "scores"))
    name = f"{MLFLOW_MODEL}{'kept' if keep_seconds else 'plain'}"
    experiment = registry.experiment_id(registry.connect(place.tracking_uri), place.tracking_uri)
    with mlflow.start_run(experiment_id=experiment):
        mlflow.pyfunc.log_model(
            name=name,
            registered_model_name=name,
            python_model=str(Path(__file__).with_name("mlflow_ranker.py")),
            artifacts={"model": str(place.folder / "version-1" / registry.MODEL_FOLDER)},
            model_config={"feast_uri": place.feast_uri, "keep_seconds": keep_seconds},
            signature=ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec(Array(DataType.long))])),
            pip_requirements=_requirements(),
        )
    return f"models:/{name}/1"


def move_aliases(tracking_uri: str, every_seconds: float) -> None:
    """Make the other version champion every so many seconds, and this one previous, until killed."""
    client = registry.connect(tracking_uri)
    champion = "1"
    while True:
        time.sleep(every_seconds)
        before, champion = champion, "2" if champion == "1" else "1"
        registry.point(client, registry.RANKER, registry.CHAMPION, champion)
        registry.point(client, registry.RANKER, registry.PREVIOUS, before)


def feature_bodies(place: Place, count: int) -> list[dict[str, Any]]:
    """The first requests with their features beside them, as the registered pyfunc takes them."""
    rows = _rows(place)
    by_key = {
        entity: {
            row[entity]: {name: value for name, value in row.items() if name != "as_of"} for row in table.to_pylist()
        }
        for entity, table in rows.items()
    }
    bodies = []
    for request in place.requests[:count]:
        user = {name: value for name, value in by_key["user_id"][request["user_id"]].items() if name != "user_id"}
        candidates = [{**by_key["item_id"][one["item_id"]], "score": one["score"]} for one in request["candidates"]]
        bodies.append({"user": user, "candidates": candidates})
    return bodies


def _rows(place: Place) -> dict[str, Any]:
    return offline.rows_as_of(open_store(place.feast_uri), place.requests, end_of(LAST))


def _requests(users: int, items: int, count: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        offered = random.choice(items, size=CANDIDATES, replace=False) + 1
        user = int(random.integers(1, users + 1)) if number % 50 else users + 1 + number
        scores = random.normal(size=CANDIDATES)
        candidates = [
            {"item_id": int(item), "score": float(score)} for item, score in zip(offered, scores, strict=True)
        ]
        made.append({"user_id": user, "candidates": candidates})
    return made


def _register(place: Place, size: str, seed: int) -> str:
    """A ranker registered as a night does it, without the night; its version."""
    import mlflow

    torch.manual_seed(seed)
    sizes = ModelSizes.from_preset(preset(size))
    model = Ranker(sizes)
    for parameter in model.parameters():  # larger than initialised, so that lists differ from request to request
        parameter.data.mul_(2.0)
    number = str(len(place.lists) + 1)
    folder = place.folder / f"version-{number}" / registry.MODEL_FOLDER
    card = save_model(folder, model, "ranker", sizes.to_dict(), {"seed": seed}, {})
    client = registry.connect(place.tracking_uri)
    with mlflow.start_run(experiment_id=registry.experiment_id(client, place.tracking_uri)) as run:
        info = mlflow.pyfunc.log_model(
            name="ranker",
            python_model=str(PYFUNC),
            artifacts={"model": str(folder)},
            model_config={"weights_sha256": card["weights_sha256"], "kind": "ranker"},
            signature=signature_of("ranker"),
            pip_requirements=_requirements(),
        )
    tags = {"weights_sha256": card["weights_sha256"], registry.FEATURE_SET: schema.feature_set()}
    made = client.create_model_version(registry.RANKER, info.model_uri, run.info.run_id, tags=tags)
    return str(made.version)
