"""Ranker training as a TrainJob: against Kubeflow Trainer's own schema, and through a server that is strict."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from components.train_ranker import launch, train_job_client, waited_for
from components.train_ranker.train_job import INPUTS, train
from components.train_ranker.train_job_client import OLDEST_TRAINER, TRIES, TrainJobs
from components.train_ranker.train_job_manifest import NODES, PATCHES, PODS_ACCOUNT, Machines, manifest, name_of
from goalrank.errors import ModelRefused, TryAgain, UsageError
from pipelines.cluster import SIZES, Cluster, compile_cluster
from tests.cluster.rendered import K8S, of_kind, render, selects
from tests.cluster.restricted import violations
from tests.cluster.schemas import CRDS, problems, require_crds
from tests.pipeline.test_compiled import containers, documents

NAMESPACE, TOKEN = "goalrank-prod", "night-token"
IMAGE = "registry.example/goalrank/train@sha256:" + "0" * 64
MACHINES = Machines(2, 4, IMAGE, "goalrank-workspace", "8", "32Gi", 3600, gpus=4, gpu_taint="t", gpu_node_label="l=v")
MOST_NODES, LONGEST_LABEL = 64, 63
PATH = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
POD_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods/the-night-train-ranker"
WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "the-night", "uid": "4-5-6"}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "the-night-train-ranker",
        "ownerReferences": [WORKFLOW | {"controller": True, "blockOwnerDeletion": True}],
    },
    "spec": {"containers": [{"name": "main", "image": IMAGE}]},
}
JOB = manifest("train-ranker-2026-01-08-ab", MACHINES, {"preset": "base", "seed": 0})

TOLD = {
    "GOALRANK_TRAIN_NODES": "2",
    "GOALRANK_TRAIN_IMAGE": "i",
    "GOALRANK_TRAIN_CLAIM": "c",
    "GOALRANK_TRAIN_CPU": "8",
    "GOALRANK_TRAIN_MEMORY": "32Gi",
    "GOALRANK_TRAIN_SECONDS": "3600",
    "GOALRANK_TRAIN_GPUS": "1",
}


class Trainer(ThreadingHTTPServer):
    """The API server and the operator: takes TrainJobs that fit the schema, one of a name, and ends them."""

    daemon_threads = True

    def __init__(self, work: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.faults: list[int] = []
        self.token = TOKEN
        self.looks_of_the_deleted = 0
        self.unknown: set[str] = set()
        self.pod, self.pod_status = copy.deepcopy(POD), 200
        self.work = work

    def create(self, job: dict[str, Any]) -> int:
        if CRDS.is_dir() and problems(job | {"metadata": job["metadata"] | {"namespace": NAMESPACE}}):
            return 422
        if job["metadata"]["name"] in self.jobs:
            return 409
        name = job["metadata"]["name"]
        if len(f"{name}-node-0-{MOST_NODES - 1}-abcde") > LONGEST_LABEL:  # JobSet's webhook, as its operator hears it
            return 422
        self.jobs[name] = job | {"status": {}, "looks": 0}
        return 201

    def look(self, name: str) -> None:
        job = self.jobs[name]
        job["looks"] += 1
        if "deletionTimestamp" in job["metadata"]:
            if job["looks"] > self.looks_of_the_deleted:
                del self.jobs[name]
            return
        if job["looks"] == 2:
            kind = "Complete" if self.work(job) else "Failed"
            job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "", "message": ""}]}

    def delete(self, name: str) -> None:
        """At once, or with its pods, which takes some looks."""
        job = self.jobs[name]
        job["metadata"] |= {"deletionTimestamp": "2026-01-08T02:30:00Z"}
        job["looks"] = 0
        if not self.looks_of_the_deleted:
            del self.jobs[name]


class Answers(BaseHTTPRequestHandler):
    server: Trainer

    def _answer(self) -> None:
        server, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = self.path.partition("?")[0].removeprefix(PATH).strip("/")
        server.asked.append(self.command)
        document: dict[str, Any] = {}
        if server.faults:
            status = server.faults.pop(0)
        elif self.headers.get("Authorization") != f"Bearer {server.token}":
            status = 401
        elif self.path == POD_PATH and self.command == "GET":
            document, status = server.pod, server.pod_status
        elif not self.path.startswith(PATH):
            status = 404
        elif self.command == "POST":
            document = json.loads(body)
            # As an API server does with what its definition of a TrainJob does not know.
            document["spec"] = {key: value for key, value in document["spec"].items() if key not in server.unknown}
            status = server.create(document)
        elif name not in server.jobs:
            status = 404
        elif self.command == "DELETE":
            server.delete(name)
            status = 200
        else:
            document, status = server.jobs[name], 200
            server.look(name)
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


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_job_client, "PAUSE_SECONDS", 0.001)


def jobs(server: Trainer, token: str = TOKEN, start_seconds: float = 60.0) -> TrainJobs:
    host = f"http://127.0.0.1:{server.server_address[1]}"
    return TrainJobs(host, NAMESPACE, lambda: token, poll_seconds=0.01, start_seconds=start_seconds)


def trained(server: Trainer, tmp_path: Path, said: Callable[[str], None] = lambda _: None) -> bool:
    return train(jobs(server), MACHINES, given(tmp_path), outcome_of(tmp_path), said)


def outcome_of(tmp_path: Path) -> Path:
    return Path(given(tmp_path)["run_uri"]) / "outcomes" / "train_ranker.json"


def test_the_job_is_one() -> None:
    """Kubeflow Trainer's own schema, unknown fields forbidden; and a check that can fail."""
    require_crds()
    assert problems(JOB) == []
    for path in (("spec", "trainer"), ("spec", "runtimePatches", 0, "trainingRuntimeSpec")):
        spoiled = copy.deepcopy(JOB)
        at: Any = spoiled
        for step in path:
            at = at[step]
        at["numNode"] = 2
        assert problems(spoiled)
    for owners, found in (([WORKFLOW], False), ([WORKFLOW | {"id": 1}], True), ([{"name": "the-night"}], True)):
        assert bool(problems(JOB | {"metadata": JOB["metadata"] | {"ownerReferences": owners}})) == found


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
    assert JOB["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["tolerations"] == [{"key": "t", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["nodeSelector"] == {"l": "v"}
    without = dataclasses.replace(MACHINES, gpus=0)
    one = manifest("x", without, {})
    assert one["spec"]["trainer"]["resourcesPerNode"]["requests"] == {"cpu": "8", "memory": "32Gi"}
    assert "tolerations" not in str(one) and "nodeSelector" not in str(one)


def given(tmp_path: Path) -> dict[str, Any]:
    for name in INPUTS:
        (tmp_path / "pod" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pod" / name / "content").write_text(name)
    inputs = {name: str(tmp_path / "pod" / name) for name in INPUTS}
    run_uri = str(tmp_path / "volume" / "2026-01-08" / "ab")
    return inputs | {"ranker": str(tmp_path / "pod" / "ranker"), "preset": "tiny", "seed": 0, "run_uri": run_uri}


def trains(job: dict[str, Any]) -> bool:
    """What the nodes do: read the inputs from the volume, write the ranker there."""
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in job["spec"]["trainer"]["args"])
    for name in INPUTS:
        assert (Path(flags[name.replace("_", "-")]) / "content").read_text() == name
        assert flags[name.replace("_", "-")].startswith(flags["run-uri"]), "on the shared volume"
    Path(flags["ranker"]).mkdir(parents=True)
    (Path(flags["ranker"]) / "model.json").write_text("{}")
    return True


def test_a_step_trains_by_a_job(server: Trainer, tmp_path: Path) -> None:
    server.work = trains
    said: list[str] = []
    assert trained(server, tmp_path, said.append)
    assert (tmp_path / "pod" / "ranker" / "model.json").read_text() == "{}"
    assert server.jobs == {} and "Complete True" in said[-1]
    assert not (tmp_path / "volume" / "2026-01-08" / "ab" / "train_job").exists(), (
        "no second copy of the inputs is left"
    )


def test_a_job_that_fails_is_asked_for_anew(server: Trainer, tmp_path: Path) -> None:
    """A node was lost: the step fails, and kfp's next try asks for another job, which finds its checkpoints."""
    server.work = lambda job: False
    assert not trained(server, tmp_path)
    assert server.jobs == {}
    server.work = trains
    assert trained(server, tmp_path)


def test_a_trainer_that_is_too_old(server: Trainer, tmp_path: Path) -> None:
    """It would run the pods without what the patches say, and `restricted` would refuse them for half an hour."""
    server.unknown = {PATCHES, "activeDeadlineSeconds"}
    with pytest.raises(UsageError, match=f"{PATCHES}.* expected Kubeflow Trainer {OLDEST_TRAINER} or newer"):
        trained(server, tmp_path)
    assert server.jobs == {}


def test_a_job_that_an_older_trainer_made_is_replaced(server: Trainer, tmp_path: Path) -> None:
    """The step was killed before it could delete the job: the next try does not wait for it half an hour."""
    server.unknown = {PATCHES}
    original, left = server.delete, list[str]()
    server.delete = left.append  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=PATCHES):
        trained(server, tmp_path)
    assert len(server.jobs) == 1 and left
    server.delete, server.unknown, server.work = original, set(), trains  # type: ignore[method-assign]
    assert trained(server, tmp_path) and server.asked.count("POST") == 2


