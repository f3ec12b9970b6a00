"""A workspace for `goalrank ui`: features online, three versions registered, two promoted, reports, hostile titles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.materialize_features.main import run as materialize
from goalrank import schema
from tests.components.promoted_workspace import PromotedWorkspace
from tests.components.tiny_snapshot import days_until, feature_row, write_snapshot
from tests.components.untrained_models import NightInputs

LAST, ITEMS = "2026-01-04", 40
HOSTILE = '<img src=x onerror="document.title=1"><script>alert(1)</script>'
"""The title of every item whose id is a multiple of three."""
REPORT = "<!doctype html><html lang=en><title>Report</title><main><h1>Kept</h1></main>"
DOCS = "<!doctype html><html lang=en><title>Docs</title><main><h1>Data Docs</h1></main>"


def make_workspace(folder: Path) -> PromotedWorkspace:
    """Champion version 2, challenger version 3; features of LAST online."""
    content = schema.FEATURE_VIEWS["item_content"]
    day = days_until(LAST, 2)[0]
    hostile = range(3, ITEMS + 1, 3)
    rows = [feature_row(content, key, day, 0) | {"title": f"{HOSTILE} {key}"} for key in hostile]
    skipped = {(content.name, each): set(hostile) for each in days_until(LAST, 2)}
    workspace, inputs = folder / "workspace", folder / "inputs"
    snapshots = workspace / "snapshots"
    artifact = write_snapshot(snapshots, LAST, 2, items=ITEMS, extra={(content.name, day): rows}, skip=skipped)
    materialize(str(artifact), str(workspace / "feast"), str(inputs / "training_set"), 2, str(folder / "run"))
    place = PromotedWorkspace(workspace, NightInputs(inputs, made=True)).promoted(2)
    newest = place.night(3, champion=2)
    place.card(newest, "kept", "3")
    (newest / "report.html").write_text(REPORT)
    docs = newest / "artifacts" / "goalrank-nightly-1" / "check-logs" / "data_docs"
    docs.mkdir(parents=True)
    (docs / "index.html").write_text(DOCS)
    return place


@contextmanager
def pages(workspace: Path, *flags: str) -> Iterator[str]:
    """`goalrank ui` as a process of its own; its address."""
    command = [sys.executable, "-m", "goalrank_platform", "ui", "--no-open", "--port", "0", *flags]
    log = workspace.parent / "ui.log"
    with open(log, "w", encoding="utf-8") as told:
        process = subprocess.Popen(
            [*command, "--workspace", str(workspace)],
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://" in line, (line, log.read_text(encoding="utf-8"))
        yield line.split(" at ")[1].partition(";")[0]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def wait_until_loaded(address: str, seconds: float = 300.0) -> None:
    """Until models and features are there, or the page knows that they cannot be had."""
    deadline = time.monotonic() + seconds
    while True:
        with urllib.request.urlopen(f"{address}/api/state", timeout=60) as answer:
            if json.load(answer)["state"] != "loading":
                return
        assert time.monotonic() < deadline, f"still loading after {seconds:.0f} s"
        time.sleep(0.2)
