"""A workspace with a promoted, a kept, a refused and a failed night, all said by the real steps on small inputs.

Not by Spark's steps and not by smoke_serve, which need minutes; reports name what they lack. Item titles are hostile.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components import registry
from components.check_features.main import run as check_features
from components.gate_promotion.main import gate
from components.generate_groups.main import run as generate_groups
from components.promote_model.main import run as promote
from components.publish_report.main import run as publish
from components.publish_report.result import summarise
from components.register_model.main import run as register
from components.step import Step
from components.train_ranker.main import run as train_ranker
from components.train_reward.main import run as train_reward
from console.workspace import Night, Workspace
from goalrank.errors import DataRefused
from goalrank.verdict import to_json
from tests.components.graded_night import GradedNight
from tests.components.test_check_features import Tables, write_snapshot
from tests.verdicts import passing

HOSTILE = (
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "\"'><svg onload=document.title='taken'>",
    "{{ 7 * 7 }} {% raw %} ${7 * 7}",
    "\u202eright to left \u05d0\u05d1\u05d2",
    "a" * 200,
    "line\nbreak\tand & ampersand &lt;b&gt;",
    "</td></tr></table><h1>out",
)
"""Titles that no page may take for anything but text; the fifth opens a right-to-left override and never closes it."""

COPIED = ("check_features", "train_reward", "generate_groups", "train_ranker")
TRAINED = COPIED[1:]


class ReportedNights:
    """`workspace` with four tries of one date; `promoted`, `kept`, `refused` and `failed` are their folders."""

    def __init__(self, folder: Path) -> None:
        self.graded = GradedNight(folder / "graded")
        self.workspace, self.snapshots = folder / "workspace", folder / "snapshots"
        self.journal_uri = str(self.workspace / "journal")
        self.place = Workspace(self.workspace)
        self.place.folder.mkdir()
        self.place.record_logs(self.workspace / "logs")
        self._give_titles()
        self.graded.reign(self.journal_uri, {"good": "2025-12-31"})
        self.promoted = self._judged("better", self._data_and_training)
        self.kept = self._judged("good", lambda night: self._copied(self.promoted, night))
        self.refused = self._refused()
        self.failed = self._failed()

    @property
    def date(self) -> str:
        return self.graded.inputs.date

    @property
    def tracking_uri(self) -> str:
        return self.graded.tracking_uri

    def _give_titles(self) -> None:
        path = self.graded.inputs.folder / "training_set" / "items.parquet"
        items = pq.read_table(path)
        titles = pa.array([HOSTILE[item % len(HOSTILE)] for item in items["item_id"].to_pylist()])
        pq.write_table(items.set_column(items.schema.get_field_index("title"), "title", titles), path)

    def _night(self) -> Night:
        return self.place.new_night(self.date, {"preset": "tiny"})

    def _judged(self, name: str, before: Any) -> Path:
        """A night whose challenger is the ranker of that name, to the promotion if there is one."""
        night, inputs = self._night(), self.graded.inputs
        before(night.folder)
        arguments = inputs.registration_arguments(name, self.tracking_uri) | {"run_uri": str(night.folder)}
        register(**arguments)
        registration = arguments["registration"]
        evaluation, serving = night.folder / "evaluation", night.folder / "serving"
        evaluated = self.graded.evaluate(night.folder, name, run_uri=str(night.folder), journal_uri=self.journal_uri)
        shutil.copy(evaluated.arguments["verdict"], evaluation)
        ranker = registry.registered_identity(registry.read_registration(registration), "ranker")
        serving.write_text(to_json(passing(ranker, inputs.snapshot_id, self.date)))
        documents = {"registration": registration, "evaluation": str(evaluation), "serving": str(serving)}
        if gate(**documents, run_uri=str(night.folder)):
            own = {"date": self.date, "run_uri": str(night.folder), "journal_uri": self.journal_uri}
            promote(**documents, tracking_uri=self.tracking_uri, **own)
        return self._published(night, "SUCCEEDED")

    def _data_and_training(self, folder: Path) -> None:
        days = ["2025-12-30", "2025-12-31", "2026-01-01"]
        for known in (days[:2], days):
            arguments = {"snapshots_uri": str(self.snapshots), "run_uri": str(folder)}
            check_features(write_snapshot(self.snapshots, known), data_docs=str(folder / "docs"), **arguments)
        inputs, run_uri = str(self.graded.inputs.folder / "training_set"), str(folder)
        paths = {name: str(folder / "artifacts" / name) for name in ("reward", "judge", "groups", "ranker")}
        train_reward(inputs, paths["reward"], paths["judge"], "tiny", 0, run_uri)
        generate_groups(inputs, paths["reward"], paths["groups"], "tiny", 0, run_uri)
        train_ranker(
            training_set=inputs,
            groups=paths["groups"],
            reward_model=paths["reward"],
            ranker=paths["ranker"],
            checkpoints_uri=str(folder / "checkpoints"),
            preset="tiny",
            seed=0,
            run_uri=run_uri,
        )

    def _copied(self, source: Path, folder: Path) -> None:
        (folder / "outcomes").mkdir(parents=True)
        for name in COPIED:
            shutil.copy(source / "outcomes" / f"{name}.json", folder / "outcomes")

    def _refused(self) -> Path:
        night = self._night()

        def wrong(tables: Tables) -> None:
            for row in tables["item_content"]:
                row["duration_seconds"] = -1.0
            tables["user_stats"][0]["watch_ms"] = -7

        snapshots = self.snapshots.with_name("refused")
        with suppress(DataRefused):
            snapshot = write_snapshot(snapshots, ["2026-01-01"], wrong)
            check_features(snapshot, str(snapshots), str(night.folder / "docs"), str(night.folder))
        return self._published(night, "FAILED")

    def _failed(self) -> Path:
        """Killed in the middle of a step."""
        night = self._night()
        self._copied(self.promoted, night.folder)
        for name in TRAINED[1:]:
            (night.folder / "outcomes" / f"{name}.json").unlink()
        Step("generate_groups", str(night.folder)).__enter__()
        return self._published(night, "FAILED")

    def _published(self, night: Night, state: str) -> Path:
        result = summarise(night.folder)
        document = json.loads((night.folder / "night.json").read_text()) | {
            "verdict": result["verdict"],
            "reason": result["reason"],
            "model_version": result["model_version"],
            "exit_code": result["exit_code"],
            "ended_at": time.time(),
            "seconds": {"wall": 12.5},
        }
        (night.folder / "night.json").write_text(json.dumps(document))
        publish(str(night.folder), self.date, state, self.tracking_uri)
        return night.folder


def in_parts(folder: Path) -> None:
    """Let a night's outcomes say that its groups were made in two parts and joined, as a cluster makes them."""
    outcomes = folder / "outcomes"
    whole = json.loads((outcomes / "generate_groups.json").read_text(encoding="utf-8"))
    (outcomes / "generate_groups.json").unlink()
    figures = {"requests": whole["figures"]["requests"] // 2}
    parts = {f"generate_groups_{part}_of_2": whole | {"figures": figures} for part in (1, 2)}
    for name, outcome in (parts | {"join_groups": whole}).items():
        (outcomes / f"{name}.json").write_text(json.dumps(outcome | {"step": name}), encoding="utf-8")


@lru_cache(maxsize=1)
def _shared() -> tuple[ReportedNights, TemporaryDirectory[str]]:
    folder = TemporaryDirectory(prefix="reported-nights-")  # goes when the process ends
    return ReportedNights(Path(folder.name)), folder


def shared_nights() -> ReportedNights:
    """One such workspace for all tests of the process; they leave its nights as they are."""
    return _shared()[0]