def test_a_step_that_was_killed_finds_its_job(server: Trainer, tmp_path: Path) -> None:
    server.work = trains
    original = server.look
    killed: list[str] = []

    def look(name: str) -> None:
        if not killed:
            killed.append(name)
            server.faults = [503] * TRIES
        original(name)

    server.look = look  # type: ignore[method-assign]
    with pytest.raises(TryAgain, match="does not answer"):
        trained(server, tmp_path)
    assert len(server.jobs) == 1
    assert trained(server, tmp_path)
    assert server.asked.count("POST") == 1 and len(set(killed)) == 1, "one job"


def test_a_step_says_that_it_waits_as_long_as_it_does(server: Trainer, tmp_path: Path) -> None:
    """The job is told where to listen, on the shared volume, and every look at the job is a word."""
    words: list[str] = []

    def look(name: str) -> None:
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in server.jobs[name]["spec"]["trainer"]["args"])
        assert flags["waited-for"].startswith(flags["run-uri"])
        words.append(Path(flags["waited-for"]).read_text())
        ended = {"conditions": [{"type": "Complete", "status": "True", "reason": "", "message": ""}]}
        if len(words) == 5:
            trains(server.jobs[name])
            server.jobs[name]["status"] = ended

    server.look = look  # type: ignore[method-assign]
    assert trained(server, tmp_path)
    assert len(set(words)) == 5
    assert not (Path(given(tmp_path)["run_uri"]) / waited_for.FILE).exists()


