"""Images built on this machine, podman's socket in Docker's place, and one tiny night run in containers and without.

Needs root, podman, buildah and mmdebstrap; where one is missing everything here skips and says which.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from goalrank import __version__
from goalrank_platform import root
from tests import lacking

IMAGES = {name: f"goalrank/{name}:{__version__}" for name in ("data", "train", "serve")}
WORLD = ["--days", "4", "--users", "500", "--items", "200", "--requests-per-day", "1500"]
COMMAND = [sys.executable, "-c", "from goalrank_platform import main; main()"]
ENGINE = {"CONTAINERS_CONF": os.environ.get("CONTAINERS_CONF", str(root() / "scripts" / "containers.conf"))}
SUMMARY = pytest.StashKey[list[str]]()


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Podman's answer."""
    command = ["podman", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check, env=os.environ | ENGINE, timeout=300)


@pytest.fixture(scope="session")
def summary(pytestconfig: pytest.Config) -> list[str]:
    """Lines printed after the last test."""
    return pytestconfig.stash.setdefault(SUMMARY, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was built and how the two nights compare."""
    for line in config.stash.get(SUMMARY, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def images(summary: list[str]) -> dict[str, str]:
    """The three images, built from their Dockerfiles; layers that are here already are taken as they are."""
    needed = [] if os.geteuid() == 0 else ["root"]
    needed += [tool for tool in ("podman", "buildah", "mmdebstrap") if shutil.which(tool) is None]
    if needed:
        lacking.skip(f"root, podman, buildah and mmdebstrap are needed; lacking: {', '.join(needed)}")
    begun = time.monotonic()
    script = ["sh", str(root() / "scripts" / "local_images.sh")]
    subprocess.run(script, check=True, env=os.environ | {"PYTHON": sys.executable})
    sizes = [
        f"{name} {int(podman('image', 'inspect', '--format', '{{.Size}}', image).stdout) / 1e6:,.0f} MB"
        for name, image in IMAGES.items()
    ]
    summary.append(f"images: {', '.join(sizes)}; made in {time.monotonic() - begun:.0f} s")
    return IMAGES


@pytest.fixture(scope="session")
def docker(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Podman's socket as an address for DOCKER_HOST, where nobody set one."""
    address = f"unix://{tmp_path_factory.mktemp('podman') / 'podman.sock'}"
    service = subprocess.Popen(["podman", "system", "service", "--time=0", address], env=os.environ | ENGINE)
    socket = Path(address.removeprefix("unix://"))
    deadline = time.monotonic() + 30
    while not socket.exists() and service.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert socket.exists(), "podman's service did not start"
    yield address
    service.terminate()
    service.wait(30)


def environment(docker: str = "") -> dict[str, str]:
    """Of a night: one thread each, so that sums are added in one order; with `docker`, steps run in containers."""
    chosen = {"GOALRANK_RUNNER": "docker", "DOCKER_HOST": docker} if docker else {"GOALRANK_RUNNER": "subprocess"}
    return os.environ | {"OMP_NUM_THREADS": "1"} | chosen


def night(workspace: Path, *arguments: str, docker: str = "") -> dict[str, Any]:
    """One tiny night in a world of its own that every workspace's is equal to; its result, and its folder."""
    if not workspace.exists():
        made = subprocess.run([*COMMAND, "simulate", "--workspace", str(workspace), *WORLD], capture_output=True)
        assert made.returncode == 0, made.stderr.decode()
    flags = ["--workspace", str(workspace), "--preset", "tiny", "--json", *arguments]
    done = subprocess.run(
        [*COMMAND, "nightly", *flags], capture_output=True, text=True, env=environment(docker), timeout=1500
    )
    assert done.stdout.strip(), done.stderr[-2000:]
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return result | {"folder": workspace / "nights" / result["run_id"]}


@pytest.fixture(scope="session")
def in_containers(docker: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The first night, each step in a container of its own."""
    return night(tmp_path_factory.mktemp("containers") / "workspace", "--allow-bootstrap", docker=docker)


@pytest.fixture(scope="session")
def in_processes(in_containers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same night without containers."""
    return night(tmp_path_factory.mktemp("processes") / "workspace", "--allow-bootstrap")
