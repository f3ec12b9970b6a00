"""The night with each step in a container of its own, on one machine: kfp's DockerRunner, mended.

kfp 2.17 starts containers that remove themselves: one that ends before its log is asked for is gone, and a container
that is gone is taken for a success. Here each is created, started, waited for, read and removed, and its own exit code
counts. What a pod on the cluster would have holds here too: the image's user (or whoever runs the night), a root file
system that cannot be written, no capability. Nothing is ever pulled.

Docker, or podman's socket named in DOCKER_HOST. The containers share the machine's network, so that an address in the
settings means the same inside, and see the workspace at its own path.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.images import DATA_IMAGE, SERVING_IMAGE, TRAIN_IMAGE
from goalrank.errors import UsageError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from kfp.local import DockerRunner

USER = 1000
"""User of the images, and of the steps of a night that root runs: no step ever runs as root."""

PASSED_ON = ("GOALRANK_", "MLFLOW_", "AWS_", "OMP_")
"""Variables of the night that its steps get, by how their names begin."""

LABEL = "goalrank.workspace"
"""Names a container's workspace, so that the next night finds what a killed one left."""

GRACE_SECONDS = 8.0
"""For a step to end in good order; less than the ten that the console waits for the pipeline."""


def require_images() -> None:
    """Look before a night begins whether it can.

    Raises:
        UsageError: neither Docker nor podman answers, or an image is missing.
    """
    import docker

    try:
        client = docker.from_env()
        present = {tag for image in client.images.list() for tag in (*image.tags, *image.attrs["RepoDigests"])}
    except (docker.errors.DockerException, OSError) as error:
        raise UsageError(
            f"GOALRANK_RUNNER=docker found, but no Docker answers ({error}); start it, or name the socket of "
            "`podman system service` in DOCKER_HOST"
        ) from error
    for image in (DATA_IMAGE, TRAIN_IMAGE, SERVING_IMAGE):
        if not {image, f"docker.io/{image}", f"localhost/{image}"} & present:
            raise UsageError(f"image {image} is not on this machine; build it: `make images`, or name another one")


def docker_runner(workspace: Path, parameters: dict[str, Any]) -> DockerRunner:
    """kfp's runner for a night in that workspace; what an earlier, killed night left running there is ended first."""
    from kfp import local
    from kfp.local import docker_task_handler

    remove_leftovers(workspace)
    docker_task_handler.run_docker_container = container_runner(workspace, folders(workspace, parameters))
    return local.DockerRunner(
        environment={name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)},
        labels={LABEL: str(workspace)},
        user=f"{os.getuid() or USER}:{os.getgid() or USER}",
        network_mode="host",
        read_only=True,
        tmpfs={"/tmp": "mode=1777"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        init=True,
    )


def folders(workspace: Path, parameters: dict[str, Any]) -> dict[str, str]:
    """What a night's steps see of this machine: folder -> rw or ro.

    The workspace, and each folder outside it that a parameter names; logs are only read.
    """
    found = {str(workspace): "rw"}
    for name, value in parameters.items():
        if not name.endswith("_uri"):
            continue
        database = str(value).startswith("sqlite:///")
        path = Path(str(value).removeprefix("sqlite:///"))
        path = path.parent if database else path
        if path.is_absolute() and not path.is_relative_to(workspace):
            mode = "ro" if name in ("logs_uri", "world_uri") else "rw"
            found[str(path)] = "rw" if "rw" in (mode, found.get(str(path))) else "ro"
    return found


def container_runner(workspace: Path, mounted: dict[str, str]) -> Callable[..., int]:
    """What takes the place of kfp.local.docker_task_handler.run_docker_container."""

    def run_container(
        client: DockerClient, image: str, command: list[str], volumes: dict[str, Any], **settings: Any
    ) -> int:
        """Run one step to its end; its log goes to standard output.

        Args:
            volumes: kfp's own, which lie inside the workspace; only how they are mounted (SELinux) is taken from them.

        Returns:
            The container's own exit code.
        """
        if os.getuid() == 0:
            give_to_user(workspace)
        selinux = ",z" if any(bind["mode"].endswith(",z") for bind in volumes.values()) else ""
        binds = {path: {"bind": path, "mode": mode + selinux} for path, mode in mounted.items()}
        container = client.containers.create(image, command, volumes=binds, **settings)
        try:
            container.start()
            code = int(container.wait()["StatusCode"])
            print(container.logs().decode(errors="replace"), end="")
            return code
        except BaseException:
            end(container)
            print(container.logs().decode(errors="replace"), end="")
            raise
        finally:
            container.remove(force=True)

    return run_container


def end(container: Container, seconds: float = GRACE_SECONDS) -> None:
    """Ask everything inside to end in good order, which a shell as first process would not pass on; then wait."""
    from docker.errors import APIError

    with suppress(APIError):  # it has ended meanwhile
        container.exec_run(["sh", "-c", "kill -TERM -1"])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        container.reload()
        if container.status != "running":
            return
        time.sleep(0.1)


def remove_leftovers(workspace: Path) -> None:
    """Remove the containers that work in a workspace; for whoever holds its lock, or lost the night's parent."""
    import docker

    client = docker.from_env()
    for container in client.containers.list(all=True, filters={"label": f"{LABEL}={workspace}"}):
        with suppress(docker.errors.NotFound):
            container.remove(force=True)


def give_to_user(workspace: Path) -> None:
    """What root wrote since the step before belongs to the steps' user, as a volume's files do on a cluster."""
    for folder, _, files in os.walk(workspace):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            if os.lstat(path).st_uid == 0:
                os.lchown(path, USER, USER)