@pytest.mark.parametrize(("status", "owners"), [(200, [WORKFLOW]), (403, []), (404, [])])
def test_a_job_goes_with_its_run(server: Trainer, tmp_path: Path, status: int, owners: list[dict[str, str]]) -> None:
    """Kubernetes deletes what belongs to a Workflow that is deleted; the next try's pod belongs to the same one."""
    server.pod_status, asked = status, list[dict[str, Any]]()
    server.work = lambda job: not asked.append(job) and trains(job)  # type: ignore[func-returns-value]
    machines = dataclasses.replace(MACHINES, pod="the-night-train-ranker")
    assert train(jobs(server), machines, given(tmp_path), outcome_of(tmp_path))
    assert asked[0]["metadata"].get("ownerReferences", []) == owners


def test_a_pod_of_nobodys(server: Trainer) -> None:
    del server.pod["metadata"]["ownerReferences"]
    assert jobs(server).owners_of("the-night-train-ranker") == []


@pytest.mark.parametrize(
    ("faults", "token", "error", "said"),
    [
        ([], "another", UsageError, "says 401"),
        ([403], TOKEN, UsageError, "may create, get and delete"),
        ([422], TOKEN, UsageError, "says 422"),
        ([500] * TRIES, TOKEN, TryAgain, "500"),
        ([429] * TRIES, TOKEN, TryAgain, "429"),
    ],
)
def test_a_server_that_refuses_or_errs(
    server: Trainer, faults: list[int], token: str, error: type[Exception], said: str
) -> None:
    server.faults = faults
    with pytest.raises(error, match=said):
        jobs(server, token).ask(copy.deepcopy(JOB))


