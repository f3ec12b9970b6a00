"""The mended runner without an engine: what is mounted, whose exit code counts, how a step is ended."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from goalrank.errors import UsageError
from pipelines import docker_runner
from pipelines.docker_runner import PASSED_ON, USER, container_runner, folders, give_to_user, require_images


class FakeContainer:
    """Ends with a code, or breaks off while it is waited for."""

    def __init__(self, code: int = 0, breaks: type[BaseException] | None = None) -> None:
        self.code, self.breaks, self.status, self.said = code, breaks, "created", []

    def start(self) -> None:
        self.status = "running"

    def wait(self) -> dict[str, int]:
        if self.breaks:
            raise self.breaks
        self.status = "exited"
        return {"StatusCode": self.code}

    def exec_run(self, command: list[str]) -> None:
        self.said.append(command)
        self.status = "exited"

    def reload(self) -> None: ...

    def logs(self) -> bytes:
        return b"its log\n"

    def remove(self, force: bool) -> None:
        self.status = "removed"


class FakeClient:
    """Keeps what a container was created with."""

    def __init__(self, container: FakeContainer) -> None:
        self.container, self.created = container, {}
        self.containers = self

    def create(self, image: str, command: list[str], **settings: Any) -> FakeContainer:
        self.created = settings
        return self.container


def run(container: FakeContainer, workspace: Path, mode: str = "rw") -> tuple[int, dict[str, Any]]:
    client = FakeClient(container)
    volumes = {str(workspace / "run"): {"bind": str(workspace / "run"), "mode": mode}}
    code = container_runner(workspace, {str(workspace): "rw"})(client, "image", ["true"], volumes)
    return code, client.created


def test_what_root_wrote_is_given_to_the_steps_user(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "night.json").write_text("{}")
    (tmp_path / "run" / "link").symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd").st_uid
    give_to_user(tmp_path)
    owners = {path.lstat().st_uid for path in (tmp_path, *tmp_path.rglob("*"))}
    assert owners == {USER}
    assert os.stat("/etc/passwd").st_uid == before, "a link must not be followed"


@pytest.mark.parametrize("code", [0, 1, 75, 137])
def test_a_containers_own_exit_code_counts(tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    container = FakeContainer(code)
    assert run(container, tmp_path)[0] == code
    assert container.status == "removed"
    assert capsys.readouterr().out == "its log\n"


def test_the_workspace_is_mounted_at_its_own_path_and_selinux_is_kept(tmp_path: Path) -> None:
    for mode, expected in (("rw", "rw"), ("rw,z", "rw,z")):
        _, created = run(FakeContainer(), tmp_path, mode)
        assert created["volumes"] == {str(tmp_path): {"bind": str(tmp_path), "mode": expected}}
        assert "auto_remove" not in created


def test_an_interrupted_night_asks_its_step_to_end_and_removes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    container = FakeContainer(breaks=SystemExit)
    with pytest.raises(SystemExit):
        run(container, tmp_path)
    assert container.said == [["sh", "-c", "kill -TERM -1"]]
    assert container.status == "removed"
    assert capsys.readouterr().out == "its log\n"


def test_only_what_the_night_names_is_mounted() -> None:
    parameters = {
        "run_uri": "/w/nights/2026-01-04/1",
        "snapshots_uri": "/elsewhere/snapshots",
        "logs_uri": "/logs",
        "world_uri": "/logs",
        "tracking_uri": "sqlite:////models/mlflow.db",
        "feast_uri": "s3://bucket/feast",
        "journal_uri": "/w/journal",
        "preset": "/not/a/folder",
    }
    assert folders(Path("/w"), parameters) == {
        "/w": "rw",
        "/elsewhere/snapshots": "rw",
        "/logs": "ro",
        "/models": "rw",
    }


def test_a_folder_that_is_written_too_is_not_read_only() -> None:
    for parameters in ({"logs_uri": "/x", "feast_uri": "/x"}, {"feast_uri": "/x", "logs_uri": "/x"}):
        assert folders(Path("/w"), parameters)["/x"] == "rw"


def test_steps_get_settings_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, passed in (("GOALRANK_REDIS", True), ("OMP_NUM_THREADS", True), ("PATH", False), ("PYTHONPATH", False)):
        assert name.startswith(PASSED_ON) is passed


def test_no_engine_is_said_before_a_night_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    with pytest.raises(UsageError, match="no Docker answers"):
        require_images()


def test_a_missing_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [docker_runner.DATA_IMAGE, f"localhost/{docker_runner.TRAIN_IMAGE}"]
    images = [SimpleNamespace(tags=[tag], attrs={"RepoDigests": []}) for tag in here]
    client = SimpleNamespace(images=SimpleNamespace(list=lambda: images))
    monkeypatch.setattr(docker, "from_env", lambda: client)
    with pytest.raises(UsageError, match=f"image {docker_runner.SERVING_IMAGE} is not on this machine"):
        require_images()
