"""A night on one machine, and the same night on the cluster's stores, once a session.

On the cluster's stores a Spark worker is killed outright while it extracts features.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import lacking
from tests.column import servers
from tests.pipeline.conftest import COMMAND, WORLD, flags, goalrank, run_night

NIGHTS = int(os.environ.get("COLUMN_NIGHTS", "1"))
"""In a row on each column (`make column COLUMN_NIGHTS=2`). The second goes on from the first: new rows only, and
against its champion."""

WORKERS = 2
PROCESSES = 2
NIGHT_SECONDS = 1800
"""Longest that one night may take."""


@dataclass
class Nights:
    """A workspace and the results of its nights, oldest first."""

    workspace: Path
    results: list[dict[str, Any]] = field(default_factory=list)

    def folder(self, night: int) -> Path:
        """The run's folder of a night."""
        return Path(self.results[night]["report"]).parent

    def artifact(self, night: int, step: str, name: str) -> Path:
        """What a step of a night has put out under that name."""
        (found,) = self.folder(night).glob(f"artifacts/*/{step}/{name}")
        return found


@dataclass
class Column:
    """The cluster's stores, and what a command is told to use them."""

    databases: servers.Postgres
    redis: str
    bucket: servers.Bucket
    tracking_uri: str
    spark: servers.Spark

    def environment(self) -> dict[str, str]:
        """What a pod is given (k8s/base/settings.env, secret goalrank-feast), and two processes to train with."""
        return {
            "GOALRANK_FEATURE_STORE": "cluster",
            "GOALRANK_FEAST_REGISTRY": self.databases.feast,
            "GOALRANK_REDIS": self.redis,
            "GOALRANK_SPARK_MASTER": self.spark.master,
            "GOALRANK_TRACKING_URI": self.tracking_uri,
            "GOALRANK_TRAIN_PROCESSES": str(PROCESSES),
        }


@pytest.fixture(scope="session")
def able() -> None:
    """Skips where a server's program is missing, before anything has been run."""
    if missing := servers.missing():
        lacking.skip(f"not on this machine: {'; '.join(missing)}")


@pytest.fixture(scope="session")
def embedded(able: None, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """NIGHTS nights, the first a bootstrap, on the stores of one machine."""
    nights = Nights(tmp_path_factory.mktemp("embedded") / "workspace")
    made = goalrank("simulate", "--workspace", str(nights.workspace), "--days", "4", *WORLD)
    assert made.returncode == 0, made.stderr
    nights.results = [run_night(nights.workspace, *["--allow-bootstrap"][night:]) for night in range(NIGHTS)]
    return nights


@pytest.fixture(scope="session")
def column(able: None) -> Iterator[Column]:
    """Every store of the cluster's column, on loopback."""
    with tempfile.TemporaryDirectory(prefix="goalrank-column-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        databases = stack.enter_context(servers.postgres(folder / "postgres"))
        redis = stack.enter_context(servers.redis(folder / "redis"))
        bucket = stack.enter_context(servers.s3(folder / "s3", servers.mlflow_bucket()))
        spark = stack.enter_context(servers.spark(folder / "spark", WORKERS))
        tracking_uri = stack.enter_context(servers.mlflow(folder / "mlflow", databases.mlflow, bucket))
        yield Column(databases, redis, bucket, tracking_uri, spark)


@pytest.fixture(scope="session")
def clustered(embedded: Nights, column: Column, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """The same dates on the same logs with the cluster's stores; the first loses a worker while it extracts."""
    nights = Nights(tmp_path_factory.mktemp("clustered") / "workspace")
    environment = column.environment() | {"GOALRANK_LOGS_URI": str(embedded.workspace / "logs")}
    first, *others = (result["date"] for result in embedded.results)
    nights.results.append(_first_night(nights.workspace, first, environment, column.spark))
    nights.results += [run_night(nights.workspace, "--date", date, **environment) for date in others]
    return nights


def _first_night(workspace: Path, date: str, environment: dict[str, str], spark: servers.Spark) -> dict[str, Any]:
    night = subprocess.Popen(
        [*COMMAND, "nightly", *flags(workspace), "--date", date, "--allow-bootstrap"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        servers.waited_for(
            "extract_features", lambda: _extraction_works(workspace), lambda: night.poll() is None, NIGHT_SECONDS
        )
        spark.workers[0].kill()
        servers.waited_for("the master's notice of the lost worker", lambda: spark.alive() == WORKERS - 1)
        assert spark.runs("goalrank-extract_features"), "the worker was killed too late"
        said, errors = night.communicate(timeout=NIGHT_SECONDS)
    finally:
        night.terminate()
        night.wait(30)
    assert said, errors[-2000:]
    return json.loads(said.strip().splitlines()[-1])


def _extraction_works(workspace: Path) -> bool:
    """Has extraction digested the days, and goes on to make their rows?"""
    time.sleep(0.1)
    files = workspace.glob("nights/*/*/progress.jsonl")
    events = [json.loads(line) for file in files for line in file.read_text().splitlines() if line.endswith("}")]
    return any(event["step"] == "extract_features" and event.get("done", 0) >= 1 for event in events)