def test_somebody_deleted_it(server: Trainer) -> None:
    original = server.create

    def create(job: dict[str, Any]) -> int:
        status = original(job)
        server.jobs.clear()
        return status

    server.create = create  # type: ignore[method-assign]
    jobs(server).ask(copy.deepcopy(JOB))
    with pytest.raises(TryAgain, match="somebody deleted it"):
        jobs(server).ended_well(JOB["metadata"]["name"])


def test_one_name_a_run() -> None:
    """JobSet's webhook wants the longest pod's name of a job to be a label: <name>-node-0-<index>-<5 letters>."""
    assert name_of("/workspace/nights/scheduled/0a1b-2c") == name_of("/workspace/nights/scheduled/0a1b-2c")
    long = "y" * 300
    names = {name_of(f"/{first}/{long}/{last}") for first in "ab" for last in ("x", "X", "x-")}
    assert len(names) == 6, "the whole of it tells two runs apart"
    for name in names:
        assert len(f"{name}-node-0-{MOST_NODES - 1}-abcde") <= LONGEST_LABEL


def test_a_token_is_read_at_every_call(server: Trainer) -> None:
    """The cluster renews it every hour or so, a training lasts longer."""
    job, tokens = copy.deepcopy(JOB), ["first"]
    host = f"http://127.0.0.1:{server.server_address[1]}"
    asking = TrainJobs(host, NAMESPACE, lambda: tokens[-1], poll_seconds=0.01)
    server.token = "first"
    asking.ask(job)
    server.token = "second"
    tokens.append("second")
    assert asking.ended_well(job["metadata"]["name"])


def test_a_server_away_for_a_moment_is_asked_again(server: Trainer, tmp_path: Path) -> None:
    server.work = trains
    server.faults = [503, 429, 500]
    assert trained(server, tmp_path)


@pytest.mark.parametrize("pods", [0, 1])
def test_a_job_that_does_not_start_is_given_up(server: Trainer, pods: int) -> None:
    """No quota: no pod is made. No machine: the pod waits."""
    children = {"name": "node", "active": pods, "ready": 0, "succeeded": 0, "failed": 0, "suspended": 0}

    def look(name: str) -> None:
        server.jobs[name]["status"] = {"jobsStatus": [children]}

    server.look = look  # type: ignore[method-assign]
    asking = jobs(server, start_seconds=0.05)
    asking.ask(copy.deepcopy(JOB))
    with pytest.raises(TryAgain, match="look for quota, machines with room, and runtime torch-distributed"):
        asking.ended_well(JOB["metadata"]["name"])
    assert server.jobs == {}, "nor does it start later, when nobody waits"


