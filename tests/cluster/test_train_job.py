"""Ranker training as a TrainJob: against Kubeflow Trainer's own schema, and through a server that is strict."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from components.train_ranker import launch, train_job
from components.train_ranker.train_job import Machines, TrainJobs, manifest, name_of, train
from goalrank.errors import ModelRefused, TryAgain, UsageError
from pipelines.cluster import SIZES, Cluster, compile_cluster
from tests.cluster.rendered import K8S, of_kind, render, selects
from tests.cluster.restricted import violations
from tests.cluster.schemas import CRDS, problems
from tests.pipeline.test_compiled import containers, documents

NAMESPACE, TOKEN = "goalrank-prod", "night-token"
MACHINES = Machines(
    2, 4, "registry.example/goalrank/train@sha256:" + "0" * 64, "goalrank-workspace", "8", "32Gi", gpus=4
)
PATH = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
JOB = manifest("train-ranker-2026-01-08-ab", MACHINES, {"preset": "base", "seed": 0})

TOLD = {
    "GOALRANK_TRAIN_NODES": "2",
    "GOALRANK_TRAIN_IMAGE": "i",
    "GOALRANK_TRAIN_CLAIM": "c",
    "GOALRANK_TRAIN_CPU": "8",
    "GOALRANK_TRAIN_MEMORY": "32Gi",
    "GOALRANK_TRAIN_GPUS": "1",
}

needs_schemas = pytest.mark.skipif(not CRDS.is_dir(), reason=f"no schemas of the operators at {CRDS}")


class Trainer(ThreadingHTTPServer):
    """The API server and the operator: takes TrainJobs that fit the schema, one of a name, and ends them."""

    daemon_threads = True

    def __init__(self, work: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.faults: list[int] = []
        self.work = work

    def create(self, job: dict[str, Any]) -> int:
        if CRDS.is_dir() and problems(job | {"metadata": job["metadata"] | {"namespace": NAMESPACE}}):
            return 422
        if job["metadata"]["name"] in self.jobs:
            return 409
        self.jobs[job["metadata"]["name"]] = job | {"status": {}, "looks": 0}
        return 201

    def look(self, name: str) -> None:
        job = self.jobs[name]
        job["looks"] += 1
        if job["looks"] == 2:
            kind = "Complete" if self.work(job) else "Failed"
            job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "", "message": ""}]}


class Answers(BaseHTTPRequestHandler):
    server: Trainer

    def _answer(self) -> None:
        server, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = self.path.partition("?")[0].removeprefix(PATH).strip("/")
        server.asked.append(self.command)
        document: dict[str, Any] = {}
        if server.faults:
            status = server.faults.pop(0)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 401
        elif not self.path.startswith(PATH):
            status = 404
        elif self.command == "POST":
            document = json.loads(body)
            status = server.create(document)
        elif name not in server.jobs:
            status = 404
        elif self.command == "DELETE":
            document, status = server.jobs.pop(name), 200
        else:
            server.look(name)
            document, status = server.jobs[name], 200
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Trainer]:
    with Trainer(lambda job: True) as answering:
        Thread(target=answering.serve_forever, daemon=True).start()
        yield answering
        answering.shutdown()


def jobs(server: Trainer, token: str = TOKEN) -> TrainJobs:
    return TrainJobs(f"http://127.0.0.1:{server.server_address[1]}", NAMESPACE, token)


@needs_schemas
def test_the_job_is_one() -> None:
    """Kubeflow Trainer's own schema, unknown fields forbidden; and a check that can fail."""
    assert problems(JOB) == []
    for path in (("spec", "trainer"), ("spec", "runtimePatches", 0, "trainingRuntimeSpec")):
        spoiled = copy.deepcopy(JOB)
        at: Any = spoiled
        for step in path:
            at = at[step]
        at["numNode"] = 2
        assert problems(spoiled)


