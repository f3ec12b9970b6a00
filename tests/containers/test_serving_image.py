"""The server from its image, started as KServe starts it, answers as the same model does without containers.

Command, arguments, environment and locks are the manifests'; of their settings only where the stores are is another's:
those of a night that ran in containers here, files and SQLite in its workspace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from components import registry
from components.smoke_serve import offline
from goalrank import schema
from goalrank_platform import root
from tests.containers.conftest import ENGINE, podman
from tests.containers.test_night import artifacts

pytestmark = pytest.mark.timeout(3600)  # whichever test comes first builds the images and lives the nights

K8S = root() / "k8s" / "base"
READY_SECONDS, GRACE_SECONDS, REQUESTS = 600, 60, 20

ELSEWHERE = ("GOALRANK_WORKSPACE", "GOALRANK_FEATURE_STORE", "GOALRANK_SPARK_MASTER")
"""Settings of the manifests, beside every address, that name the cluster's stores."""

CLIENT = """
import json, sys, time, urllib.request
address, seconds, asked = "http://127.0.0.1:8080", float(sys.argv[1]), json.load(sys.stdin)
deadline = time.monotonic() + seconds
while True:
    try:
        urllib.request.urlopen(address + sys.argv[2], timeout=5)
        break
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"not ready after {seconds} s: {error}")
        time.sleep(0.2)
def answer(body):
    request = urllib.request.Request(address + "/rank", json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30))
answers = []
for body in asked:
    tries = [answer(body)]
    while tries[-1]["fallback"] == "store_away" and len(tries) < 20:
        time.sleep(0.5)
        tries.append(answer(body | {"request_id": f"{body['request_id']}-{len(tries)}"}))
    answers.append(tries)
print(json.dumps(answers))
"""
"""Run beside the server, in its own network: the host's has no part in it, nor a port of the host's.

A machine that is busy elsewhere may be too late with a row: the server then answers by the retriever's order and says
so, and is asked again, by another name.
"""


def pod() -> dict[str, Any]:
    """The server's container of the InferenceService."""
    (service,) = (
        one
        for one in yaml.safe_load_all((K8S / "serving" / "ranker.yaml").read_text())
        if one["kind"] == "InferenceService"
    )
    (container,) = service["spec"]["predictor"]["containers"]
    return container


def environment(workspace: Path) -> dict[str, str]:
    """The manifests' settings, but for the stores; no list is sampled, so that an answer is the model's own."""
    lines = (K8S / "settings.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    kept = {name: value for name, value in settings.items() if not name.endswith("_URI") and name not in ELSEWHERE}
    own = {each["name"]: each["value"] for each in pod()["env"]}
    return kept | own | {"GOALRANK_WORKSPACE": str(workspace), "GOALRANK_EXPLORATION": "0"}


@contextmanager
def serving(image: str, workspace: Path) -> Iterator[str]:
    """The container's id; it is removed in any case."""
    security = pod()["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    locks = ["--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp", "--cap-drop=all"]
    locks += ["--security-opt=no-new-privileges", "--user=1000:1000", "--network=none"]
    told = [f"--env={name}={value}" for name, value in environment(workspace).items()]
    begun = ["--detach", *locks, *told, f"--volume={workspace}:{workspace}"]
    server = podman("run", *begun, image, *pod()["command"], *pod()["args"]).stdout.strip()
    try:
        yield server
    finally:
        podman("rm", "--force", "--time=0", server)


def answered(server: str, requests: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What it answers over HTTP, once its readiness probe is content: of each request all tries, the last is good."""
    probe = pod()["readinessProbe"]["httpGet"]
    (port,) = pod()["ports"]
    assert port["containerPort"] == probe["port"] == 8080
    command = ["podman", "exec", "-i", server, "python", "-c", CLIENT, str(READY_SECONDS), probe["path"]]
    done = subprocess.run(
        command,
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        env=os.environ | ENGINE,
        timeout=READY_SECONDS + 60,
    )
    assert done.returncode == 0, done.stderr + podman("logs", server, check=False).stderr[-2000:]
    return json.loads(done.stdout)


@contextmanager
def without_containers(
    night: dict[str, Any], requests: list[dict[str, Any]], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this machine's own environment that answers the same requests, into folder/answer."""
    workspace = Path(night["workspace"])
    registration = registry.read_registration(artifacts(night) / "register-model" / "registration")
    question = {
        "tracking_uri": f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}",
        "feast_uri": str(workspace / "feast"),
        "model": registry.registered_identity(registration, "ranker").model_dump(),
        "folder": str(folder / "models"),
        "requests": requests,
    }
    (folder / "models").mkdir()
    (folder / "question").write_text(json.dumps(question))
    command = [sys.executable, "-m", "components.smoke_serve.server", str(folder / "question"), str(folder / "answer")]
    process = subprocess.Popen(command, cwd=root(), env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_it_answers_as_the_model_does_without_containers(
    images: dict[str, str], in_containers: dict[str, Any], tmp_path: Path, summary: list[str]
) -> None:
    assert in_containers["verdict"] == "promoted"
    workspace, date = Path(in_containers["workspace"]), in_containers["date"]
    training_set = artifacts(in_containers) / "materialize-features" / "training_set"
    requests = offline.logged_requests(str(training_set), date, REQUESTS)
    assert len(requests) == REQUESTS
    begun = time.monotonic()
    with serving(images["serve"], workspace) as server:
        with without_containers(in_containers, requests, tmp_path) as beside:
            tries = answered(server, requests)
            assert beside.wait(READY_SECONDS) == 0
        podman("stop", f"--time={GRACE_SECONDS}", server)
        state = json.loads(podman("inspect", "--format", "{{json .State}}", server).stdout)
        log = podman("logs", server)
    seconds = time.monotonic() - begun

    expected = json.loads((tmp_path / "answer").read_text())["answers"]
    for of_one, right, request in zip(tries, expected, requests, strict=True):
        found, name = of_one[-1], request["request_id"]
        assert [one["request_id"] for one in of_one] == [name, *(f"{name}-{again}" for again in range(1, len(of_one)))]
        assert (found["model_version"], found["fallback"]) == (str(in_containers["model_version"]), None)
        assert (found["items"], found["fallback"]) == (right["items"], right["fallback"])
        assert len(found["items"]) == schema.LIST_LENGTH and not found["explored"]

    assert state["ExitCode"] == 0 and not state["OOMKilled"], log.stderr[-2000:]
    assert "Traceback" not in log.stdout + log.stderr
    served = list((workspace / "served" / "impressions").glob("dt=*/*.parquet"))
    assert {file.stat().st_uid for file in served} == {1000}
    rows = pa.concat_tables([pq.read_table(file, partitioning=None) for file in served])
    rows = rows.sort_by([("request_id", "ascending"), ("position", "ascending")])
    shown: dict[str, list[int]] = {}
    for name, item in zip(rows["request_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True):
        shown.setdefault(name, []).append(item)
    assert shown == {one["request_id"]: one["items"] for of_one in tries for one in of_one}, "written out as it ended"
    summary.append(f"server from its image: {len(tries)} lists as without containers, a clean end; {seconds:.0f} s")
