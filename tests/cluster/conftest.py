"""Each test of manifests runs once an overlay; commands are typed against a Kubeflow Pipelines of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kfp_server import KubeflowPipelines, serving
from tests.cluster.rendered import OVERLAYS, Object, overlay
from tests.cluster.typed import TOKEN, Terminal, terminal_for


@pytest.fixture(params=OVERLAYS)
def environment(request: pytest.FixtureRequest) -> str:
    """Name of an overlay."""
    return str(request.param)


@pytest.fixture
def objects(environment: str) -> list[Object]:
    """What the overlay renders to."""
    return overlay(environment)


@pytest.fixture
def server() -> Iterator[KubeflowPipelines]:
    with serving(token=TOKEN) as answering:
        yield answering


@pytest.fixture
def terminal(server: KubeflowPipelines, tmp_path: Path) -> Iterator[Terminal]:
    with terminal_for(server, tmp_path) as typed:
        yield typed
