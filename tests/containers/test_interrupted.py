"""A night in containers that is told to end, or whose console is killed, leaves no container at work behind it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import docker as docker_sdk
import pytest

from goalrank.errors import EXIT_TRY_AGAIN
from pipelines.docker_runner import LABEL
from tests.containers.conftest import COMMAND, environment

pytestmark = pytest.mark.timeout(3600)  # whichever test comes first builds the images and lives the nights


def begun(docker: str, workspace: Path, command: str) -> subprocess.Popen[str]:
    """A night under way, as soon as one of its steps has a container."""
    flags = [command, "--workspace", str(workspace), "--json", *(["--preset", "tiny"] if command == "nightly" else [])]
    night = subprocess.Popen(
        [*COMMAND, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(docker)
    )
    deadline = time.monotonic() + 300
    while not at_work(docker, workspace) and night.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert at_work(docker, workspace)
    return night


def at_work(docker: str, workspace: Path) -> list[Any]:
    client = docker_sdk.DockerClient(base_url=docker)
    return client.containers.list(all=True, filters={"label": f"{LABEL}={workspace}"})


@pytest.mark.parametrize("command", ["nightly", "resume"])
def test_told_to_end(docker: str, in_containers: dict[str, Any], command: str) -> None:
    workspace = Path(in_containers["workspace"])
    night = begun(docker, workspace, command)
    night.send_signal(signal.SIGTERM)
    said, _ = night.communicate(timeout=60)
    assert night.returncode == EXIT_TRY_AGAIN
    assert "`goalrank resume` goes on from there" in json.loads(said.strip().splitlines()[-1])["reason"]
    assert at_work(docker, workspace) == []


def test_killed_outright(docker: str, in_containers: dict[str, Any]) -> None:
    workspace = Path(in_containers["workspace"])
    night = begun(docker, workspace, "nightly")
    night.kill()
    night.communicate()
    deadline = time.monotonic() + 60
    while at_work(docker, workspace) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert at_work(docker, workspace) == []