def test_its_pods_are_restricted_and_find_what_they_need() -> None:
    patch = JOB["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = patch["template"]["spec"]["template"]["spec"]
    assert violations(pod) == []
    claims = [each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "persistentVolumeClaim" in each]
    assert claims == [MACHINES.claim]
    trainer = JOB["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["args"] == ["--preset=base", "--seed=0"]
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "4"}
    one = manifest("x", Machines(2, 1, "image", "claim", "8", "32Gi"), {})
    assert one["spec"]["trainer"]["resourcesPerNode"]["requests"] == {"cpu": "8", "memory": "32Gi"}


def given(tmp_path: Path) -> dict[str, Any]:
    for name in train_job.INPUTS:
        (tmp_path / "pod" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pod" / name / "content").write_text(name)
    inputs = {name: str(tmp_path / "pod" / name) for name in train_job.INPUTS}
    run_uri = str(tmp_path / "volume" / "2026-01-08" / "ab")
    return inputs | {"ranker": str(tmp_path / "pod" / "ranker"), "preset": "tiny", "seed": 0, "run_uri": run_uri}


def trains(job: dict[str, Any]) -> bool:
    """What the nodes do: read the inputs from the volume, write the ranker there."""
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in job["spec"]["trainer"]["args"])
    for name in train_job.INPUTS:
        assert (Path(flags[name.replace("_", "-")]) / "content").read_text() == name
        assert flags[name.replace("_", "-")].startswith(flags["run-uri"]), "on the shared volume"
    Path(flags["ranker"]).mkdir(parents=True)
    (Path(flags["ranker"]) / "model.json").write_text("{}")
    return True


def test_a_step_trains_by_a_job(server: Trainer, tmp_path: Path) -> None:
    server.work = trains
    said: list[str] = []
    assert train(jobs(server), MACHINES, given(tmp_path), said.append, poll_seconds=0.01)
    assert (tmp_path / "pod" / "ranker" / "model.json").read_text() == "{}"
    assert server.jobs == {} and "Complete True" in said[-1]
    assert not (tmp_path / "volume" / "2026-01-08" / "ab" / "train_job").exists(), (
        "no second copy of the inputs is left"
    )


def test_a_job_that_fails_is_asked_for_anew(server: Trainer, tmp_path: Path) -> None:
    """A node was lost: the step fails, and kfp's next try asks for another job, which finds its checkpoints."""
    server.work = lambda job: False
    assert not train(jobs(server), MACHINES, given(tmp_path), poll_seconds=0.01)
    assert server.jobs == {}
    server.work = trains
    assert train(jobs(server), MACHINES, given(tmp_path), poll_seconds=0.01)


def test_a_step_that_was_killed_finds_its_job(server: Trainer, tmp_path: Path) -> None:
    server.work = trains
    original, killed = server.look, []

    def look(name: str) -> None:
        if not killed:
            killed.append(name)
            server.faults = [503]
        original(name)

    server.look = look  # type: ignore[method-assign]
    with pytest.raises(TryAgain, match="does not answer about a TrainJob"):
        train(jobs(server), MACHINES, given(tmp_path), poll_seconds=0.01)
    assert len(server.jobs) == 1
    assert train(jobs(server), MACHINES, given(tmp_path), poll_seconds=0.01)
    assert server.asked.count("POST") == 2 and len(set(killed)) == 1, "one job: the second asking was answered 409"


@pytest.mark.parametrize(
    ("faults", "token", "error", "said"),
    [
        ([], "another", UsageError, "says 401"),
        ([403], TOKEN, UsageError, "may create, get and delete"),
        ([422], TOKEN, UsageError, "says 422"),
        ([500], TOKEN, TryAgain, "500"),
        ([429], TOKEN, TryAgain, "429"),
    ],
)
def test_a_server_that_refuses_or_errs(
    server: Trainer, faults: list[int], token: str, error: type[Exception], said: str
) -> None:
    server.faults = faults
    with pytest.raises(error, match=said):
        jobs(server, token).run(JOB, poll_seconds=0.01)


def test_somebody_deleted_it(server: Trainer) -> None:
    original = server.create

    def create(job: dict[str, Any]) -> int:
        status = original(job)
        server.jobs.clear()
        return status

    server.create = create  # type: ignore[method-assign]
    with pytest.raises(TryAgain, match="somebody deleted it"):
        jobs(server).run(JOB, poll_seconds=0.01)


def test_one_name_a_run() -> None:
    assert name_of("/workspace/nights/scheduled/0a1b-2c") == name_of("/workspace/nights/scheduled/0a1b-2c")
    assert name_of("/workspace/nights/2026-01-08/AB_c") == "train-ranker-2026-01-08-ab-c"
    assert len(name_of("/x/" + "y" * 300)) <= 53, "pods' names are longer than the job's"


def test_machines_from_the_environment() -> None:
    assert Machines.of({}, 1) is None and Machines.of({"GOALRANK_TRAIN_NODES": "1"}, 4) is None
    assert Machines.of(TOLD, 1) == Machines(2, 1, "i", "c", "8", "32Gi", gpus=1)
    for wrong in ({"GOALRANK_TRAIN_NODES": "two"}, {"GOALRANK_TRAIN_IMAGE": ""}):
        with pytest.raises(UsageError, match="GOALRANK_TRAIN_NODES"):
            Machines.of(TOLD | wrong, 1)


def outcome(job: dict[str, Any], kind: str, reason: str = "") -> bool:
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in job["spec"]["trainer"]["args"])
    file = Path(flags["run-uri"]) / "outcomes" / "train_ranker.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"kind": kind, "reason": reason}))
    return kind == "done" and trains(job)


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        (lambda job: outcome(job, "done"), None, ""),
        (lambda job: outcome(job, "model_refused", "loss is nan"), ModelRefused, "loss is nan"),
        (lambda job: outcome(job, "try_again", "another process is gone"), TryAgain, "another process is gone"),
        (lambda job: False, TryAgain, "gone without a word .its TrainJob ended failed"),
    ],
    ids=["well", "refused", "a node was lost", "no word"],
)
def test_the_step_ends_as_its_job_did(
    server: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    work: Any,
    error: type[Exception] | None,
    said: str,
) -> None:
    """launch.train, which the component calls: the first process's outcome is the step's."""
    server.work = work
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(TrainJobs, "from_account", classmethod(lambda cls: jobs(server)))
    monkeypatch.setattr(train_job.TrainJobs.run, "__defaults__", (lambda _: None, 0.01))
    monkeypatch.setattr(train_job.train, "__defaults__", (lambda _: None, 0.01))
    with pytest.raises(error, match=said) if error else nullcontext():
        launch.train(1, **given(tmp_path))
    assert (tmp_path / "pod" / "ranker" / "model.json").exists() == (error is None)


