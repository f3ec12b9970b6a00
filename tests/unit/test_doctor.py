"""`goalrank doctor`: each broken thing gets its line and its mend; nothing hangs it, breaks it, or is changed by it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components import registry
from components.promote_model import journal
from console.doctor import diagnose, machine, network, stores, versions, workspace
from console.doctor.findings import OK, PROBLEM, WARNING, Check, Finding, examine
from console.main import app
from console.workspace import FORMAT, Workspace
from goalrank.errors import UsageError
from tests.unit.test_workspace import logs_with


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not answer is given up on at once, and no setting of the machine plays a part."""
    for name in [name for name in os.environ if name.startswith("GOALRANK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(network, "SECONDS", 0.5)
    monkeypatch.setattr(machine, "ASK_SECONDS", 1.0)
    monkeypatch.setenv("GOALRANK_PORT", str(free_port()))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with logs and one good night."""
    folder = tmp_path / "w"
    logs = logs_with(tmp_path, "2026-01-07", "2026-01-08")
    folder.mkdir(exist_ok=True)
    Workspace(folder).record_logs(logs)
    night(folder, "2026-01-08", "promoted")
    with closing(sqlite3.connect(made(folder / "mlflow") / "mlflow.db")) as database:
        for table in stores.TABLES_OF_MLFLOW:
            database.execute(f"CREATE TABLE {table} (x)")
    sqlite3.connect(made(folder / "feast") / "online.db").close()
    (folder / "feast" / "online.json").write_text('{"snapshot_id": "abc", "folder": "x"}')
    moves = [{"name": registry.RANKER, "from": None, "to": "1", "previous": None}]
    intent = {"format": 1, "event": "intent", "id": 1, "at": "2026-01-09T03:00:00+00:00", "kind": "promotion"}
    intent |= {"by": "night", "reason": "first", "date": "2026-01-08", "snapshot_id": "abc", "run_uri": "x"}
    done = {"format": 1, "event": "done", "id": 1, "at": "2026-01-09T03:00:01+00:00", "note": ""}
    lines = [json.dumps(intent | {"moves": moves}), json.dumps(done)]
    (made(folder / "journal") / journal.FILE).write_text("\n".join(lines) + "\n")
    return folder


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def night(folder: Path, date: str, verdict: str, number: int = 1) -> Path:
    """The card of a night."""
    place = made(folder / "nights" / date / str(number))
    card = {"date": date, "verdict": verdict, "started_at": time.time(), "parameters": {}}
    (place / "night.json").write_text(json.dumps(card))
    return place


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def found(place: Path, name: str) -> dict[str, str]:
    """The finding of that name."""
    findings = {finding["name"]: finding for finding in diagnose(place)["findings"]}
    assert name in findings, findings.keys()
    return findings[name]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def server() -> Iterator[Callable[[int, bytes], str]]:
    """server(status, body) -> address of one that answers so to everything."""
    running: list[HTTPServer] = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        one = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=one.serve_forever, daemon=True).start()
        running.append(one)
        return f"http://127.0.0.1:{one.server_port}"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """HOST:PORT of a program that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


# --------------------------------------------------------------------------------------------------------- all in order


def test_a_place_in_order(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    script(tmp_path / "java" / "bin" / "java", "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2")
    document = diagnose(place)
    wrong = [each for each in document["findings"] if each["status"] == PROBLEM]
    assert (wrong, document["exit_code"], document["problems"]) == ([], 0, 0)
    assert found(place, "champion")["found"] == "version 1 since 2026-01-09; previous: none"
    assert found(place, "last night")["found"] == "2026-01-08/1 promoted"
    assert "2 days, 2026-01-07 to 2026-01-08" in found(place, "logs")["found"]
    assert "17.0.9" in found(place, "Java")["found"]


def test_nothing_there_yet_is_no_problem(tmp_path: Path) -> None:
    document = diagnose(tmp_path / "none")
    groups = {finding["group"] for finding in document["findings"]}
    assert groups == {"versions", "machine", "workspace", "stores", "serving"}
    assert not [each for each in document["findings"] if each["status"] == PROBLEM and each["name"] != "Java"]
    assert not (tmp_path / "none").exists(), "looking makes nothing"


def test_nothing_is_changed(place: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = [path for path in place.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    diagnose(place)
    assert state() == before


# ------------------------------------------------------------------------------------------------- nothing stops it


def test_a_check_that_hangs_or_raises_does_not_stop_the_others() -> None:
    def hangs() -> list[Finding]:
        time.sleep(60)
        return []

    def raises() -> list[Finding]:
        raise RuntimeError("broken")

    def refuses() -> list[Finding]:
        raise UsageError("that found, expected this; do so")

    (answer,) = examine([Check("g", "folder", lambda _: raises(), PROBLEM).of(1)], 5)
    assert answer.status == PROBLEM
    (answer,) = examine([Check("g", "ours", refuses)], 5)
    assert (answer.status, answer.found, answer.mend) == (PROBLEM, "that found, expected this", "do so")
    fine = Finding("g", "fine", OK, "yes")
    begun = time.monotonic()
    seen = examine([Check("g", "slow", hangs), Check("g", "bad", raises), Check("g", "fine", lambda: [fine])], 0.3)
    assert time.monotonic() - begun < 2.5
    assert [(one.name, one.status) for one in seen] == [("slow", WARNING), ("bad", WARNING), ("fine", OK)]
    assert "no answer within" in seen[0].found and "RuntimeError: broken" in seen[1].found


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("GOALRANK_PORT", "many", "port"),
        ("GOALRANK_FEATURE_STORE", "cluster", "GOALRANK_REDIS"),
        ("GOALRANK_TRACKING_URI", "sqlite:///x\n", "TRACKING_URI"),
    ],
)
def test_settings_that_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(app, ["doctor", "--workspace", str(tmp_path / "w"), "--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["exit_code"]) == (2, 2)
    (wrong,) = [finding for finding in document["findings"] if finding["group"] == "settings"]
    assert said in wrong["found"] and wrong["mend"]
    assert [finding for finding in document["findings"] if finding["name"] == "Python"], "the rest is looked at still"


# ---------------------------------------------------------------------------------------------- what is broken is named


def test_java_that_is_old_missing_or_hangs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "java"
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert "holds no bin/java" in found(place, "Java")["found"]
    script(home / "bin" / "java", "echo 'java version \"1.8.0_392\"' >&2")
    old = found(place, "Java")
    assert old["status"] == PROBLEM and "1.8.0_392" in old["found"] and "17" in old["mend"]
    script(home / "bin" / "java", "exec sleep 60")
    assert "does not start (TimeoutExpired)" in found(place, "Java")["found"]
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(place, "Java")["found"] == "none found"


def test_a_gpu_and_a_driver_that_is_broken(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    script(tmp_path / "nvidia-smi", "echo 'NVIDIA H100 80GB HBM3, 79000 MiB, 81559 MiB'")
    card = found(place, "GPU")
    assert "H100 80GB HBM3, 79000 MiB free of 81559 MiB" in card["found"]
    assert (card["status"] == WARNING) == metadata.version("torch").endswith("+cpu")
    script(tmp_path / "nvidia-smi", "echo 'has failed because it could not communicate' >&2; exit 9")
    assert found(place, "GPU")["status"] == WARNING


def test_tools_that_are_missing_or_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    versions_now = {"kfp": "1.8.22", "pydantic": "2.99.0", "feast": None}

    def version(name: str) -> str:
        if name in versions_now:
            if versions_now[name] is None:
                raise metadata.PackageNotFoundError(name)
            return str(versions_now[name])
        return real(name)

    monkeypatch.setattr(versions.metadata, "version", version)
    assert found(place, "kfp")["status"] == PROBLEM and "1.8.22, expected" in found(place, "kfp")["found"]
    assert found(place, "feast")["found"].startswith("not installed, expected 0.67")
    assert found(place, "pydantic")["status"] == WARNING and "tested with" in found(place, "pydantic")["found"]


def test_little_room_and_memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DISK", 2**60)
    assert found(place, "disk")["status"] == WARNING and "goalrank clean" in found(place, "disk")["mend"]
    monkeypatch.setattr(machine, "FULL", 2**60)
    assert found(place, "disk")["status"] == PROBLEM
    monkeypatch.setattr(machine, "TIGHT", 2**60)
    assert found(place, "memory")["status"] == WARNING


def write(file: str, text: str) -> Callable[[Path], object]:
    return lambda place: (place / file).write_text(text)


def remove(file: str) -> Callable[[Path], object]:
    return lambda place: (place / file).unlink()


def card(**changes: object) -> Callable[[Path], object]:
    def change(place: Path) -> None:
        path = place / "workspace.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def ended(verdict: str) -> Callable[[Path], object]:
    return lambda place: night(place, "2026-01-09", verdict)


def begun(place: Path) -> None:
    """A promotion that was killed between its intent and its end."""
    path = place / "journal" / journal.FILE
    intent = json.loads(path.read_text().splitlines()[0])
    path.write_text(path.read_text() + json.dumps(intent | {"id": 2}) + "\n")


NIGHTS_CARD, JOURNAL = "nights/2026-01-08/1/night.json", f"journal/{journal.FILE}"
DATABASE, ONLINE, RECORD = "mlflow/mlflow.db", "feast/online.db", "feast/online.json"
BROKEN: list[tuple[str, Callable[[Path], object], str, str, str]] = [
    ("card damaged", write("workspace.json", "{"), "folder", PROBLEM, "is no JSON object"),
    ("older format", card(format=FORMAT - 1), "folder", PROBLEM, "an older release's"),
    ("newer format", card(format=FORMAT + 1), "folder", PROBLEM, "format"),
    ("moved", card(folder="/elsewhere"), "folder", PROBLEM, "was made as /elsewhere"),
    ("logs gone", card(logs="/nowhere"), "logs", PROBLEM, "holds no day"),
    ("night refused", ended("refused"), "last night", WARNING, "2026-01-09/1 refused"),
    ("night failed", ended("failed"), "last night", WARNING, "failed"),
    ("night killed", ended("running"), "last night", WARNING, "was interrupted"),
    ("night's card", write(NIGHTS_CARD, "{"), "last night", PROBLEM, "card cannot be read"),
    ("night's card a list", write(NIGHTS_CARD, "[]"), "last night", PROBLEM, "2026-01-08/1/night.json (a list found"),
    ("night's card empty", write(NIGHTS_CARD, "{}"), "last night", PROBLEM, "date and verdict and started_at"),
    ("journal", write(JOURNAL, "{\n{}\n"), "champion", PROBLEM, "is no event of format"),
    ("move begun", begun, "champion", WARNING, "not finished"),
    ("nobody", remove(JOURNAL), "champion", WARNING, "nobody"),
    ("database", write(DATABASE, "x" * 4096), "MLflow", PROBLEM, "not a database"),
    ("database gone", remove(DATABASE), "MLflow", PROBLEM, "is gone"),
    ("database empty", write(DATABASE, ""), "MLflow", PROBLEM, "lacks the tables"),
    ("online gone", remove(ONLINE), "online store", PROBLEM, "is gone"),
    ("cut short", write(RECORD, '{"may": []}'), "features online", WARNING, "cut short"),
    ("record", write(RECORD, "{"), "features online", WARNING, "cannot be read"),
]


@pytest.mark.parametrize(("what", "breaks", "name", "status", "said"), BROKEN, ids=[row[0] for row in BROKEN])
def test_what_is_broken_is_named_with_its_mend(
    place: Path, what: str, breaks: Callable[[Path], object], name: str, status: str, said: str
) -> None:
    assert found(place, name)["status"] == OK
    breaks(place)
    finding = found(place, name)
    assert finding["status"] == status and said in finding["found"], finding
    assert finding["mend"]
    assert diagnose(place)["problems"] >= (status == PROBLEM)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"date": "2026-01-08", "verdict": "kept", "started_at": "now"}'])
def test_every_command_names_a_damaged_card(place: Path, text: str) -> None:
    (place / NIGHTS_CARD).write_text(text)
    result = CliRunner().invoke(app, ["history", "--workspace", str(place), "--json"])
    assert result.exit_code == 0
    reasons = [entry["reason"] for entry in json.loads(result.stdout)["entries"]]
    assert any(str(place / NIGHTS_CARD) in reason and "restore it" in reason for reason in reasons)
    for command in (["report"], ["nightly"], ["clean"]):
        result = CliRunner().invoke(app, [*command, "--workspace", str(place)])
        assert result.exit_code == 2 and NIGHTS_CARD in result.stderr and "restore it" in result.stderr
    problems = [each for each in diagnose(place)["findings"] if each["status"] == PROBLEM and each["name"] != "Java"]
    assert [each["name"] for each in problems] == ["last night"]


def test_days_that_wait_for_their_night(place: Path, tmp_path: Path) -> None:
    logs_with(tmp_path, "2026-01-09", "2026-01-10")
    finding = found(place, "logs")
    assert finding["status"] == WARNING and "2 wait for their night" in finding["found"]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who holds a lock")
def test_a_night_that_runs_is_seen_and_not_disturbed(place: Path) -> None:
    with Workspace(place).one_at_a_time():
        night(place, "2026-01-09", "running")
        assert f"process {os.getpid()} holds it" in found(place, "lock")["found"]
        assert found(place, "last night")["status"] == OK
    assert workspace.holder_of(place / "lock") is None
    with open(place / "lock", "w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the diagnosis holds nothing


# ------------------------------------------------------------------------------------------------------------- servers


def test_an_mlflow_server(
    place: Path, monkeypatch: pytest.MonkeyPatch, server: Callable[[int, bytes], str], silent: str
) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    for address, status, said in (
        (server(200, b"OK"), OK, "answers"),
        (server(503, b""), PROBLEM, "answers 503"),
        (server(404, b""), WARNING, "answers 404"),
        (server(401, b""), OK, "asks who we are"),
        (closed, PROBLEM, "does not answer"),
        (f"http://{silent}", PROBLEM, "does not answer"),
        (server(401, b"").replace("//", "//mlflow:s3cret@"), OK, "asks who we are"),
        (closed.replace("//", "//mlflow:s3cret@"), PROBLEM, "does not answer"),
    ):
        monkeypatch.setenv("GOALRANK_TRACKING_URI", address)
        finding = found(place, "MLflow")
        assert finding["status"] == status and said in finding["found"], (address, finding)
        assert "s3cret" not in json.dumps(finding)


def test_the_clusters_stores_and_no_password_in_sight(
    place: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setenv("GOALRANK_FEATURE_STORE", "cluster")
    monkeypatch.setenv("GOALRANK_FEAST_REGISTRY", f"postgresql+psycopg://feast:s3cret@127.0.0.1:{free_port()}/feast")
    monkeypatch.setenv("GOALRANK_REDIS", f"{silent},password=s3cret")
    monkeypatch.setenv("GOALRANK_TRACKING_URI", f"postgresql://mlflow:s3cret@{silent}/mlflow")
    monkeypatch.setenv("GOALRANK_SPARK_MASTER", f"spark://127.0.0.1:{free_port()}")
    monkeypatch.setenv("GOALRANK_KFP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("GOALRANK_PROMETHEUS", f"http://{silent}")
    document = diagnose(place)
    status = {finding["name"]: finding["status"] for finding in document["findings"]}
    assert status["MLflow's database"] == OK, "it listens"
    assert all(status[name] == PROBLEM for name in ("Feast's registry", "online store", "Spark", "Prometheus"))
    assert status["Kubeflow Pipelines"] == PROBLEM
    assert "s3cret" not in json.dumps(document)


def test_a_redis_that_answers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, status in ((b"+PONG\r\n", OK), (b"-NOAUTH Authentication required.\r\n", OK), (b"HTTP/1.1 400", PROBLEM)):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer(listening: socket.socket = listening, said: bytes = said) -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(64)
                    connection.sendall(said)

            threading.Thread(target=answer, daemon=True).start()
            finding = stores._redis(f"127.0.0.1:{listening.getsockname()[1]}")
        assert finding.status == status, finding


def test_who_is_at_the_services_port(
    place: Path, monkeypatch: pytest.MonkeyPatch, server: Callable[[int, bytes], str], silent: str
) -> None:
    assert "nobody serves" in found(place, "service")["found"]
    ready = {"status": "ready", "model_name": "goalrank-ranker", "model_version": "3"}
    for address, status, said in (
        (server(200, json.dumps(ready).encode()), OK, "version 3 answers"),
        (server(200, json.dumps(ready | {"status": "not answering"}).encode()), WARNING, "not answering"),
        (server(200, b"<html>"), WARNING, "another program"),
        (f"http://{silent}", WARNING, "another program"),
    ):
        monkeypatch.setenv("GOALRANK_PORT", address.rpartition(":")[2])
        finding = found(place, "service")
        assert finding["status"] == status and said in finding["found"], (address, finding)


# ------------------------------------------------------------------------------------------------------------- printed


def test_a_person_reads_status_and_mend_and_a_program_the_same(place: Path) -> None:
    night(place, "2026-01-09", "refused")
    person = CliRunner().invoke(app, ["doctor", "--workspace", str(place)])
    program = CliRunner().invoke(app, ["doctor", "--workspace", str(place), "--json"])
    document = json.loads(program.stdout)
    assert person.exit_code == program.exit_code == document["exit_code"]
    assert "warning last night" in " ".join(person.stdout.split())
    for finding in document["findings"]:
        if finding["mend"]:
            assert finding["mend"] in person.stdout
    assert person.stdout.rstrip().endswith(("warning.", "warnings.", "Nothing is wrong."))
