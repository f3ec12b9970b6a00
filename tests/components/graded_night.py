"""A night with three registered rankers of known order, evaluated in any constellation: real MLflow, real step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file

from components import registry
from components.evaluate_ranker.main import run
from components.promote_model import journal
from components.register_model.main import run as register
from goalrank.verdict import EvaluationVerdict, load_verdict
from tests.components.untrained_models import NightInputs

NAMES = ("below_floor", "good", "better")


def spoil(folder: Path, *, weight: float | None = None, loss: float | None = None) -> dict[str, Any]:
    """Give one weight, or the last loss, of a model directory that value, its digest made to fit; the new card."""
    card = json.loads((folder / "model.json").read_text())
    if weight is not None:
        weights = load_file(folder / "weights.safetensors")
        next(tensor for tensor in weights.values() if tensor.is_floating_point()).view(-1)[0] = weight
        save_file(weights, folder / "weights.safetensors")
        card["weights_sha256"] = registry.file_sha256(folder / "weights.safetensors")
    if loss is not None:
        card["metrics"]["curves"]["loss"][-1][1] = loss
    (folder / "model.json").write_text(json.dumps(card))
    return card


class Evaluation:
    """One run of evaluate_ranker on the ranker of that name, and what it left behind."""

    def __init__(self, inputs: NightInputs, tracking_uri: str, folder: Path, name: str, **changes: Any) -> None:
        self.folder, self.name = folder, name
        self.registration = registry.read_registration(inputs.folder / f"registration-{name}")
        self.arguments: dict[str, Any] = {
            "registration": str(inputs.folder / f"registration-{name}"),
            "training_set": str(inputs.folder / "training_set"),
            "judge_model": str(inputs.folder / "judge_model"),
            "tracking_uri": tracking_uri,
            "verdict": str(folder / "verdict"),
            "lists": str(folder / "lists"),
            "allow_bootstrap": False,
            "world_uri": "",
            "seed": 3,
            "run_uri": str(folder / "run"),
            "date": inputs.date,
            "off_policy": "veto",  # some 200 requests are too few for more
        } | changes
        run(**self.arguments)

    @property
    def verdict(self) -> EvaluationVerdict:
        return load_verdict(self.arguments["verdict"], "evaluation")

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads((self.folder / "run/outcomes/evaluate_ranker.json").read_text())["figures"]

    @property
    def lists(self) -> list[dict[str, Any]]:
        return pq.read_table(self.arguments["lists"]).to_pylist()


class GradedNight:
    """Inputs of a night, and a registry that holds its rankers as versions: shown below the floor, good, better."""

    def __init__(self, folder: Path) -> None:
        self.inputs = NightInputs(folder / "night", requests=600)
        for name, ranker in self.inputs.graded_rankers().items():
            self.inputs.save(name, ranker, "ranker")
        self.tracking_uri = f"sqlite:///{folder}/mlflow/mlflow.db"
        self.client = registry.connect(self.tracking_uri)
        for name in NAMES:
            register(**self.inputs.registration_arguments(name, self.tracking_uri))

    def forget(self) -> None:
        """No alias points anywhere."""
        for name in (registry.RANKER, registry.REWARD):
            for alias in (registry.CHAMPION, registry.PREVIOUS):
                registry.point(self.client, name, alias, None)

    def version(self, name: str) -> str:
        """The registered version of that ranker."""
        return registry.read_registration(self.inputs.folder / f"registration-{name}")["ranker"]["version"]

    def crown(self, name: str) -> str:
        """Make the ranker of that name champion, and return its version."""
        registry.point(self.client, registry.RANKER, registry.CHAMPION, self.version(name))
        return self.version(name)

    def reign(self, journal_uri: str, reigns: dict[str, str]) -> None:
        """Journal and aliases after promotions of those rankers on those dates, oldest first."""
        before = None
        for name, date in reigns.items():
            version = self.version(name)
            moves = [{"name": registry.RANKER, "from": before, "to": version, "previous": before}]
            number = journal.begin(
                journal_uri, kind="promotion", reason="a test's", date=date, snapshot_id="s", run_uri="", moves=moves
            )
            journal.apply(self.client, moves)
            journal.end(journal_uri, number)
            before = version

    def evaluate(self, folder: Path, name: str, **changes: Any) -> Evaluation:
        """Run the step on the ranker of that name."""
        return Evaluation(self.inputs, self.tracking_uri, folder, name, **changes)

    def stored(self, name: str) -> Path:
        """The model directory of a registered ranker, where the registry keeps it."""
        digest = json.loads((self.inputs.folder / name / "model.json").read_text())["weights_sha256"]
        root = Path(self.tracking_uri.removeprefix("sqlite:///")).parent
        return next(card.parent for card in root.rglob("model.json") if digest in card.read_text())

    @contextmanager
    def spoiled(self, name: str, *, weight: float | None = None, loss: float | None = None) -> Iterator[None]:
        """A registered ranker with one weight, or its loss, of that value; digests made to fit, as if it had always
        been so."""
        folder, version = self.stored(name), self.version(name)
        kept = {file: file.read_bytes() for file in (folder / "weights.safetensors", folder / "model.json")}
        recorded = json.loads(kept[folder / "model.json"])["weights_sha256"]
        card = spoil(folder, weight=weight, loss=loss)
        self.client.set_model_version_tag(registry.RANKER, version, "weights_sha256", card["weights_sha256"])
        try:
            yield
        finally:
            for file, content in kept.items():
                file.write_bytes(content)
            self.client.set_model_version_tag(registry.RANKER, version, "weights_sha256", recorded)


@lru_cache(maxsize=1)
def _shared() -> tuple[GradedNight, TemporaryDirectory[str]]:
    folder = TemporaryDirectory(prefix="graded-night-")  # goes when the process ends
    return GradedNight(Path(folder.name)), folder


def shared_night() -> GradedNight:
    """One graded night for all tests of the process: teaching and registering three rankers takes half a minute."""
    night, _ = _shared()
    night.forget()
    return night