@pytest.mark.parametrize(
    "status",
    [
        {"jobsStatus": [{"name": "node", "active": 1, "ready": 1, "succeeded": 0, "failed": 0, "suspended": 0}]},
        {"conditions": [{"type": "Suspended", "status": "True", "reason": "", "message": ""}]},
    ],
    ids=["it runs", "a queue holds it"],
)
def test_a_job_under_way_is_waited_for(server: Trainer, status: dict[str, Any]) -> None:
    looks: list[str] = []

    def look(name: str) -> None:
        looks.append(name)
        ended = {"conditions": [{"type": "Complete", "status": "True", "reason": "", "message": ""}]}
        server.jobs[name]["status"] = status if len(looks) < 20 else ended

    server.look = look  # type: ignore[method-assign]
    asking = jobs(server, start_seconds=0.05)
    asking.ask(copy.deepcopy(JOB))
    assert asking.ended_well(JOB["metadata"]["name"])


def test_what_a_job_under_way_wrote_stays(server: Trainer, tmp_path: Path) -> None:
    """The step was killed after its job had ended, before it took the ranker."""
    server.work = lambda job: outcome(job, "done")
    asking = jobs(server)
    asking.delete = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(asking, MACHINES, given(tmp_path), outcome_of(tmp_path))
    server.work = lambda job: False
    assert trained(server, tmp_path)
    assert outcome_of(tmp_path).exists() and server.asked.count("POST") == 1


def test_a_job_that_ended_with_nobody_waiting_costs_no_try(server: Trainer, tmp_path: Path) -> None:
    server.work = lambda job: outcome(job, "try_again", "nobody waits")
    asking = jobs(server)
    asking.delete = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(asking, MACHINES, given(tmp_path), outcome_of(tmp_path))
    server.work = trains
    assert trained(server, tmp_path) and server.asked.count("POST") == 2
    assert (tmp_path / "pod" / "ranker" / "model.json").exists()


def killed(name: str) -> None:
    raise KeyboardInterrupt


def test_what_an_earlier_job_wrote_is_no_news(server: Trainer, tmp_path: Path) -> None:
    outcome_of(tmp_path).parent.mkdir(parents=True)
    outcome_of(tmp_path).write_text("{}")
    server.work = lambda job: False
    assert not trained(server, tmp_path)
    assert not outcome_of(tmp_path).exists()


@pytest.mark.parametrize("looks", [0, 3])
def test_a_night_submitted_again_trains_on_its_own_inputs(server: Trainer, tmp_path: Path, looks: int) -> None:
    """Same run folder, other inputs, and the earlier try's job still there: it goes first."""
    server.work, server.looks_of_the_deleted = lambda job: False, looks
    assert not trained(server, tmp_path)
    server.jobs.clear()
    older = manifest(name_of(given(tmp_path)["run_uri"]), MACHINES, {"preset": "tiny"})
    assert server.create(older) == 201
    found: list[str] = []

    def reads(job: dict[str, Any]) -> bool:
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in job["spec"]["trainer"]["args"])
        found.extend((Path(flags[name.replace("_", "-")]) / "content").read_text() for name in INPUTS)
        Path(flags["ranker"]).mkdir()
        return True

    server.work = reads
    anew, ended = given(tmp_path), outcome_of(tmp_path)
    (Path(anew["groups"]) / "content").write_text("tonight's")
    assert train(jobs(server), MACHINES, anew, ended)
    assert found == ["training_set", "tonight's", "reward_model"]


def test_a_step_that_is_ended_takes_its_job_with_it(server: Trainer, tmp_path: Path) -> None:
    def look(name: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    server.look = look  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TryAgain, match="SIGTERM came"):
        trained(server, tmp_path)
    assert server.jobs == {} and server.asked[-1] == "DELETE"
    assert signal.getsignal(signal.SIGTERM) is before


