"""The cluster's commands as they are typed, against a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.main import app
from pipelines.cluster import compile_cluster
from tests.cluster.kfp_server import KubeflowPipelines

TOKEN = "t0ken.of-a-service_account"
DIGEST = "registry.example/goalrank/{}@sha256:" + "0123456789abcdef" * 4
IMAGES = {f"GOALRANK_{name.upper()}_IMAGE": DIGEST.format(name) for name in ("data", "train", "serving")}
OTHER_IMAGE = DIGEST.format("train").replace("0123", "ffff")


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        return json.loads(line)


@dataclass(frozen=True)
class Terminal:
    """Where the commands are typed: an environment that names the server and what the night needs."""

    environment: dict[str, str]

    def type(self, *words: str, **environment: str) -> Said:
        result = CliRunner().invoke(app, list(words), env=self.environment | environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    def json(self, *words: str, **environment: str) -> dict[str, Any]:
        """What a command says with --json, its exit code held against the object's."""
        said = self.type(*words, "--json", **environment)
        assert said.document["exit_code"] == said.code, said
        return said.document


_COMPILED: dict[str, bytes] = {}
"""Packages by cluster: compiling takes seconds, and what is compiled is tests/pipeline's business."""


@contextmanager
def terminal_for(server: KubeflowPipelines, home: Path) -> Iterator[Terminal]:
    """A terminal whose home folder is empty (kfp's client keeps a file there), for commands that do not wait long."""

    def compiled(target: Path, cluster: Any) -> None:
        if repr(cluster) not in _COMPILED:
            compile_cluster(target, cluster)
            _COMPILED[repr(cluster)] = target.read_bytes()
        target.write_bytes(_COMPILED[repr(cluster)])

    token = {"GOALRANK_KFP_TOKEN": server.token} if server.token else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setattr("pipelines.kubeflow.PAUSE_SECONDS", 0.01)
        patch.setattr("pipelines.cluster.compile_cluster", compiled)
        yield Terminal({"GOALRANK_KFP_ENDPOINT": server.host, **token, **IMAGES})
