"""smoke_serve: the registered version answers logged requests in a fresh process; offline lists say what is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import goalrank_platform
from components import registry
from components.extract_features.snapshots import Snapshot
from components.materialize_features.online import end_of
from components.smoke_serve import offline
from components.step import Step, run_alone, write_atomic
from goalrank.errors import ModelRefused, ServingRefused, TryAgain
from goalrank.schema import LIST_LENGTH
from goalrank.verdict import FORMAT, Check, ModelVersion, ServingVerdict, judged_now, to_json

if TYPE_CHECKING:
    from goalrank.ranker import Ranker

TIMEOUT_SECONDS = 300
"""A start costs tens of seconds on a busy machine; a process that hangs must not hang the night."""


def run(
    registration: str,
    snapshot: str,
    training_set: str,
    feast_uri: str,
    tracking_uri: str,
    verdict: str,
    run_uri: str,
    requests: int = 20,
) -> None:
    """Serve the registered version and compare; the verdict is written before any refusal is raised.

    Args:
        registration: artifact of register_model.
        snapshot: the snapshot artifact.
        training_set: tonight's training set, for logged requests of the night's date.
        feast_uri: folder of the feature store.
        tracking_uri: MLflow.
        verdict: JSON file to write.
        run_uri: folder of this run.
        requests: how many to ask.

    Raises:
        ServingRefused: an answer is missing, invalid, or not the list that offline features give.
        ModelRefused: the inputs are of different nights.
        TryAgain: MLflow or the feature store is away, or the process did not answer in time.
    """
    with Step("smoke_serve", run_uri) as step:
        document = registry.read_registration(registration)
        night = Snapshot.load(snapshot)
        if (night.snapshot_id, night.date) != (document["snapshot_id"], document["date"]):
            raise ModelRefused(
                f"the snapshot is {night.snapshot_id} of {night.date}, expected {document['snapshot_id']} of "
                f"{document['date']}; pass the artifacts of one night"
            )
        model = registry.registered_identity(document, "ranker")
        asked = offline.logged_requests(training_set, night.date, requests)
        answers: list[dict[str, Any]] = []
        faults = {"requests": [f"no request of {night.date} was logged, so nothing was asked"]}
        if asked:
            faults, answers = _ask_and_compare(step, asked, model, tracking_uri, feast_uri, end_of(night.date))
        checks = [
            Check(name=name, value=float(len(found)), threshold=0.0, status="failed" if found else "passed")
            for name, found in faults.items()
        ]
        failed = [f"{name}: {found[0]} ({len(found)} in all)" for name, found in faults.items() if found]
        decided = ServingVerdict(
            format=FORMAT,
            kind="serving",
            model=model,
            snapshot_id=night.snapshot_id,
            date=night.date,
            decision="refuse" if failed else "pass",
            reason="; ".join(failed) or f"{len(asked)} logged requests answered as offline",
            judged_at=judged_now(),
            checks=checks,
            requests=len(asked),
        )
        write_atomic(Path(verdict), to_json(decided))
        step.figures |= {"requests": len(asked), "checks": [check.model_dump() for check in checks]}
        times = [given["milliseconds"] for given in answers if "milliseconds" in given]
        if times:
            step.figures["served_p50_ms"] = round(float(np.median(times)), 3)
        step.reason = decided.reason
        if failed:
            raise ServingRefused(f"version {model.version} must not be served: {decided.reason}")


def _ask_and_compare(
    step: Step, asked: list[dict[str, Any]], model: ModelVersion, tracking_uri: str, feast_uri: str, as_of: datetime
) -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    """What is wrong, by check, and the answers. The fresh process starts while the offline features are read."""
    with tempfile.TemporaryDirectory() as aside:
        server = _start(Path(aside), model, tracking_uri, feast_uri, asked)
        try:
            step.progress(0, 3, "offline features")
            with step.tool("feast"):
                from components.feature_store import offline_engine, open_store

                store = open_store(feast_uri)
            with offline_engine(store, step):
                rows = offline.rows_as_of(store, asked, as_of)
            skewed = offline.skewed(store, rows)
            step.progress(1, 3, "waiting for the fresh process")
            answers = _wait(server, Path(aside))
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
        if isinstance(answers, str):
            return {"served": [answers]}, []
        step.progress(2, 3, "comparing")
        return _faults(model, asked, answers, _expected(Path(aside), model, asked, rows), skewed), answers


# ------------------------------------------------------------------------------------------------------ fresh process


def _start(
    folder: Path, model: ModelVersion, tracking_uri: str, feast_uri: str, asked: list[dict[str, Any]]
) -> subprocess.Popen:
    (folder / "models").mkdir()
    question = {
        "tracking_uri": tracking_uri,
        "feast_uri": feast_uri,
        "model": model.model_dump(),
        "folder": str(folder / "models"),
        "requests": asked,
    }
    (folder / "question").write_text(json.dumps(question), encoding="utf-8")
    paths = [str(goalrank_platform.root()), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "components.smoke_serve.server", str(folder / "question"), str(folder / "answer")]
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _wait(server: subprocess.Popen, folder: Path) -> list[dict[str, Any]] | str:
    """The answers, or why the version cannot be served at all.

    Raises:
        TryAgain: no answer in time, or something outside was away.
    """
    try:
        code = server.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise TryAgain(
            f"the serving process gave no answer within {TIMEOUT_SECONDS} s; run the same command again, and look at "
            "the machine's load if it stays so"
        ) from None
    if not (folder / "answer").exists():
        last = (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return f"the serving process ended with code {code}: {''.join(last)[:300]}"
    document = json.loads((folder / "answer").read_text(encoding="utf-8"))
    if document.get("error") == TryAgain.kind:
        raise TryAgain(document["reason"])
    return document["reason"] if "error" in document else document["answers"]


# --------------------------------------------------------------------------------------------------------- comparison


def _expected(folder: Path, model: ModelVersion, asked: list[dict[str, Any]], rows: dict[str, Any]) -> list[list[int]]:
    """The lists that the registered weights give on the offline rows."""
    import torch

    from goalrank.checkpoint import load_model

    (directory,) = (folder / "models").iterdir()
    registry.verify_weights(directory, model)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in the same order as in the service
    try:
        return offline.lists_of(cast("Ranker", load_model(directory)), asked, rows)
    finally:
        torch.set_num_threads(threads)


def _faults(
    model: ModelVersion,
    asked: list[dict[str, Any]],
    answers: list[dict[str, Any]],
    expected: list[list[int]],
    skewed: list[str],
) -> dict[str, list[str]]:
    """What is wrong, by check; an empty list is a check that passed."""
    faults: dict[str, list[str]] = {"answered": [], "version": [], "valid_lists": [], "equal_lists": []}
    if len(answers) != len(asked):
        faults["answered"].append(f"{len(answers)} answers to {len(asked)} requests")
    for request, given, right in zip(asked, answers, expected, strict=False):
        name = request["request_id"]
        if "refused" in given or given["fallback"] in ("store_away", "model_failed"):
            faults["answered"].append(f"request {name}: {given.get('refused') or given['fallback']}")
            continue
        if given["model_version"] != model.version:
            faults["version"].append(f"request {name} by version {given['model_version']}, expected {model.version}")
        if reason := invalid(given["items"], [candidate["item_id"] for candidate in request["candidates"]]):
            faults["valid_lists"].append(f"request {name}: {reason}")
            continue
        if given["fallback"] == "missing_features":  # no candidate has a row; an empty store fails equal_features
            right = _retriever_order(request, len(given["items"]))
        if given["items"] != right:
            faults["equal_lists"].append(f"request {name}: {given['items']} served, {right} offline")
    return {**faults, "equal_features": skewed}


def _retriever_order(request: dict[str, Any], length: int) -> list[int]:
    ordered = sorted(request["candidates"], key=lambda candidate: -candidate["score"])
    return [candidate["item_id"] for candidate in ordered[:length]]


def invalid(items: list[int], candidates: list[int]) -> str:
    """What is wrong with a list in itself, or an empty text."""
    length = min(LIST_LENGTH, len(candidates))
    if len(items) != length:
        return f"{len(items)} items, expected {length}"
    if len(set(items)) != length:
        return f"an item stands twice in {items}"
    strange = sorted(set(items) - set(candidates))
    return f"items {strange} are not among the candidates" if strange else ""


if __name__ == "__main__":
    run_alone(run)