def test_the_pipelines_settings_become_the_job(tmp_path: Path) -> None:
    compile_cluster(tmp_path / "cluster.yaml", Cluster(train_nodes=2, gpus=4))
    spec, pods = documents(tmp_path / "cluster.yaml")
    told = {each["name"]: each["value"] for each in containers(spec)["train_ranker"]["env"]}
    size = SIZES["train_ranker"]
    expected = Machines(2, 4, Cluster().train_image, Cluster().volume_claim, size.cpu, size.memory, gpus=4)
    assert Machines.of(told, 4) == expected
    assert (
        "accelerator" not in containers(spec)["train_ranker"]["resources"]
        and "nodeSelector" not in pods["train_ranker"]
    )
    assert "accelerator" in containers(spec)["train_reward"]["resources"]
    assert not any(
        "GOALRANK_TRAIN_NODES" in str(container)
        for step, container in containers(spec).items()
        if step != "train_ranker"
    )


def test_the_component_is_well_formed(tmp_path: Path) -> None:
    to = os.path.relpath(K8S, tmp_path.resolve())
    parts = {"resources": [f"{to}/base"], "components": [f"{to}/components/trainer"], "namespace": NAMESPACE}
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(head | parts))
    objects = render(tmp_path)
    ours = [one for one in objects if "trainer" in one["metadata"]["name"]]
    assert sorted(one["kind"] for one in ours) == ["NetworkPolicy", "NetworkPolicy", "Role", "RoleBinding"]
    assert [problem for one in ours for problem in problems(one)] == []
    (role,) = of_kind(ours, "Role")
    assert role["rules"] == [
        {"apiGroups": ["trainer.kubeflow.org"], "resources": ["trainjobs"], "verbs": ["create", "get", "delete"]}
    ]
    labels = {"app.kubernetes.io/name": train_job.NODES}
    assert [
        one["metadata"]["name"]
        for one in ours
        if one["kind"] == "NetworkPolicy" and selects(one["spec"]["podSelector"], labels)
    ] == ["trainer"]
