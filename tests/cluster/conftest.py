"""Each test of manifests runs once an overlay."""

from __future__ import annotations

import pytest

from tests.cluster.rendered import OVERLAYS, Object, overlay


@pytest.fixture(params=OVERLAYS)
def environment(request: pytest.FixtureRequest) -> str:
    """Name of an overlay."""
    return str(request.param)


@pytest.fixture
def objects(environment: str) -> list[Object]:
    """What the overlay renders to."""
    return overlay(environment)