def test_machines_from_the_environment() -> None:
    assert Machines.of({}, 1) is None and Machines.of({"GOALRANK_TRAIN_NODES": "1"}, 4) is None
    assert Machines.of(TOLD, 1) == Machines(2, 1, "i", "c", "8", "32Gi", 3600, gpus=1)
    assert Machines.of(TOLD | {"GOALRANK_POD_NAME": "p"}, 1) == dataclasses.replace(
        Machines(2, 1, "i", "c", "8", "32Gi", 3600, gpus=1), pod="p"
    )
    for wrong in ({"GOALRANK_TRAIN_NODES": "two"}, {"GOALRANK_TRAIN_IMAGE": ""}):
        with pytest.raises(UsageError, match="GOALRANK_TRAIN_NODES"):
            Machines.of(TOLD | wrong, 1)


def outcome(job: dict[str, Any], kind: str, reason: str = "") -> bool:
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in job["spec"]["trainer"]["args"])
    file = Path(flags["run-uri"]) / "outcomes" / "train_ranker.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"kind": kind, "reason": reason}))
    return kind != "done" or trains(job)  # its processes end well whatever the outcome says


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        (lambda job: outcome(job, "done"), None, ""),
        (lambda job: outcome(job, "model_refused", "loss is nan"), ModelRefused, "loss is nan"),
        (lambda job: outcome(job, "try_again", "another process is gone"), TryAgain, "another process is gone"),
        (lambda job: False, TryAgain, "gone without a word .its TrainJob ended failed"),
        (lambda job: outcome(job, "done") and False, TryAgain, "gone without a word .its TrainJob ended failed"),
    ],
    ids=["well", "refused", "a node was lost", "no word", "a node was lost at the end"],
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
    with pytest.raises(error, match=said) if error else nullcontext():
        launch.train(1, **given(tmp_path))
    assert (tmp_path / "pod" / "ranker" / "model.json").exists() == (error is None)


def test_the_pipelines_settings_become_the_job(tmp_path: Path) -> None:
    compile_cluster(tmp_path / "cluster.yaml", Cluster(train_nodes=2, gpus=4))
    spec, pods = documents(tmp_path / "cluster.yaml")
    told = {each["name"]: each["value"] for each in containers(spec)["train_ranker"]["env"]}
    size = SIZES["train_ranker"]
    cluster, seconds = Cluster(), int(size.hours * 3600)
    expected = Machines(2, 4, cluster.train_image, cluster.volume_claim, size.cpu, size.memory, seconds, gpus=4)
    expected = dataclasses.replace(expected, gpu_taint="nvidia.com/gpu", gpu_node_label="nvidia.com/gpu.present=true")
    assert Machines.of(told, 4) == expected
    assert (
        "accelerator" not in containers(spec)["train_ranker"]["resources"]
        and "nodeSelector" not in pods["train_ranker"]
    )
    assert "accelerator" in containers(spec)["train_reward"]["resources"]
    fields = {each["name"]: each["fieldPath"] for each in pods["train_ranker"]["fieldPathAsEnv"]}
    assert fields["GOALRANK_POD_NAME"] == "metadata.name"
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
    assert sorted(one["kind"] for one in ours) == [
        "NetworkPolicy",
        "NetworkPolicy",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    ]
    assert [problem for one in ours for problem in problems(one)] == []
    (night,) = (one for one in of_kind(objects, "Role") if one["metadata"]["name"] == "goalrank-night")
    assert any(rule["resources"] == ["pods"] and "get" in rule["verbs"] for rule in night["rules"]), (
        "its own pod's owner"
    )
    (role,) = of_kind(ours, "Role")
    assert role["rules"] == [
        {"apiGroups": ["trainer.kubeflow.org"], "resources": ["trainjobs"], "verbs": ["create", "get", "delete"]}
    ]
    (account,) = of_kind(ours, "ServiceAccount")
    assert account["metadata"]["name"] == PODS_ACCOUNT and account["automountServiceAccountToken"] is False
    labels = {"app.kubernetes.io/name": NODES}
    assert [
        one["metadata"]["name"]
        for one in ours
        if one["kind"] == "NetworkPolicy" and selects(one["spec"]["podSelector"], labels)
    ] == ["trainer"]
