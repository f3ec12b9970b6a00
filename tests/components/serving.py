"""A filled online store, registered rankers, requests and real server processes, small: for tests of the service."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from starlette.applications import Starlette

from components import registry
from components.feature_store import OnlineReader, open_store
from components.materialize_features.main import run as materialize
from components.serve_model.app import create_app
from components.serve_model.feature_rows import FeatureRows
from components.serve_model.metrics import Metrics
from components.serve_model.ranking import Ranking
from components.serve_model.served_log import ServedLog
from components.serve_model.service import Service
from components.smoke_serve import offline
from goalrank import schema
from goalrank.checkpoint import load_model, save_model
from goalrank.encoders import ModelSizes
from goalrank.presets import preset
from goalrank.ranker import Ranker
from tests.components.tiny_snapshot import midnight, write_snapshot

LAST, ITEMS, USERS = "2026-01-04", 40, 20
REPOSITORY = Path(__file__).resolve().parents[2]

torch.set_num_threads(1)


@dataclass(frozen=True)
class Place:
    """Where a service finds everything."""

    folder: Path

    @property
    def feast_uri(self) -> str:
        return str(self.folder / "feast")

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow' / 'mlflow.db'}"

    @property
    def online_database(self) -> Path:
        return self.folder / "feast" / "online.db"

    def register(self, seed: int, alias: str | None = registry.CHAMPION) -> Path:
        """A random ranker as a registered version; the directory its files lie in."""
        return register(self.folder, self.tracking_uri, seed, alias)

    def point(self, champion: str, previous: str | None = None) -> None:
        """Move the aliases."""
        client = registry.connect(self.tracking_uri)
        registry.point(client, registry.RANKER, registry.CHAMPION, champion)
        registry.point(client, registry.RANKER, registry.PREVIOUS, previous)

    def offline_lists(self, directory: Path, requests: list[dict[str, Any]]) -> list[list[int]]:
        """The lists of a model directory's ranker on the offline store's rows, one request at a time."""
        rows = offline.rows_as_of(open_store(self.feast_uri), requests, midnight(LAST, 1))
        return offline.lists_of(load_model(directory), requests, rows)  # type: ignore[arg-type]

    def features(self, **more: Any) -> FeatureRows:
        """Rows read from the online store."""
        return FeatureRows(OnlineReader(self.feast_uri), **more)


def make_place(folder: Path) -> Place:
    """A store with the features of USERS users and ITEMS items; no version yet."""
    artifact = write_snapshot(folder / "snapshots", LAST, 2, USERS, ITEMS)
    materialize(str(artifact), str(folder / "feast"), str(folder / "training_set"), 2, str(folder / "run"))
    return Place(folder)


def register(folder: Path, tracking_uri: str, seed: int, alias: str | None = registry.CHAMPION) -> Path:
    """A random ranker as a registered version; the directory its files lie in."""
    torch.manual_seed(seed)
    sizes = ModelSizes.from_preset(preset("tiny"))
    model = Ranker(sizes)
    for parameter in model.parameters():  # larger than initialised, so that lists differ from request to request
        parameter.data.mul_(2.0)
    source = folder / f"version-{seed}"
    card = save_model(source / registry.MODEL_FOLDER, model, "ranker", sizes.to_dict(), {"seed": seed}, {})
    client = registry.connect(tracking_uri)
    if not client.search_registered_models():
        client.create_registered_model(registry.RANKER)
    tags = {"weights_sha256": card["weights_sha256"], registry.FEATURE_SET: schema.feature_set()}
    made = client.create_model_version(registry.RANKER, str(source), tags=tags)
    if alias:
        client.set_registered_model_alias(registry.RANKER, alias, made.version)
    return source / registry.MODEL_FOLDER


def body(number: int = 1, candidates: int = 12, **more: object) -> dict[str, Any]:
    """A request, the same for the same number."""
    rng = np.random.default_rng(number)
    offered = rng.choice(ITEMS, size=candidates, replace=False) + 1
    return {
        "user_id": int(number % USERS) + 1,
        "candidates": [{"item_id": int(item), "score": float(rng.normal())} for item in offered],
        **more,
    }


def by_score(request: dict[str, Any]) -> list[int]:
    """The retriever's order."""
    ordered = sorted(request["candidates"], key=lambda candidate: -candidate["score"])
    return [candidate["item_id"] for candidate in ordered][: schema.LIST_LENGTH]


def tensors(*requests: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The same requests in the Open Inference Protocol; all have as many candidates."""
    size = [len(requests), len(requests[0]["candidates"])]
    ids = [candidate["item_id"] for one in requests for candidate in one["candidates"]]
    scores = [candidate["score"] for one in requests for candidate in one["candidates"]]
    return {
        "inputs": [
            {"name": "user_id", "shape": size[:1], "datatype": "INT64", "data": [one["user_id"] for one in requests]},
            {"name": "candidates", "shape": size, "datatype": "INT64", "data": ids},
            {"name": "scores", "shape": size, "datatype": "FP64", "data": scores},
        ],
        **more,
    }


def app_of(ranking: Ranking, log: ServedLog) -> Starlette:
    """The service's application, without following the registry."""
    return create_app(Service(ranking, log, Metrics()))


def read_logs(logs: Path, table: str) -> pa.Table:
    """All rows of a table that the service wrote, each file held to the contract."""
    files = sorted((logs / table).glob("dt=*/served-*.parquet"))
    tables = [pq.read_table(file, partitioning=None) for file in files]
    for one in tables:
        assert one.schema.equals(schema.LOG_TABLES[table])
    return pa.concat_tables(tables) if tables else schema.LOG_TABLES[table].empty_table()


# -------------------------------------------------------------------------------------------------------------- server


def launch(place: Place, logs: Path, *flags: str, told: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    """The service as a process of its own, on any free port; its log goes to `told`."""
    command = [sys.executable, "-m", "components.serve_model.main", "--feast-uri", place.feast_uri]
    command += ["--tracking-uri", place.tracking_uri, "--logs-uri", str(logs), "--port", "0", *flags]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=told,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def address_of(process: subprocess.Popen[str]) -> str:
    """Where it answers, once it does."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "answers at http://127.0.0.1:" in line, (line, process.wait(30))
    return line.split("answers at ")[1].split()[0]


@contextmanager
def serving(place: Place, logs: Path, *flags: str) -> Iterator[str]:
    """A real server; its address. Ended gracefully."""
    with open(place.folder / "server.log", "a", encoding="utf-8") as told:
        process = launch(place, logs, *flags, told=told)
    try:
        yield address_of(process)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def post(address: str, path: str, document: Any) -> dict[str, Any]:
    """A good answer's document."""
    request = urllib.request.Request(
        f"{address}{path}", json.dumps(document).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def get(address: str, path: str) -> dict[str, Any]:
    """A good answer's document."""
    with urllib.request.urlopen(f"{address}{path}", timeout=30) as answer:
        return json.load(answer)


class Caller:
    """A kept-alive connection that takes any answer: (status, document)."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)

    def post(self, path: str, content: bytes | Any) -> tuple[int, Any]:
        """Bytes as they are, anything else as JSON."""
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._connection.request("POST", path, payload, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())
