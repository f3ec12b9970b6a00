"""kfp's DockerRunner as mended: a container's own exit code counts, however short its life; nothing stays."""

from __future__ import annotations

from pathlib import Path

import docker as docker_sdk
import pytest

from pipelines.docker_runner import LABEL, container_runner, remove_leftovers

pytestmark = pytest.mark.timeout(3600)  # whichever test comes first builds the images and lives the nights

SHORT_LIVES = 15
"""kfp's own runner took eight of eight such failures for successes."""


@pytest.fixture
def client(docker: str) -> docker_sdk.DockerClient:
    return docker_sdk.DockerClient(base_url=docker)


def test_short_failures_are_failures(
    client: docker_sdk.DockerClient, images: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = container_runner(tmp_path, {str(tmp_path): "rw"})
    before = len(client.containers.list(all=True))
    settings = {"labels": {LABEL: str(tmp_path)}, "network_mode": "host"}
    for life in range(SHORT_LIVES):
        code = run(client, images["train"], ["sh", "-c", f"echo life {life}; exit 3"], {}, **settings)
        assert code == 3
    assert run(client, images["train"], ["true"], {}, **settings) == 0
    assert capsys.readouterr().out.splitlines() == [f"life {life}" for life in range(SHORT_LIVES)]
    assert len(client.containers.list(all=True)) == before


def test_what_a_killed_night_left_is_removed(
    client: docker_sdk.DockerClient,
    docker: str,
    images: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker)
    mine, others = ({LABEL: str(tmp_path / name)} for name in ("mine", "others"))
    left = client.containers.run(images["train"], ["sleep", "300"], detach=True, labels=mine, network_mode="none")
    kept = client.containers.run(images["train"], ["sleep", "300"], detach=True, labels=others, network_mode="none")
    try:
        remove_leftovers(tmp_path / "mine")
        present = {container.id for container in client.containers.list(all=True)}
        assert left.id not in present and kept.id in present
    finally:
        kept.remove(force=True)
